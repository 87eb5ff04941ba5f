//! Rows of `application_logs` out of a binary COPY: the counterpart of [`super::copy`].

use std::sync::Arc;

use uuid::Uuid;

use super::copy::{COLUMN_COUNT, COPY_HEADER, from_postgres_micros, take_field};
use crate::event::{StoredEvent, Timestamp};

/// Decodes what a COPY sends, message by message.
#[derive(Default)]
pub(super) struct CopyReader {
    begun: bool,
    tenants: Tenants,
}

/// Tenants seen so far: thousands of events share one allocation.
#[derive(Default)]
pub(super) struct Tenants(Vec<Arc<str>>);

impl Tenants {
    pub(super) fn shared(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.iter().find(|known| &***known == name) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(name);
        self.0.push(Arc::clone(&new));
        new
    }
}

impl CopyReader {
    /// Hands on the rows of one message, each with its pattern; PostgreSQL never splits a row over two. `None`: it is no row
    /// of ours.
    pub(super) fn read(&mut self, mut message: &[u8], mut visit: impl FnMut(StoredEvent, Option<i64>)) -> Option<()> {
        if !self.begun {
            message = message.get(COPY_HEADER.len()..)?;
            self.begun = true;
        }
        while let Some((count, after)) = message.split_first_chunk::<2>() {
            message = after;
            match i16::from_be_bytes(*count) {
                -1 => return Some(()),
                COLUMN_COUNT => {
                    let (event, pattern) = self.row(&mut message)?;
                    visit(event, pattern);
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn row(&mut self, rest: &mut &[u8]) -> Option<(StoredEvent, Option<i64>)> {
        let event = StoredEvent {
            id: Uuid::from_slice(take_field(rest)?).ok()?,
            timestamp: time(take_field(rest))?,
            ingested_at: time(take_field(rest))?,
            batch_id: number(take_field(rest))?,
            tenant: self.tenants.shared(str::from_utf8(take_field(rest)?).ok()?),
            level: text(take_field(rest)?)?,
            service: text(take_field(rest)?)?,
            host: optional(take_field(rest))?,
            message: text(take_field(rest)?)?,
            correlation_id: optional(take_field(rest))?,
            user_id: optional(take_field(rest))?,
            trace_id: optional(take_field(rest))?,
            span_id: optional(take_field(rest))?,
            tags: tags(take_field(rest).unwrap_or_default())?,
            fields: json(take_field(rest))?,
            error_details: json(take_field(rest))?,
            performance_metrics: json(take_field(rest))?,
            ai_analysis: json(take_field(rest))?,
        };
        // Apart: a document has none.
        let pattern = number(take_field(rest));
        Some((event, pattern))
    }
}

/// Encoded rows as a COPY sends them.
#[cfg(any(test, feature = "targets"))]
pub(crate) fn copy_stream(rows: &super::EncodedRows) -> Vec<u8> {
    let encoded: Vec<u8> = (0..rows.len()).flat_map(|row| rows.row(row)).copied().collect();
    [COPY_HEADER, &encoded, super::copy::COPY_TRAILER].concat()
}

/// The rows of a whole COPY.
#[cfg(any(test, feature = "targets"))]
pub(crate) fn read_stream(stream: &[u8]) -> Option<Vec<StoredEvent>> {
    let mut events = Vec::new();
    CopyReader::default().read(stream, |event, _| events.push(event))?;
    Some(events)
}

fn number(field: Option<&[u8]>) -> Option<i64> {
    Some(i64::from_be_bytes(field?.try_into().ok()?))
}

fn time(field: Option<&[u8]>) -> Option<Timestamp> {
    number(field).map(from_postgres_micros)
}

fn text(field: &[u8]) -> Option<String> {
    str::from_utf8(field).ok().map(str::to_owned)
}

/// The outer option is whether it could be read, the inner one whether it is not null.
#[expect(clippy::option_option, reason = "a null field and a broken one are two things")]
fn optional(field: Option<&[u8]>) -> Option<Option<String>> {
    field.map_or(Some(None), |field| text(field).map(Some))
}

/// `jsonb` is sent as a version byte and text.
#[expect(clippy::option_option, reason = "a null field and a broken one are two things")]
fn json(field: Option<&[u8]>) -> Option<Option<String>> {
    optional(field.map(|field| field.get(1..).unwrap_or_default()))
}

/// Dimensions, null flag, element type, length, lower bound, then the elements; an empty array ends after the third.
fn tags(array: &[u8]) -> Option<Vec<String>> {
    let mut rest = array.get(20..).unwrap_or_default();
    let mut tags = Vec::new();
    while !rest.is_empty() {
        tags.push(text(take_field(&mut rest)?)?);
    }
    Some(tags)
}
