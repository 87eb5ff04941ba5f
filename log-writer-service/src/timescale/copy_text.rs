//! An encoded row as JSON text: what a dead letter of the stage `store` keeps, so that it can be sent again.

use serde_json::{Map, Value};

use super::copy::{COLUMNS, EncodedRows, array_elements, from_postgres_micros, jsonb_text, take_field};

/// The row's columns that are not null, by name, times as RFC 3339; JSON columns as JSON where they parse.
pub(super) fn row_as_json(rows: &EncodedRows, row: usize) -> String {
    let mut rest = rows.row(row).get(2..).unwrap_or_default();
    let mut columns = Map::new();
    for name in COLUMNS.split(", ").map(|name| name.trim_matches('"')) {
        let Some(field) = take_field(&mut rest) else { continue };
        let value = match name {
            "id" => Value::from(rows.id(row).to_string()),
            "timestamp" | "ingested_at" => time_value(field),
            // Set or computed again when it is redriven.
            "batch_id" | "pattern" => continue,
            "tags" => tags_value(field),
            "fields" | "error_details" | "performance_metrics" | "ai_analysis" => json_value(field),
            _ => text_value(field),
        };
        columns.insert(name.to_owned(), value);
    }
    Value::Object(columns).to_string()
}

fn text_value(bytes: &[u8]) -> Value {
    Value::from(String::from_utf8_lossy(bytes))
}

fn time_value(bytes: &[u8]) -> Value {
    let micros = bytes.try_into().map(i64::from_be_bytes).unwrap_or_default();
    Value::from(from_postgres_micros(micros).to_rfc3339())
}

fn tags_value(bytes: &[u8]) -> Value {
    let mut tags = Vec::new();
    let mut rest = array_elements(bytes);
    while let Some(tag) = take_field(&mut rest) {
        tags.push(text_value(tag));
    }
    Value::from(tags)
}

fn json_value(bytes: &[u8]) -> Value {
    let text = jsonb_text(bytes);
    // What PostgreSQL refused for its depth, our parser refuses too: it is kept as text.
    serde_json::from_slice(text).unwrap_or_else(|_| text_value(text))
}
