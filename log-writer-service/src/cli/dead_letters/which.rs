//! Which letters are meant.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::{
    cli::moment::moment,
    event::Timestamp,
    timescale::{LetterFilter, Stage},
};

/// What every filter matches is taken; none given: all.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// Failed last at this time or later: 2026-11-20T12:00:00Z, 2026-11-20 (UTC), or how long ago: 2h, 7d
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<DateTime<Utc>>,
    /// Failed last before this time, written like --since
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<DateTime<Utc>>,
    /// Where it failed
    #[arg(long, value_enum)]
    stage: Option<StageName>,
    /// The reason, exactly as `list --summary` shows it
    #[arg(long)]
    reason: Option<String>,
    /// Whose it is
    #[arg(long)]
    tenant: Option<String>,
}

/// The arguments by their names, for groups.
pub(super) const FILTERS: [&str; 5] = ["since", "until", "stage", "reason", "tenant"];

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StageName {
    /// Never became an event
    Decode,
    /// PostgreSQL refused it
    Store,
    /// Is stored, Elasticsearch refused it
    Index,
}

impl Which {
    pub(super) fn filter(&self, ids: &[i64]) -> LetterFilter {
        LetterFilter {
            ids: (!ids.is_empty()).then(|| ids.to_vec()),
            since: self.since.map(Into::into),
            until: self.until.map(Into::into),
            stage: self.stage.map(|stage| match stage {
                StageName::Decode => Stage::Decode,
                StageName::Store => Stage::Store,
                StageName::Index => Stage::Index,
            }),
            reason: self.reason.clone(),
            tenant: self.tenant.clone(),
        }
    }
}

/// What an action is recorded with: every filter that was given.
pub(super) fn target(filter: &LetterFilter, limit: Option<i64>, older_than: Option<Duration>) -> Value {
    let time = |time: Timestamp| DateTime::<Utc>::from(time).to_rfc3339();
    let given = [
        ("ids", filter.ids.as_ref().map(|ids| json!(ids))),
        ("since", filter.since.map(|since| json!(time(since)))),
        ("until", filter.until.map(|until| json!(time(until)))),
        ("stage", filter.stage.map(|stage| json!(stage.as_str()))),
        ("reason", filter.reason.as_ref().map(|reason| json!(reason))),
        ("tenant", filter.tenant.as_ref().map(|tenant| json!(tenant))),
        ("limit", limit.map(|limit| json!(limit))),
        (
            "older_than",
            older_than.map(|age| json!(humantime::format_duration(age).to_string())),
        ),
    ];
    let given = given
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect())
}
