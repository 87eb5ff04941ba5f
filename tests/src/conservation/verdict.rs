//! The invariant: acknowledged events = events in TimescaleDB = events in Elasticsearch plus dead letters, each once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use serde_json::Value;
use uuid::Uuid;

use super::{
    arena::Arena,
    bodies::{Body, Fate, POISON, Sent},
};
use crate::{
    expectation::differences,
    invariants::{assert_delivered_exactly_once, document_id},
    rows::{StoredRow, stored_rows},
    search::Document,
};

/// Second copies may take so long to be removed, and dead letters whose documents came late to be taken back.
const REPAIR_TIME: Duration = Duration::from_secs(60);
/// Ids that a message names at most.
const NAMED_MAX: usize = 5;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// Events that must be stored.
    pub(super) events: u64,
    /// Acknowledged and not in TimescaleDB, or neither in Elasticsearch nor among its dead letters.
    pub(super) lost: Vec<String>,
    /// More than once in one store.
    pub(super) doubled: Vec<String>,
    /// Anything else that must not be.
    pub(super) wrong: Vec<String>,
}

/// Compares both stores with what was acknowledged: everything that was sent.
pub(super) async fn judge(arena: &Arena, sent: &[Body]) -> Verdict {
    let mut verdict = Verdict::default();
    let rows = stored_rows(arena.database.pool()).await;
    check_rows(&rows, sent, &mut verdict);
    let (documents, refused) = documents_that_stay(arena, &rows, &mut verdict).await;
    check_documents(&rows, &documents, &refused, &mut verdict);
    check_letters(arena, sent, &mut verdict).await;
    let process = arena.replicas[0].process.lock().await;
    // A fault at the very end may have started it anew.
    process.until_ready().await;
    let acknowledged = rows.len() as u64;
    // Content member by member, the outbox, the books: it panics with what does not hold.
    let whole = assert_delivered_exactly_once(&process, &arena.database, &documents, acknowledged);
    if let Err(panic) = std::panic::AssertUnwindSafe(whole).catch_unwind().await {
        verdict.wrong.push(message_of(panic.as_ref()));
    }
    verdict
}

/// What a panic said.
pub(super) fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

fn check_rows(rows: &[StoredRow], sent: &[Body], verdict: &mut Verdict) {
    let mut by_marker: HashMap<&str, Vec<&StoredRow>> = HashMap::new();
    for row in rows {
        let marker = row.text("message").and_then(|message| message.split(' ').next());
        by_marker.entry(marker.unwrap_or_default()).or_default().push(row);
    }
    // Events that several bodies brought are one event.
    let expected: BTreeMap<&str, &Sent> = sent
        .iter()
        .flat_map(|body| &body.events)
        .filter(|sent| sent.fate != Fate::Refused)
        .map(|sent| (sent.marker.as_str(), sent))
        .collect();
    verdict.events = expected.len() as u64;
    for (marker, sent) in expected {
        match by_marker.remove(marker).unwrap_or_default().as_slice() {
            [] => verdict
                .lost
                .push(format!("{marker} is not in TimescaleDB: {}", sent.event)),
            [row] => check_row(marker, sent, row, verdict),
            many => {
                let ids: Vec<String> = many.iter().map(|row| row.id.to_string()).collect();
                verdict.doubled.push(format!(
                    "{marker} stands {} times in TimescaleDB: {}",
                    many.len(),
                    ids.join(", ")
                ));
            }
        }
    }
    for (marker, rows) in by_marker {
        verdict
            .wrong
            .push(format!("{} rows of {marker:?}, which was not to be stored", rows.len()));
    }
}

fn check_row(marker: &str, sent: &Sent, row: &StoredRow, verdict: &mut Verdict) {
    if let Fate::StoredAs(id) = sent.fate
        && row.id != id
    {
        verdict
            .wrong
            .push(format!("{marker} was sent as {id} and is stored as {}", row.id));
    }
    let mut event = sent.event.clone();
    if let Value::Object(members) = &mut event {
        members.remove("event_id");
    }
    let different = differences(&event, row);
    if !different.is_empty() {
        verdict
            .wrong
            .push(format!("{marker} ({}): {}", row.id, different.join("; ")));
    }
}

/// All documents, and the events of dead letters that have none: once second copies had the time to be removed, and letters
/// whose document came late to be taken back. Documents that stay twice are doubled.
async fn documents_that_stay(arena: &Arena, rows: &[StoredRow], verdict: &mut Verdict) -> (Vec<Document>, Vec<Uuid>) {
    let begun = Instant::now();
    loop {
        let refused: Vec<Uuid> =
            sqlx::query_scalar("select event_id from log_writer.dead_letters where stage = 'index'")
                .fetch_all(arena.database.pool())
                .await
                .expect("cannot read dead letters");
        let documents = arena.stream.search.documents(&arena.stream.name()).await;
        let mut indices: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for document in &documents {
            indices.entry(&document.id).or_default().push(&document.index);
        }
        let is_buried = rows.iter().any(|row| {
            refused.contains(&row.id) && indices.contains_key(document_id(row.timestamp_us, row.id).as_str())
        });
        indices.retain(|_, indices| indices.len() > 1);
        if indices.is_empty() && !is_buried {
            return (documents, refused);
        }
        if begun.elapsed() > REPAIR_TIME {
            for (id, indices) in indices {
                verdict
                    .doubled
                    .push(format!("{id} stands twice in Elasticsearch: in {}", indices.join(", ")));
            }
            return (documents, refused);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

fn check_documents(rows: &[StoredRow], documents: &[Document], refused: &[Uuid], verdict: &mut Verdict) {
    let indexed: HashSet<&str> = documents.iter().map(|document| document.id.as_str()).collect();
    for row in rows {
        let id = document_id(row.timestamp_us, row.id);
        let letters = refused.iter().filter(|refused| **refused == row.id).count();
        match (indexed.contains(id.as_str()), letters) {
            (true, 0) | (false, 1) => {}
            (false, 0) => verdict.lost.push(format!(
                "{} ({id}) is neither in Elasticsearch nor among its dead letters",
                row.id
            )),
            (present, letters) => verdict.doubled.push(format!(
                "{} ({id}): in Elasticsearch {present}, dead letters {letters}",
                row.id
            )),
        }
    }
}

async fn check_letters(arena: &Arena, sent: &[Body], verdict: &mut Verdict) {
    let broken: usize = sent.iter().map(|body| body.broken_lines).sum();
    let kept = arena
        .database
        .number("select count(*) from log_writer.dead_letters where stage = 'decode'")
        .await;
    if usize::try_from(kept) != Ok(broken) {
        verdict.wrong.push(format!(
            "{broken} broken lines were sent, {kept} dead letters of the stage decode are there"
        ));
    }
    let poisoned: Vec<String> =
        sqlx::query_scalar("select convert_from(raw, 'UTF8') from log_writer.dead_letters where stage = 'store'")
            .fetch_all(arena.database.pool())
            .await
            .expect("cannot read dead letters");
    let refused = sent
        .iter()
        .flat_map(|body| &body.events)
        .filter(|sent| sent.fate == Fate::Refused);
    let mut expected = 0;
    for sent in refused {
        expected += 1;
        let named = format!("{POISON} {}", sent.marker);
        let kept = poisoned.iter().filter(|raw| raw.contains(&named)).count();
        match kept {
            1 => {}
            0 => verdict.lost.push(format!("{named} is not among the dead letters")),
            _ => verdict.doubled.push(format!("{named} is {kept} dead letters")),
        }
    }
    if poisoned.len() != expected {
        verdict
            .wrong
            .push(format!("{expected} poison rows were sent, {} are kept", poisoned.len()));
    }
}

/// The first few, and how many there are.
pub(super) fn shortened(found: &[String]) -> String {
    let shown = found[..found.len().min(NAMED_MAX)].join("\n    ");
    if found.len() > NAMED_MAX {
        format!("{shown}\n    … and {} more", found.len() - NAMED_MAX)
    } else {
        shown
    }
}
