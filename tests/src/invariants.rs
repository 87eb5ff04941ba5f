//! What must hold after every test, whatever was killed, cut or refused meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use uuid::Uuid;

use crate::{
    expectation::same,
    rows::{StoredRow, TEXT_COLUMNS, dead_letters, stored_rows},
    search::Document,
    service::Service,
    stack::Database,
};

/// The books that a running service shows, against the tables themselves (P8).
///
/// # Panics
/// With the equation that does not hold.
pub async fn assert_books_balance(service: &Service, database: &Database) -> Value {
    assert_books_balance_after_purging(service, database, 0).await
}

/// The same where dead letters of so many events that could not be decoded or stored were deleted: the books keep them.
async fn assert_books_balance_after_purging(service: &Service, database: &Database, purged: i64) -> Value {
    let status = service.known_status().await;
    let books = &status["books"];
    let of = |name: &str| {
        books[name]
            .as_i64()
            .unwrap_or_else(|| panic!("no `{name}` in the books {books}"))
    };
    assert_eq!(
        of("received"),
        of("committed") + of("duplicates") + of("dead_lettered"),
        "received = committed + duplicates + dead-lettered: {books}"
    );
    assert_eq!(
        of("committed"),
        of("mirrored") + of("unmirrored"),
        "committed = mirrored + unmirrored: {books}"
    );
    assert_eq!(
        of("mirrored"),
        of("indexed") + of("index_dead_lettered") + of("expired") + of("outstanding"),
        "mirrored = indexed + dead-lettered for Elasticsearch + expired + outstanding: {books}"
    );
    let rows = database.number("select count(*) from public.application_logs").await;
    assert_eq!(of("committed"), rows, "committed = rows of application_logs: {books}");
    let kept = database
        .number("select coalesce(sum(events), 0)::bigint from log_writer.dead_letters where stage::text <> 'index'")
        .await;
    assert_eq!(
        of("dead_lettered"),
        kept + purged,
        "dead-lettered = events of rows of dead_letters that could not be decoded or stored: {books}"
    );
    let refused = database
        .number("select count(*) from log_writer.dead_letters where stage::text = 'index'")
        .await;
    assert_eq!(
        of("index_dead_lettered"),
        refused,
        "index dead letters = rows of dead_letters: {books}"
    );
    status
}

/// Every acknowledged event stands once in SQL, and once in Elasticsearch or among its dead letters.
///
/// With the same content; nothing else stands there; nothing is left to deliver. Returns the rows for further claims.
///
/// # Panics
/// With what is missing, doubled or different.
pub async fn assert_delivered_exactly_once(
    service: &Service,
    database: &Database,
    documents: &[Document],
    acknowledged: u64,
) -> Vec<StoredRow> {
    assert_delivered_exactly_once_after_purging(service, database, documents, acknowledged, 0).await
}

/// The same where dead letters of so many events that could not be decoded or stored were deleted.
///
/// # Panics
/// With what is missing, doubled or different.
pub async fn assert_delivered_exactly_once_after_purging(
    service: &Service,
    database: &Database,
    documents: &[Document],
    acknowledged: u64,
    purged: i64,
) -> Vec<StoredRow> {
    assert_books_balance_after_purging(service, database, purged).await;
    let outbox = database.number("select count(*) from log_writer.outbox").await;
    assert_eq!(outbox, 0, "the outbox is not empty");
    let rows = stored_rows(database.pool()).await;
    let refused: Vec<String> = dead_letters(database.pool())
        .await
        .into_iter()
        .filter(|letter| letter.stage == "index")
        .map(|letter| letter.whole)
        .collect();
    assert_eq!(
        rows.len() as u64,
        acknowledged,
        "rows in SQL against acknowledged events"
    );
    let keys: BTreeSet<(Uuid, i64)> = rows.iter().map(|row| (row.id, row.timestamp_us)).collect();
    assert_eq!(keys.len(), rows.len(), "a key stands twice in SQL");

    let mut by_id: BTreeMap<&str, &Document> = BTreeMap::new();
    for document in documents {
        if let Some(twin) = by_id.insert(&document.id, document) {
            panic!("{} stands twice: in {} and {}", document.id, twin.index, document.index);
        }
    }
    for row in &rows {
        let id = document_id(row.timestamp_us, row.id);
        match by_id.remove(id.as_str()) {
            Some(document) => assert_same(row, document),
            None => assert!(
                refused.iter().any(|letter| letter.contains(&row.id.to_string())),
                "{} ({id}) is in SQL, but neither in Elasticsearch nor among its dead letters",
                row.id
            ),
        }
    }
    assert!(by_id.is_empty(), "documents without a row: {:?}", by_id.keys());
    rows
}

/// Compares a row and its document, member by member.
///
/// # Panics
/// With the member that differs.
pub fn assert_same(row: &StoredRow, document: &Document) {
    let source = &document.source;
    let member = |path: &str| source.pointer(path).cloned().unwrap_or(Value::Null);
    for column in TEXT_COLUMNS {
        let path = if column == "host" {
            "/host/name".to_owned()
        } else {
            format!("/{column}")
        };
        assert_eq!(
            member(&path).as_str(),
            row.text(column),
            "{column} of {}: {source}",
            row.id
        );
    }
    assert_eq!(member("/event/id"), row.id.to_string(), "event.id of {source}");
    let tail = u64::from(u32::from_be_bytes(
        row.id.as_bytes()[12..].try_into().expect("four bytes"),
    ));
    assert_eq!(member("/event/id_tail"), tail, "event.id_tail of {source}");
    assert_eq!(member("/tenant"), row.tenant.as_str(), "tenant of {source}");
    let time = member("/@timestamp");
    let time = chrono::DateTime::parse_from_rfc3339(time.as_str().expect("@timestamp is text")).expect("RFC 3339");
    assert_eq!(time.timestamp_micros(), row.timestamp_us, "@timestamp of {source}");
    let tags: Vec<String> = serde_json::from_value(match member("/tags") {
        Value::Null => Value::Array(Vec::new()),
        tags => tags,
    })
    .expect("tags are texts");
    assert_eq!(tags, row.tags, "tags of {source}");
    for (name, stored) in [
        ("fields", &row.fields),
        ("error_details", &row.error_details),
        ("performance_metrics", &row.performance_metrics),
        ("ai_analysis", &row.ai_analysis),
    ] {
        let indexed = match member(&format!("/{name}")) {
            Value::Null => Value::Object(serde_json::Map::new()),
            mut value => {
                long_numbers_by_value(&mut value);
                value
            }
        };
        assert!(
            same(stored, &indexed),
            "{name} of {}: stored {stored}, indexed {indexed}",
            row.id
        );
    }
}

/// Numbers too long for Elasticsearch's parser are sent as text: `jsonb` writes out 1e308 with all its digits.
fn long_numbers_by_value(value: &mut Value) {
    match value {
        Value::Object(members) => members.values_mut().for_each(long_numbers_by_value),
        Value::Array(elements) => elements.iter_mut().for_each(long_numbers_by_value),
        Value::String(text) if text.len() > 200 => {
            if let Some(number) = text.parse().ok().and_then(serde_json::Number::from_f64) {
                *value = Value::Number(number);
            }
        }
        _ => {}
    }
}

/// `_id` of an event of the default tenant: base64url without padding of time (8 bytes, big-endian) and id.
#[must_use]
pub fn document_id(timestamp_us: i64, id: Uuid) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bytes = timestamp_us.to_be_bytes().to_vec();
    bytes.extend_from_slice(id.as_bytes());
    // 24 bytes are eight groups of three: no padding is ever needed.
    bytes
        .chunks_exact(3)
        .flat_map(|group| {
            let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
            [18, 12, 6, 0].map(|shift| char::from(ALPHABET[(bits >> shift & 63) as usize]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::{assert_same, document_id};
    use crate::{rows::StoredRow, search::Document};

    fn row() -> StoredRow {
        StoredRow {
            id: Uuid::from_u128(7),
            timestamp_us: 1_000_001,
            tenant: "t".to_owned(),
            texts: vec![("level", "INFO".to_owned()), ("host", "h".to_owned())],
            tags: vec!["a".to_owned()],
            fields: json!({ "n": { "list": [1, 2.0] } }),
            error_details: json!({}),
            performance_metrics: json!({ "ms": 1 }),
            ai_analysis: json!({}),
        }
    }

    fn source() -> Value {
        json!({ "@timestamp": "1970-01-01T00:00:01.000001Z", "tenant": "t", "level": "INFO", "host": { "name": "h" },
            "event": { "id": Uuid::from_u128(7), "id_tail": 7 }, "tags": ["a"],
            "fields": { "n": { "list": [1.0, 2] } }, "performance_metrics": { "ms": 1.0 } })
    }

    fn agree(source: Value) -> bool {
        let document = Document {
            id: String::new(),
            index: String::new(),
            source,
        };
        std::panic::catch_unwind(|| assert_same(&row(), &document)).is_ok()
    }

    #[test]
    fn a_document_agrees_with_its_row_only_if_every_member_does() {
        assert!(agree(source()));
        for (pointer, other) in [
            ("/@timestamp", json!("1970-01-01T00:00:01.000002Z")),
            ("/tenant", json!("u")),
            ("/level", json!("WARN")),
            ("/host/name", Value::Null),
            ("/event/id", json!(Uuid::nil())),
            ("/event/id_tail", json!(8)),
            ("/tags", json!(["a", "b"])),
            ("/fields/n/list", json!([1])),
            ("/fields/n/list/0", json!("1")),
            ("/performance_metrics", Value::Null),
        ] {
            let mut changed = source();
            *changed.pointer_mut(pointer).expect("a member") = other;
            assert!(!agree(changed), "{pointer}");
        }
    }

    #[test]
    fn a_document_id_is_url_safe_base64_of_time_and_id() {
        assert_eq!(document_id(0, Uuid::nil()), "A".repeat(32));
        assert_eq!(document_id(-1, Uuid::max()), "_".repeat(32));
    }
}
