//! The body of a `_bulk`: an action line and a document for each event.
//!
//! Promises: every line is one line of valid JSON and ends in a newline, so that no document can refuse or shift
//! another one's place.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    bulk_response::FILTER_PATH,
    document::DocumentWriter,
    document_id::DocumentId,
    json,
    lookup::{StoredCopy, Version},
};
use crate::{config::Naming, event::StoredEvent};

/// Documents to be created, or to go over copies that are there, as lines.
#[derive(Debug, Clone)]
pub struct BulkBody {
    path: Arc<str>,
    creates: bool,
    lines: Arc<Vec<u8>>,
    /// Where each document's lines end.
    ends: Vec<usize>,
}

/// Lets [`Bytes`] share the lines.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl BulkBody {
    /// An empty body. For data streams Elasticsearch is told to make nothing else: a missing template would give a
    /// plain index in silence.
    pub fn new(naming: Naming) -> Self {
        let path = match naming {
            Naming::DataStream => format!("_bulk?require_data_stream=true&filter_path={FILTER_PATH}"),
            Naming::Monthly => format!("_bulk?filter_path={FILTER_PATH}"),
        };
        Self {
            path: Arc::from(path),
            creates: true,
            lines: Arc::default(),
            ends: Vec::new(),
        }
    }

    /// An empty body for documents that go over copies.
    pub fn over_copies() -> Self {
        Self {
            path: Arc::from(format!("_bulk?filter_path={FILTER_PATH}")),
            creates: false,
            lines: Arc::default(),
            ends: Vec::new(),
        }
    }

    /// Adds an event's document, to go over its copy, unless that changed since it was located: then the verdict is
    /// [`super::Verdict::Retry`] with status 409, and the copy has to be located again. For [`Self::over_copies`] only.
    pub fn push_over(&mut self, copy: &StoredCopy, id: &DocumentId, event: &StoredEvent, documents: &DocumentWriter) {
        let lines = Arc::make_mut(&mut self.lines);
        push_action(lines, "index", &copy.index, id);
        let Version { seq_no, primary_term } = copy.version;
        lines.extend_from_slice(format!(",\"if_seq_no\":{seq_no},\"if_primary_term\":{primary_term}}}}}\n").as_bytes());
        documents.write(event, lines);
        lines.push(b'\n');
        self.ends.push(lines.len());
    }

    /// Adds an event's document, to be created in `target` under `id`. For [`Self::new`] only.
    pub fn push(&mut self, target: &str, id: &DocumentId, event: &StoredEvent, documents: &DocumentWriter) {
        let lines = Arc::make_mut(&mut self.lines);
        push_action(lines, "create", target, id);
        lines.extend_from_slice(b"}}\n");
        documents.write(event, lines);
        lines.push(b'\n');
        self.ends.push(lines.len());
    }

    /// Empties it and makes room for so many bytes, in memory of an earlier one if that is enough: growing bit by bit copies
    /// all of it again and again.
    pub fn make_room(&mut self, bytes: usize, mut memory: Vec<u8>) {
        memory.clear();
        if memory.capacity() < bytes {
            // Not grown: that would give twice as much, and copy what nobody needs.
            drop(memory);
            memory = Vec::with_capacity(bytes);
        }
        self.lines = Arc::new(memory);
        self.ends.clear();
    }

    /// Its memory, for [`Self::make_room`] of another. None if it is more than so many bytes, or if the connection still holds
    /// the lines, as it may after an answer that came before all of them were read.
    pub fn into_memory(self, bytes_max: usize) -> Vec<u8> {
        let memory = Arc::try_unwrap(self.lines).unwrap_or_default();
        if memory.capacity() <= bytes_max {
            memory
        } else {
            Vec::new()
        }
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes, before compression.
    pub fn bytes(&self) -> usize {
        self.lines.len()
    }

    /// Leaves the documents beyond so many out.
    pub fn truncate(&mut self, documents: usize) {
        self.ends.truncate(documents);
        Arc::make_mut(&mut self.lines).truncate(self.ends.last().copied().unwrap_or_default());
    }

    /// Whether a 409 says that the document is there, and not that its copy changed.
    pub fn creates(&self) -> bool {
        self.creates
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The lines, shared.
    pub(super) fn lines(&self) -> Bytes {
        Bytes::from_owner(Shared(Arc::clone(&self.lines)))
    }
}

/// Writes `{"<action>":{"_index":…,"_id":…`, still open.
pub(super) fn push_action(out: &mut Vec<u8>, action: &str, index: &str, id: &DocumentId) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(action.as_bytes());
    out.extend_from_slice(b"\":{\"_index\":");
    json::push_string(out, index);
    out.extend_from_slice(b",\"_id\":");
    json::push_string(out, id.as_str());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc as Shared;

    use proptest::prelude::*;
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::{
        super::{document_id::document_id, test_settings::settings},
        *,
    };
    use crate::event::{StoredTexts, TextColumns, Timestamp};

    fn body(naming: Naming, messages: &[String]) -> BulkBody {
        let documents = DocumentWriter::new(&settings()).unwrap();
        let mut body = BulkBody::new(naming);
        for (number, message) in messages.iter().enumerate() {
            let event = StoredEvent {
                id: Uuid::from_u128(u128::try_from(number).unwrap()),
                timestamp: Timestamp(1_795_219_200_000_000),
                ingested_at: Timestamp(1_795_219_200_000_000),
                batch_id: 1,
                tenant: Shared::from("default"),
                texts: StoredTexts::from(TextColumns {
                    level: "INFO",
                    service: "checkout",
                    message,
                    ..TextColumns::default()
                }),
            };
            let id = document_id(event.id, event.timestamp, "default", "default");
            body.push("logs-app-default", &id, &event, &documents);
        }
        body
    }

    #[test]
    fn a_stream_is_required_where_targets_are_streams() {
        assert!(
            BulkBody::new(Naming::DataStream)
                .path()
                .contains("require_data_stream=true")
        );
        assert!(!BulkBody::new(Naming::Monthly).path().contains("require_data_stream"));
    }

    #[test]
    fn memory_of_a_body_is_used_again_and_nothing_that_was_in_it() {
        let first = body(Naming::DataStream, &["one".to_owned()]);
        let (memory, bytes) = (first.lines().as_ptr(), first.bytes());
        let mut second = BulkBody::new(Naming::DataStream);
        second.make_room(bytes, first.into_memory(usize::MAX));
        assert_eq!((second.bytes(), second.lines().as_ptr()), (0, memory));
        let held = second.lines();
        let memory = second.into_memory(usize::MAX);
        assert_eq!(memory.capacity(), 0, "the connection may still read {held:?}");
    }

    #[test]
    fn memory_is_neither_grown_nor_kept_beyond_what_is_wanted() {
        let mut body = BulkBody::new(Naming::DataStream);
        body.make_room(1_000, Vec::with_capacity(999));
        assert_eq!(
            body.clone().into_memory(1_000).capacity(),
            0,
            "the other one still has it"
        );
        assert_eq!(body.into_memory(1_000).capacity(), 1_000);
        let mut body = BulkBody::new(Naming::DataStream);
        body.make_room(1_001, Vec::new());
        assert_eq!(body.into_memory(1_000).capacity(), 0);
    }

    proptest! {
        #[test]
        fn every_document_is_two_lines_of_json(messages in prop::collection::vec(any::<String>(), 0..8)) {
            let body = body(Naming::DataStream, &messages);
            let lines = String::from_utf8(body.lines().to_vec()).unwrap();
            prop_assert_eq!((body.len(), body.bytes()), (messages.len(), lines.len()));
            prop_assert_eq!(lines.matches('\n').count(), 2 * messages.len());
            let mut lines = lines.split_terminator('\n').map(|line| serde_json::from_str::<Value>(line).unwrap());
            for message in &messages {
                let action = lines.next().unwrap();
                prop_assert_eq!(&action["create"]["_index"], &json!("logs-app-default"));
                prop_assert_eq!(action["create"]["_id"].as_str().unwrap().len(), 32);
                prop_assert_eq!(&lines.next().unwrap()["message"], &json!(message));
            }
        }

        #[test]
        fn what_is_left_out_is_the_end(messages in prop::collection::vec("[a-z]{0,9}", 0..8), at in 0_usize..10) {
            let whole = body(Naming::DataStream, &messages);
            let mut first = whole.clone();
            first.truncate(at);
            let kept = body(Naming::DataStream, messages.get(..at).unwrap_or(&messages));
            prop_assert_eq!((first.len(), first.lines()), (kept.len(), kept.lines()));
            prop_assert_eq!(whole.len(), messages.len(), "a clone is left alone");
        }
    }
}
