//! Rows of `application_logs` in PostgreSQL's binary COPY format, encoded straight into one buffer.
//!
//! Encoding happens in the request's own task, before a batch or its ids are known: the first four columns have fixed
//! offsets and are patched in later. Format: PostgreSQL 17 documentation, "COPY", section "Binary Format".

use std::{ops::Range, sync::Arc};

use uuid::Uuid;

use crate::event::{LogEvent, Timestamp, pattern_of};

/// Columns in the order they are encoded, as a list for SQL.
pub(super) const COLUMNS: &str = "id, \"timestamp\", ingested_at, batch_id, tenant, level, service, host, message, \
     correlation_id, user_id, trace_id, span_id, tags, fields, error_details, performance_metrics, ai_analysis, pattern";
/// How many columns [`COLUMNS`] names.
pub(super) const COLUMN_COUNT: i16 = 19;

/// What a binary COPY stream begins with: signature, no flags, no header extension.
pub(super) const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What a binary COPY stream ends with: a field count of -1.
pub(super) const COPY_TRAILER: &[u8] = &[0xff, 0xff];

/// 2000-01-01T00:00:00Z, PostgreSQL's zero, in microseconds since 1970.
pub(super) const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

// Offsets from the start of a row: 2 bytes of field count, then each field behind its 4 bytes of length.
const ID_AT: usize = 6;
const BATCH_ID_AT: usize = 50;

const JSONB_VERSION: u8 = 1;
const TEXT_OID: i32 = 25;

/// What is known of a row beside its bytes.
#[derive(Debug, Clone)]
pub(super) struct RowNote {
    start: usize,
    /// Of the event among all of its request, unusable ones included.
    pub(super) position: u32,
    /// Column `timestamp`.
    pub(super) timestamp: Timestamp,
    /// Column `tenant`.
    pub(super) tenant: Arc<str>,
    /// Stream or index in Elasticsearch; none: nowhere.
    pub(super) target: Option<Arc<str>>,
    /// The id to use if the event's own one is taken by another event.
    pub(super) derived: Uuid,
}

/// Encoded rows of one request.
#[derive(Debug, Clone, Default)]
pub struct EncodedRows {
    buffer: Vec<u8>,
    notes: Vec<RowNote>,
    /// Earliest and latest time.
    span: Option<(Timestamp, Timestamp)>,
}

impl EncodedRows {
    /// No rows yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// No rows yet, room for some.
    pub fn with_capacity(bytes: usize, rows: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
            notes: Vec::with_capacity(rows),
            span: None,
        }
    }

    /// Appends one row; its id is nil until [`Self::set_ids`], its batch is set at commit.
    ///
    /// `target` is the stream or index in Elasticsearch, `None` if the event goes nowhere. Returns the event's pattern.
    pub fn push(&mut self, event: &LogEvent<'_>, ingested_at: Timestamp, target: Option<&Arc<str>>) -> Option<i64> {
        let pattern = pattern_of(event.level, &event.message);
        self.push_with(event, ingested_at, target, pattern);
        pattern
    }

    /// The same with the pattern that the event had before.
    pub fn push_with(
        &mut self,
        event: &LogEvent<'_>,
        ingested_at: Timestamp,
        target: Option<&Arc<str>>,
        pattern: Option<i64>,
    ) {
        self.notes.push(RowNote {
            start: self.buffer.len(),
            position: u32::try_from(self.notes.len()).unwrap_or(u32::MAX),
            timestamp: event.timestamp,
            tenant: Arc::clone(&event.tenant),
            target: target.map(Arc::clone),
            derived: Uuid::nil(),
        });
        let (oldest, newest) = self.span.unwrap_or((event.timestamp, event.timestamp));
        self.span = Some((oldest.min(event.timestamp), newest.max(event.timestamp)));

        let out = &mut self.buffer;
        out.extend_from_slice(&COLUMN_COUNT.to_be_bytes());
        put_field(out, Uuid::nil().as_bytes());
        put_field(out, &postgres_micros(event.timestamp).to_be_bytes());
        put_field(out, &postgres_micros(ingested_at).to_be_bytes());
        put_field(out, &0_i64.to_be_bytes());
        put_field(out, event.tenant.as_bytes());
        put_field(out, event.level.as_str().as_bytes());
        put_field(out, event.service.as_bytes());
        put_text(out, event.host.as_deref());
        put_field(out, event.message.as_bytes());
        put_text(out, event.correlation_id.as_deref());
        put_text(out, event.user_id.as_deref());
        put_text(out, event.trace_id.as_deref());
        put_text(out, event.span_id.as_deref());
        put_text_array(out, event.tags.iter().map(|tag| tag.as_bytes()));
        put_jsonb(out, Some(&*event.fields).filter(|fields| !fields.is_empty()));
        put_jsonb(out, event.error_details.as_deref());
        put_jsonb(out, event.performance_metrics.as_deref());
        put_jsonb(out, event.ai_analysis.as_deref());
        match pattern {
            Some(pattern) => put_field(out, &pattern.to_be_bytes()),
            None => put_null(out),
        }
    }

    /// Sets where a row's event stood in its request; without it, its number among the rows.
    pub fn set_position(&mut self, row: usize, position: u32) {
        if let Some(note) = self.notes.get_mut(row) {
            note.position = position;
        }
    }

    /// Sets the id of a row (from 0), and the one to use if that is taken by another event.
    pub fn set_ids(&mut self, row: usize, id: Uuid, derived: Uuid) {
        let Some(note) = self.notes.get_mut(row) else { return };
        note.derived = derived;
        let at = note.start + ID_AT;
        self.patch(at, id.as_bytes());
    }

    /// What tells the event of a row from all others, if it has an id of its own.
    pub(super) fn own_key(&self, row: usize) -> Option<(Uuid, Timestamp, &str)> {
        let (note, id) = (self.notes.get(row)?, self.id(row));
        (id != note.derived).then_some((id, note.timestamp, &note.tenant))
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.notes.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    /// Encoded length in bytes.
    pub fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Takes room for one more row if there is none: half as much again, asked for with what is held, from which it is
    /// copied. Without it [`Self::push`] grows by itself.
    ///
    /// # Errors
    /// The refusal.
    pub fn make_room<E>(&mut self, event: &LogEvent<'_>, ask: impl FnOnce(usize) -> Result<(), E>) -> Result<(), E> {
        let bytes = enlarged(self.buffer.capacity(), self.buffer.len() + row_bytes_max(event));
        let rows = enlarged(self.notes.capacity(), self.notes.len() + 1);
        if bytes.is_none() && rows.is_none() {
            return Ok(());
        }
        // Only what grows is held twice, while it is copied.
        ask(self.held_bytes() + Self::bytes_with(bytes.unwrap_or(0), rows.unwrap_or(0)))?;
        if let Some(bytes) = bytes {
            self.buffer.reserve_exact(bytes - self.buffer.len());
        }
        if let Some(rows) = rows {
            self.notes.reserve_exact(rows - self.notes.len());
        }
        Ok(())
    }

    /// Gives back what was reserved in vain, if it is much: a buffer that shrinks is mapped anew.
    pub fn give_back(&mut self) {
        if self.buffer.capacity() - self.buffer.len() > self.buffer.len() / 2 {
            self.buffer.shrink_to_fit();
        }
        if self.notes.capacity() - self.notes.len() > self.notes.len() / 2 {
            self.notes.shrink_to_fit();
        }
    }

    /// Memory that [`Self::with_capacity`] takes, in bytes.
    pub fn bytes_with(bytes: usize, rows: usize) -> usize {
        bytes + rows * size_of::<RowNote>()
    }

    /// Memory that it holds, in bytes: what is encoded, what is reserved for more, and what is known of each row.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity() + self.notes.capacity() * size_of::<RowNote>()
    }

    /// The earliest and the latest time among the rows.
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        self.span
    }

    /// Writes the batch into every row.
    pub(super) fn set_batch(&mut self, batch_id: i64) {
        for row in 0..self.notes.len() {
            let Some(start) = self.notes.get(row).map(|note| note.start) else {
                return;
            };
            self.patch(start + BATCH_ID_AT, &batch_id.to_be_bytes());
        }
    }

    /// What is known of a row beside its bytes.
    pub(super) fn note(&self, row: usize) -> Option<&RowNote> {
        self.notes.get(row)
    }

    /// A row's bytes, field count first; empty for a row that is not there.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        self.rows(row..row + 1)
    }

    /// The bytes of some rows, one after the other.
    pub(super) fn rows(&self, range: Range<usize>) -> &[u8] {
        let start_of = |row: usize| self.notes.get(row).map_or(self.buffer.len(), |note| note.start);
        self.buffer
            .get(start_of(range.start)..start_of(range.end))
            .unwrap_or_default()
    }

    /// A row's id.
    pub(super) fn id(&self, row: usize) -> Uuid {
        let bytes = self
            .row(row)
            .get(ID_AT..ID_AT + 16)
            .and_then(|bytes| bytes.try_into().ok());
        Uuid::from_bytes(bytes.unwrap_or_default())
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.buffer.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// The capacity to grow to, at least by half; none if there is enough.
fn enlarged(capacity: usize, needed: usize) -> Option<usize> {
    (needed > capacity).then(|| needed.max(capacity / 2 * 3))
}

/// What the row of an event takes at most.
fn row_bytes_max(event: &LogEvent<'_>) -> usize {
    /// Lengths of all fields, numbers, and what stands before an array and JSON.
    const FIXED_BYTES: usize = 2 + 19 * 4 + 16 + 4 * 8 + 20 + 4;
    let optional = |text: Option<&str>| text.map_or(0, str::len);
    let texts = [
        event.host.as_deref(),
        event.correlation_id.as_deref(),
        event.user_id.as_deref(),
        event.trace_id.as_deref(),
        event.span_id.as_deref(),
        event.error_details.as_deref(),
        event.performance_metrics.as_deref(),
        event.ai_analysis.as_deref(),
    ];
    FIXED_BYTES
        + event.tenant.len()
        + event.level.as_str().len()
        + event.service.len()
        + event.message.len()
        + event.fields.len()
        + texts.into_iter().map(optional).sum::<usize>()
        + event.tags.iter().map(|tag| tag.len() + 4).sum::<usize>()
}

/// Microseconds since 2000; times before PostgreSQL's range become its first.
pub(super) fn postgres_micros(time: Timestamp) -> i64 {
    time.0.saturating_sub(POSTGRES_EPOCH_MICROS)
}

/// Microseconds since 1970 from PostgreSQL's.
pub(super) fn from_postgres_micros(micros: i64) -> Timestamp {
    Timestamp(micros.saturating_add(POSTGRES_EPOCH_MICROS))
}

/// Appends one field that is not null.
pub(super) fn put_field(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Takes the next field off; none if it is null or nothing is left.
pub(super) fn take_field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    *rest = after;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    let (field, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(field)
}

fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => put_field(out, text.as_bytes()),
        None => put_null(out),
    }
}

fn put_jsonb(out: &mut Vec<u8>, json: Option<&str>) {
    match json {
        Some(json) => {
            put_length(out, json.len() + 1);
            out.push(JSONB_VERSION);
            out.extend_from_slice(json.as_bytes());
        }
        None => put_null(out),
    }
}

/// The text of a field that [`put_jsonb`] wrote, or PostgreSQL.
pub(super) fn jsonb_text(field: &[u8]) -> &[u8] {
    field.get(1..).unwrap_or_default()
}

/// The elements, for [`take_field`], of a field that [`put_text_array`] wrote, or PostgreSQL: they come after dimensions,
/// null flag, element type, length and lower bound. An empty array of PostgreSQL's ends after the third of these.
pub(super) fn array_elements(field: &[u8]) -> &[u8] {
    field.get(20..).unwrap_or_default()
}

/// One dimension, lower bound 1, no nulls; an empty list is null.
fn put_text_array<'a>(out: &mut Vec<u8>, elements: impl ExactSizeIterator<Item = &'a [u8]>) {
    if elements.len() == 0 {
        return put_null(out);
    }
    let length_at = out.len();
    put_length(out, 0);
    for number in [1, 0, TEXT_OID] {
        out.extend_from_slice(&i32::to_be_bytes(number));
    }
    put_length(out, elements.len());
    out.extend_from_slice(&1_i32.to_be_bytes());
    for element in elements {
        put_field(out, element);
    }
    let length = length_bytes(out.len() - length_at - 4);
    if let Some(place) = out.get_mut(length_at..length_at + 4) {
        place.copy_from_slice(&length);
    }
}

fn put_null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1_i32).to_be_bytes());
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&length_bytes(length));
}

/// PostgreSQL refuses fields of a gigabyte; what would not fit the number is refused the same way.
fn length_bytes(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Level, timescale::copy_text::row_as_json};

    fn event() -> LogEvent<'static> {
        LogEvent {
            own_id: None,
            claimed_time: None,
            timestamp: Timestamp(POSTGRES_EPOCH_MICROS + 0x0102),
            tenant: Arc::from("t"),
            level: Level::Warn,
            service: "s".into(),
            host: None,
            message: "é".into(),
            correlation_id: None,
            user_id: None,
            trace_id: None,
            span_id: None,
            tags: vec!["a".into(), "".into()],
            fields: "{}".into(),
            error_details: None,
            performance_metrics: None,
            ai_analysis: None,
        }
    }

    fn null() -> Vec<u8> {
        vec![0xff; 4]
    }

    #[test]
    fn a_row_is_what_the_documentation_says() {
        let mut rows = EncodedRows::new();
        rows.push(&event(), Timestamp(POSTGRES_EPOCH_MICROS - 1), None);
        rows.set_ids(0, Uuid::from_bytes([7; 16]), Uuid::nil());
        rows.set_batch(0x0a0b);
        let field = |bytes: &[u8]| [&u32::to_be_bytes(bytes.len().try_into().expect("short")), bytes].concat();
        let tags = [
            &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 25, 0, 0, 0, 2, 0, 0, 0, 1],
            field(b"a").as_slice(),
            field(b"").as_slice(),
        ]
        .concat();
        let expected = [
            vec![0, 19],
            field(&[7; 16]),
            field(&[0, 0, 0, 0, 0, 0, 1, 2]),
            field(&[0xff; 8]),
            field(&[0, 0, 0, 0, 0, 0, 0x0a, 0x0b]),
            field(b"t"),
            field(b"WARN"),
            field(b"s"),
            null(),
            field("é".as_bytes()),
            null(),
            null(),
            null(),
            null(),
            field(&tags),
            field(b"\x01{}"),
            null(),
            null(),
            null(),
            field(&pattern_of(Level::Warn, "é").expect("a warning").to_be_bytes()),
        ]
        .concat();
        assert_eq!(rows.row(0), expected);
    }

    #[test]
    fn no_tags_and_no_fields_are_null() {
        let mut rows = EncodedRows::new();
        rows.push(
            &LogEvent {
                level: Level::Info,
                tags: Vec::new(),
                fields: "".into(),
                ..event()
            },
            Timestamp(0),
            None,
        );
        assert!(rows.row(0).ends_with(&[0xff; 4 * 6]));
    }

    #[test]
    fn ids_and_batches_reach_their_own_row() {
        let mut rows = EncodedRows::new();
        for _ in 0..3 {
            rows.push(&event(), Timestamp(0), None);
        }
        rows.set_ids(1, Uuid::from_u128(1), Uuid::from_u128(2));
        rows.set_ids(9, Uuid::from_u128(9), Uuid::from_u128(9));
        assert_eq!([rows.id(0), rows.id(1), rows.id(2)], [0, 1, 0].map(Uuid::from_u128));
        assert_eq!(rows.note(1).map(|note| note.derived), Some(Uuid::from_u128(2)));
        rows.set_batch(5);
        rows.set_batch(6);
        assert!((0..3).all(|row| rows.row(row)[BATCH_ID_AT..].starts_with(&6_i64.to_be_bytes())));
    }

    #[test]
    fn rows_grow_only_by_what_was_asked_for() {
        let (mut rows, event) = (EncodedRows::new(), event());
        let capacities = |rows: &EncodedRows| [rows.buffer.capacity(), rows.notes.capacity() * size_of::<RowNote>()];
        let mut growths = 0;
        for _ in 0..1_000 {
            let (before, mut asked) = (capacities(&rows), None);
            let room = rows.make_room(&event, |bytes| {
                asked = Some(bytes);
                Ok::<(), ()>(())
            });
            room.unwrap();
            let after = capacities(&rows);
            let grown = after.iter().zip(before).filter(|(after, before)| *after != before);
            // What grows is held twice while it is copied.
            let needed: usize = before.iter().sum::<usize>() + grown.map(|(after, _)| after).sum::<usize>();
            assert_eq!(asked, (before != after).then_some(needed));
            growths += usize::from(before != after);
            rows.push(&event, Timestamp(0), None);
            assert_eq!(capacities(&rows), after, "it grew by itself");
        }
        assert!((2..40).contains(&growths), "{growths}");
    }

    #[test]
    fn a_row_can_be_shown_as_json() {
        let mut rows = EncodedRows::new();
        rows.push(
            &LogEvent {
                fields: "{broken".into(),
                ..event()
            },
            Timestamp(0),
            None,
        );
        let shown: serde_json::Value = serde_json::from_str(&row_as_json(&rows, 0)).expect("JSON");
        let expected = serde_json::json!({
            "id": Uuid::nil(), "timestamp": "2000-01-01T00:00:00.000258Z", "ingested_at": "1970-01-01T00:00:00.000000Z",
            "tenant": "t", "level": "WARN", "service": "s", "message": "é", "tags": ["a", ""], "fields": "{broken"
        });
        assert_eq!(shown, expected);
    }
}
