//! Rows of `application_logs` out of a binary COPY: the counterpart of [`super::copy`].

use std::sync::Arc;

use uuid::Uuid;

use super::copy::{COLUMN_COUNT, COPY_HEADER, array_elements, from_postgres_micros, jsonb_text, take_field};
use crate::event::{StoredEvent, StoredTexts, Timestamp};

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
            texts: texts(rest)?,
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

/// In the order of the fields.
fn texts(rest: &mut &[u8]) -> Option<StoredTexts> {
    let [level, service, host, message] = [(); 4].map(|()| take_field(rest));
    let [correlation_id, user_id, trace_id, span_id] = [(); 4].map(|()| take_field(rest));
    let tags = tags(take_field(rest).unwrap_or_default())?;
    let [fields, error_details, performance_metrics, ai_analysis] = [(); 4].map(|()| take_field(rest).map(jsonb_text));
    let columns = [
        level,
        service,
        host,
        message,
        correlation_id,
        user_id,
        trace_id,
        span_id,
        fields,
        error_details,
        performance_metrics,
        ai_analysis,
    ];
    StoredTexts::read(columns, &tags)
}

fn tags(field: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = array_elements(field);
    let mut tags = Vec::new();
    while !rest.is_empty() {
        tags.push(take_field(&mut rest)?);
    }
    Some(tags)
}

#[cfg(test)]
mod tests {
    use super::{
        super::copy::{COPY_HEADER, COPY_TRAILER, put_field},
        *,
    };

    /// A row with these fields, null where there is none.
    fn stream(fields: &[Option<&[u8]>]) -> Vec<u8> {
        let mut stream = COPY_HEADER.to_vec();
        stream.extend_from_slice(&i16::try_from(fields.len()).unwrap().to_be_bytes());
        for field in fields {
            match field {
                Some(field) => put_field(&mut stream, field),
                None => stream.extend_from_slice(&(-1_i32).to_be_bytes()),
            }
        }
        stream.extend_from_slice(COPY_TRAILER);
        stream
    }

    #[test]
    fn a_row_that_cannot_be_one_of_ours_is_refused_and_not_read_as_another() {
        // One dimension, no nulls, text, one element, from 1.
        let numbers = [1, 0, 25, 1, 1].map(i32::to_be_bytes).concat();
        let tags = [&*numbers, &1_i32.to_be_bytes(), b"a"].concat();
        let (id, number) = ([7; 16], 1_i64.to_be_bytes());
        let mut row: Vec<Option<&[u8]>> = vec![Some(&id), Some(&number), Some(&number), Some(&number)];
        row.extend([
            Some(&b"tenant"[..]),
            Some(b"INFO"),
            Some(b"service"),
            None,
            Some(b"message"),
        ]);
        row.extend([
            None,
            None,
            None,
            None,
            Some(&*tags),
            Some(b"\x01{}"),
            None,
            None,
            None,
            None,
        ]);
        let read = read_stream(&stream(&row)).unwrap();
        let texts = read[0].texts.columns();
        assert_eq!((texts.message, texts.fields), ("message", Some("{}")));
        assert_eq!((texts.host, texts.tags), (None, vec!["a"]));

        let null_element = [&*numbers, &(-1_i32).to_be_bytes()].concat();
        let cut = &tags[..tags.len() - 1];
        for (place, field) in [
            (0, None),
            (4, None),
            (5, None),
            (6, None),
            (8, None),
            (8, Some(&b"\xff"[..])),
            (9, Some(b"\xc3")),
            (13, Some(cut)),
            (13, Some(&null_element)),
            (14, Some(b"\x01\xff")),
        ] {
            let mut broken = row.clone();
            broken[place] = field;
            assert_eq!(read_stream(&stream(&broken)), None, "{place} {field:?}");
        }
        assert_eq!(read_stream(&stream(&row[..18])), None, "a column too few");
    }
}
