//! `list` and `show`.

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json, value::RawValue};
use sqlx::PgPool;

use super::which::Which;
use crate::{
    cli::{escape, print, table},
    timescale::{Actor, Letter, LetterCount, StoredLetter},
};

/// What of a letter's words stands in a list.
const DETAIL_CHARS: usize = 100;

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    which: Which,
    /// Counts by stage and reason instead
    #[arg(long)]
    summary: bool,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..), conflicts_with = "summary")]
    limit: i64,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Show {
    /// Number of the letter
    id: i64,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) async fn run(&self, pool: &PgPool) -> anyhow::Result<()> {
        let filter = self.which.filter(&[]);
        let mut out = String::new();
        if self.summary {
            let counts = filter.summary(pool).await?;
            if self.json {
                for count in &counts {
                    out.push_str(&escape::json(count)?);
                    out.push('\n');
                }
            } else {
                out = summary_table(&counts);
            }
            return print(&out);
        }
        let letters = filter.list(pool, self.limit).await?;
        if self.json {
            for letter in &letters {
                out.push_str(&escape::json(letter)?);
                out.push('\n');
            }
        } else {
            out = letter_table(&letters);
        }
        print(&out)
    }
}

impl Show {
    pub(super) async fn run(&self, pool: &PgPool) -> anyhow::Result<()> {
        let stored = StoredLetter::read(pool, &Actor::of_process(), self.id)
            .await?
            .with_context(|| format!("there is no dead letter {}", self.id))?;
        let text = if self.json {
            escape::json(&as_json(&stored)?)? + "\n"
        } else {
            as_text(&stored)?
        };
        print(&text)
    }
}

fn letter_table(letters: &[Letter]) -> String {
    let mut rows = vec![
        [
            "ID",
            "LAST FAILED",
            "STAGE",
            "REASON",
            "TENANT",
            "ATTEMPTS",
            "BYTES",
            "DETAIL",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(letters.iter().map(|letter| {
        let detail: String = letter.detail.chars().take(DETAIL_CHARS).collect();
        let again = if letter.redriven_at.is_some() {
            "(in the outbox again) "
        } else {
            ""
        };
        vec![
            letter.id.to_string(),
            table::time(letter.last_at),
            letter.stage.clone(),
            escape::shown(&letter.reason),
            escape::shown(letter.tenant.as_deref().unwrap_or("-")),
            letter.attempts.to_string(),
            letter.raw_bytes.to_string(),
            format!("{again}{}", escape::shown(&detail)),
        ]
    }));
    table::text(&rows)
}

fn summary_table(counts: &[LetterCount]) -> String {
    let mut rows = vec![
        [
            "STAGE",
            "REASON",
            "LETTERS",
            "REDRIVEN",
            "EVENTS",
            "BYTES",
            "FIRST FAILED",
            "LAST FAILED",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    rows.extend(counts.iter().map(|count| {
        vec![
            count.stage.clone(),
            escape::shown(&count.reason),
            count.letters.to_string(),
            count.redriven.to_string(),
            count.events.to_string(),
            count.raw_kept_bytes.to_string(),
            table::time(count.first_at),
            table::time(count.last_at),
        ]
    }));
    table::text(&rows)
}

fn as_json(stored: &StoredLetter) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(&stored.letter)?;
    let event: Option<Value> = stored.event.as_deref().map(serde_json::from_str).transpose()?;
    let raw = stored.raw.as_deref().unwrap_or_default();
    if let Value::Object(members) = &mut value {
        members.insert("identity".to_owned(), json!(escape::hex(&stored.identity)));
        members.insert("event".to_owned(), json!(event));
        match str::from_utf8(raw) {
            Ok(text) => members.insert("raw".to_owned(), json!(text)),
            Err(_) => members.insert("raw_hex".to_owned(), json!(escape::hex(raw))),
        };
    }
    Ok(value)
}

fn as_text(stored: &StoredLetter) -> anyhow::Result<String> {
    let mut out = String::new();
    let known = serde_json::to_value(&stored.letter)?;
    for (name, value) in known.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => continue,
            Value::String(text) => escape::shown(text),
            other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
        };
        out.push_str(&format!("{name:<17} {text}\n"));
    }
    out.push_str(&format!("{:<17} {}\n", "identity", escape::hex(&stored.identity)));
    if let Some(raw) = stored.raw.as_deref().filter(|raw| !raw.is_empty()) {
        let (kept, all) = (stored.letter.raw_kept_bytes, stored.letter.raw_bytes);
        out.push_str(&format!(
            "\nreceived ({kept} of {all} bytes):\n{}\n",
            escape::shown_bytes(raw)
        ));
    }
    match &stored.event {
        Some(event) => {
            let event: &RawValue = serde_json::from_str(event)?;
            out.push_str(&format!("\nin application_logs:\n{}\n", escape::json(event)?));
        }
        None if stored.letter.stage == "index" => out.push_str("\nits event is no longer in application_logs\n"),
        None => {}
    }
    Ok(out)
}
