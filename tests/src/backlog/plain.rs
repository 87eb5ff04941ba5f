//! The plainest loader: the same documents by `_bulk`, over a few connections, with nothing before or after it.

use std::{sync::Mutex, time::Instant};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::future::join_all;
use serde_json::Value;

use crate::{search::Search, stack::Stream};

/// Documents of one bulk and its bytes: the service's defaults.
const BULK_DOCUMENTS: usize = 2_000;
const BULK_BYTES: usize = 5_000_000;

/// Documents of a stream, to be sent again and again.
#[derive(Debug)]
pub struct Plain {
    /// Id and source of each.
    documents: Vec<([u8; 24], String)>,
}

impl Plain {
    /// Takes so many documents of a stream, or all if it has less.
    pub async fn of(search: &Search, stream: &str, documents: usize) -> Self {
        search.refresh(stream).await;
        let hits = search.some_documents(stream, documents).await;
        let documents = hits
            .into_iter()
            .map(|hit| {
                let id = URL_SAFE_NO_PAD.decode(&hit.id).expect("base64url");
                (id.try_into().expect("24 bytes"), hit.source.to_string())
            })
            .collect();
        Self { documents }
    }

    /// Indexes so many into a stream of their own over so many connections, from the first again when they are used up,
    /// under later ids; documents a second.
    ///
    /// As many as the service indexes meanwhile: Elasticsearch merges what it has, so that more of them cost more each.
    ///
    /// # Panics
    /// If one is refused, or there is none.
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with few digits")]
    pub async fn load(&self, url: &str, workers: usize, documents: usize) -> f64 {
        assert!(!self.documents.is_empty(), "no document to load");
        let stream = Stream::on(url);
        let name = stream.name();
        let next = Mutex::new(0);
        let path = "/_bulk?require_data_stream=true&filter_path=errors,items.*.status";
        let start = Instant::now();
        join_all((0..workers).map(|_| async {
            while let Some(bulk) = self.next_bulk(&name, &next, documents) {
                let answer = stream
                    .search
                    .call_with("POST", path, "application/x-ndjson", Some(bulk));
                let (status, answer) = answer.await.expect("an answer");
                assert_eq!(status, 200, "{answer}");
                assert_eq!(answer["errors"], Value::Bool(false), "a document was refused");
            }
        }))
        .await;
        documents as f64 / start.elapsed().as_secs_f64()
    }

    /// The documents from `next` on, which it moves; none if `documents` were taken.
    fn next_bulk(&self, stream: &str, next: &Mutex<usize>, documents: usize) -> Option<Bytes> {
        let mut next = next.lock().expect("not poisoned");
        let mut bulk = String::new();
        let end = documents.min(*next + BULK_DOCUMENTS);
        while *next < end {
            let (id, source) = self.documents.get(*next % self.documents.len())?;
            if !bulk.is_empty() && bulk.len() + source.len() > BULK_BYTES {
                break;
            }
            let id = later(id, *next / self.documents.len());
            bulk.push_str(&format!(
                "{{\"create\":{{\"_index\":\"{stream}\",\"_id\":\"{id}\"}}}}\n{source}\n"
            ));
            *next += 1;
        }
        (!bulk.is_empty()).then(|| Bytes::from(bulk))
    }
}

/// The id of the same event so many hours later: time in µs first, as the service makes ids.
fn later(id: &[u8; 24], hours: usize) -> String {
    let mut later = *id;
    let micros = u64::from_be_bytes(*id.first_chunk().expect("24 bytes")) + hours as u64 * 3_600_000_000;
    later[..8].copy_from_slice(&micros.to_be_bytes());
    URL_SAFE_NO_PAD.encode(later)
}
