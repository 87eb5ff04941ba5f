//! The body of a `_bulk`: an action line and a document for each event.
//!
//! Promises: every line is one line of valid JSON and ends in a newline, so that no document can refuse or shift
//! another one's place; documents can be sent again in parts without being made again.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use super::{bulk_response::FILTER_PATH, document::DocumentWriter, document_id::DocumentId, json};
use crate::{config::Naming, event::StoredEvent};

/// Documents to be created, as lines.
#[derive(Debug, Clone)]
pub struct BulkBody {
    path: Arc<str>,
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
            lines: Arc::default(),
            ends: Vec::new(),
        }
    }

    /// Adds an event's document, to be created in `target` under `id`.
    pub fn push(&mut self, target: &str, id: &DocumentId, event: &StoredEvent, documents: &DocumentWriter) {
        let lines = Arc::make_mut(&mut self.lines);
        push_action(lines, "create", target, id);
        lines.extend_from_slice(b"}}\n");
        documents.write(event, lines);
        lines.push(b'\n');
        self.ends.push(lines.len());
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

    /// Some of the documents, for sending in halves; what lies beyond the end is left out.
    pub fn part(&self, documents: Range<usize>) -> Self {
        let start = documents
            .start
            .checked_sub(1)
            .map_or(0, |before| self.ends.get(before).copied().unwrap_or(self.lines.len()));
        let last = documents.end.min(self.ends.len());
        let ends = self.ends.get(documents.start..last).unwrap_or_default();
        let end = ends.last().copied().unwrap_or(start);
        Self {
            path: Arc::clone(&self.path),
            lines: Arc::new(self.lines.get(start..end).unwrap_or_default().to_vec()),
            ends: ends.iter().map(|end| end - start).collect(),
        }
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
