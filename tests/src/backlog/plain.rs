//! The plainest loader: the same documents by `_bulk` into the same stream, over a few connections, with nothing before or after it.

use std::{sync::Mutex, time::Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::future::join_all;
use serde_json::Value;
use uuid::Uuid;

use crate::search::Search;

/// Documents of one bulk and its bytes: the service's defaults.
const BULK_DOCUMENTS: usize = 2_000;
const BULK_BYTES: usize = 5_000_000;
/// How much later than an event its copies are, each as much later than the one before.
const LATER_MICROS: u64 = 3_600_000_000;

/// Documents of a stream, to be sent again and again as those of other events.
#[derive(Debug)]
pub struct Plain<'a> {
    search: &'a Search,
    stream: &'a str,
    documents: Vec<Source>,
}

/// What a document is made of.
#[derive(Debug)]
struct Source {
    micros: u64,
    /// The event's, as text within the source.
    id: String,
    source: String,
}

impl<'a> Plain<'a> {
    /// Takes so many documents of a stream, or all if it has less.
    pub async fn of(search: &'a Search, stream: &'a str, documents: usize) -> Self {
        search.refresh(stream).await;
        let hits = search.some_documents(stream, documents).await;
        let documents = hits
            .into_iter()
            .map(|hit| {
                let id = URL_SAFE_NO_PAD.decode(&hit.id).expect("base64url");
                let (micros, id) = id.split_first_chunk::<8>().expect("24 bytes");
                Source {
                    micros: u64::from_be_bytes(*micros),
                    id: Uuid::from_slice(id).expect("16 bytes").to_string(),
                    source: hit.source.to_string(),
                }
            })
            .collect();
        Self {
            search,
            stream,
            documents,
        }
    }

    /// Indexes so many more into the stream over so many connections, from the first again when they are used up, each
    /// under an id of its own; documents a second.
    ///
    /// Into the same stream and with ids of their own, for what an index holds is what it merges with, and what repeats
    /// costs less.
    ///
    /// # Panics
    /// If one is refused, or there is none.
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with few digits")]
    pub async fn load(&self, workers: usize, documents: usize) -> f64 {
        assert!(!self.documents.is_empty(), "no document to load");
        let next = Mutex::new(0);
        let path = "/_bulk?require_data_stream=true&filter_path=errors,items.*.status";
        let start = Instant::now();
        join_all((0..workers).map(|_| async {
            while let Some(bulk) = self.next_bulk(&next, documents) {
                let answer = self.search.call_with("POST", path, "application/x-ndjson", Some(bulk));
                let (status, answer) = answer.await.expect("an answer");
                assert_eq!(status, 200, "{answer}");
                assert_eq!(answer["errors"], Value::Bool(false), "a document was refused");
            }
        }))
        .await;
        documents as f64 / start.elapsed().as_secs_f64()
    }

    /// The documents from `next` on, which it moves; none if `documents` were taken.
    fn next_bulk(&self, next: &Mutex<usize>, documents: usize) -> Option<Bytes> {
        let mut next = next.lock().expect("not poisoned");
        let mut bulk = String::new();
        let end = documents.min(*next + BULK_DOCUMENTS);
        while *next < end {
            let Source { micros, id, source } = self.documents.get(*next % self.documents.len())?;
            if !bulk.is_empty() && bulk.len() + source.len() > BULK_BYTES {
                break;
            }
            let rounds = (*next / self.documents.len()) as u64 + 1;
            let new_id = Uuid::new_v4();
            // As the service makes ids: time first.
            let mut document_id = (micros + rounds * LATER_MICROS).to_be_bytes().to_vec();
            document_id.extend_from_slice(new_id.as_bytes());
            bulk.push_str(&format!(
                "{{\"create\":{{\"_index\":\"{}\",\"_id\":\"{}\"}}}}\n{}\n",
                self.stream,
                URL_SAFE_NO_PAD.encode(document_id),
                source.replacen(id.as_str(), &new_id.to_string(), 1),
            ));
            *next += 1;
        }
        (!bulk.is_empty()).then(|| Bytes::from(bulk))
    }
}
