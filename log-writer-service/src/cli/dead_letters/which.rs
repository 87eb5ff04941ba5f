//! Which letters are meant.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use clap::{Args, ValueEnum};

use crate::timescale::{LetterFilter, Stage};

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

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    if let Ok(date) = text.parse::<NaiveDate>() {
        return Ok(date.and_time(NaiveTime::MIN).and_utc());
    }
    let ago = humantime::parse_duration(text).ok();
    ago.and_then(|ago| Utc::now().checked_sub_signed(chrono::Duration::from_std(ago).ok()?))
        .ok_or_else(|| "write a time like 2026-11-20T12:00:00Z or 2026-11-20, or how long ago: 2h, 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_date_a_moment_or_how_long_ago() {
        assert_eq!(
            moment("2026-11-20T13:00:00+01:00").unwrap(),
            moment("2026-11-20T12:00:00Z").unwrap()
        );
        assert_eq!(moment("2026-11-20").unwrap(), moment("2026-11-20T00:00:00Z").unwrap());
        let moment_ago = moment("2h").unwrap();
        let ago = Utc::now() - moment_ago;
        assert!((7_200..7_260).contains(&ago.num_seconds()), "{ago}");
        for wrong in ["", "yesterday", "2", "2026-13-01", "999999999999y"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
