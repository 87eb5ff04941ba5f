//! The plainest loader: the same documents by `_bulk`, over a few connections, with nothing before or after it.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

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
    /// Lines of `_bulk`, without the action's line: id and source of each.
    documents: Vec<(String, String)>,
}

impl Plain {
    /// Takes so many documents of a stream, or all if it has less.
    pub async fn of(search: &Search, stream: &str, documents: usize) -> Self {
        search.refresh(stream).await;
        let hits = search.some_documents(stream, documents).await;
        let documents = hits.into_iter().map(|hit| (hit.id, hit.source.to_string())).collect();
        Self { documents }
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// Indexes them into a stream of their own over so many connections; documents a second.
    ///
    /// # Panics
    /// If one is refused.
    #[expect(clippy::cast_precision_loss, reason = "a rate is shown with few digits")]
    pub async fn load(&self, url: &str, workers: usize) -> f64 {
        let stream = Stream::on(url);
        let bulks = self.bulks(&stream.name());
        let next = AtomicUsize::new(0);
        let path = "/_bulk?require_data_stream=true&filter_path=errors,items.*.status";
        let start = Instant::now();
        join_all((0..workers).map(|_| async {
            while let Some(bulk) = bulks.get(next.fetch_add(1, Ordering::Relaxed)) {
                let answer = stream
                    .search
                    .call_with("POST", path, "application/x-ndjson", Some(bulk.clone()));
                let (status, answer) = answer.await.expect("an answer");
                assert_eq!(status, 200, "{answer}");
                assert_eq!(answer["errors"], Value::Bool(false), "a document was refused");
            }
        }))
        .await;
        self.documents.len() as f64 / start.elapsed().as_secs_f64()
    }

    fn bulks(&self, stream: &str) -> Vec<Bytes> {
        let mut bulks = Vec::new();
        let (mut bulk, mut documents) = (String::new(), 0);
        for (id, source) in &self.documents {
            if documents == BULK_DOCUMENTS || bulk.len() + source.len() > BULK_BYTES {
                bulks.push(Bytes::from(std::mem::take(&mut bulk)));
                documents = 0;
            }
            bulk.push_str(&format!(r#"{{"create":{{"_index":"{stream}","_id":"{id}"}}}}"#));
            bulk.push('\n');
            bulk.push_str(source);
            bulk.push('\n');
            documents += 1;
        }
        bulks.push(Bytes::from(bulk));
        bulks
    }
}
