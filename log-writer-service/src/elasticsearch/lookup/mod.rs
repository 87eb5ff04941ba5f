//! Finding and repairing copies: Elasticsearch knows an `_id` only within one index of a stream.
//!
//! Any doubt is an error and never "absent": an absent document is written again. The one exception is the 404 that
//! Elasticsearch itself gives for a stream that has no index yet.

use std::sync::Arc;

use elasticsearch::http::Method;
use serde::Deserialize;
use serde_json::json;

use super::{
    bulk_request::push_action,
    bulk_response,
    client::{Client, read, segment},
    document_id::DocumentId,
    error::{BulkFailure, SearchError, SearchErrorKind},
};
use crate::config::Naming;

/// Which writing of a document is there now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// `_seq_no`.
    pub seq_no: u64,
    /// `_primary_term`.
    pub primary_term: u64,
}

/// A copy of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCopy {
    /// The index that holds it.
    pub index: Arc<str>,
    /// As it was located.
    pub version: Version,
}

#[derive(Deserialize)]
struct Docs<'a> {
    #[serde(borrow)]
    docs: Vec<Doc<'a>>,
}

#[derive(Deserialize)]
struct Doc<'a> {
    #[serde(rename = "_id")]
    id: &'a str,
    found: Option<bool>,
    #[serde(rename = "_seq_no")]
    seq_no: Option<u64>,
    #[serde(rename = "_primary_term")]
    primary_term: Option<u64>,
    error: Option<DocError>,
}

#[derive(Deserialize)]
struct DocError {
    #[serde(rename = "type")]
    error_type: String,
}

impl Client {
    /// The indices behind a stream, oldest first; the last is the one written to. Empty: the stream does not exist.
    /// By monthly naming the target is its own and only index.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub async fn backing_indices(&self, stream: &str) -> Result<Vec<String>, SearchError> {
        #[derive(Deserialize)]
        struct Streams {
            data_streams: Vec<Stream>,
        }
        #[derive(Deserialize)]
        struct Stream {
            name: String,
            indices: Vec<Index>,
        }
        #[derive(Deserialize)]
        struct Index {
            index_name: String,
        }
        if self.naming() == Naming::Monthly {
            return Ok(vec![stream.to_owned()]);
        }
        let path = format!(
            "_data_stream/{}?filter_path=data_streams.name,data_streams.indices.index_name",
            segment(stream)
        );
        let body = match self.call(Method::Get, &path, None).await {
            Ok(body) => body,
            Err(error) if error.kind() == SearchErrorKind::Missing => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let request = format!("GET /_data_stream/{stream}");
        let streams: Streams = read(&request, &body)?;
        match streams.data_streams.into_iter().find(|found| found.name == stream) {
            Some(found) if !found.indices.is_empty() => {
                Ok(found.indices.into_iter().map(|index| index.index_name).collect())
            }
            _ => Err(SearchError::Unreadable {
                request,
                detail: "the stream or its indices are not in it".to_owned(),
            }),
        }
    }

    /// The indices behind a target that hold each document, oldest first, refreshed or not.
    ///
    /// # Errors
    /// See [`SearchError`]; one document that cannot be looked up is an error for all.
    pub async fn holders(&self, target: &str, ids: &[DocumentId]) -> Result<Vec<Vec<String>>, SearchError> {
        let mut holders = vec![Vec::new(); ids.len()];
        for index in self.backing_indices(target).await? {
            let there = match self.find(&index, ids).await {
                // By monthly naming nobody has listed it: its first document will make it.
                Err(error) if error.kind() == SearchErrorKind::Missing && self.naming() == Naming::Monthly => continue,
                there => there?,
            };
            for (indices, _) in holders.iter_mut().zip(there).filter(|(_, is_there)| *is_there) {
                indices.push(index.clone());
            }
        }
        Ok(holders)
    }

    /// Whether each document is in the index, refreshed or not.
    ///
    /// # Errors
    /// See [`SearchError`]; one document that cannot be looked up is an error for all.
    pub async fn find(&self, index: &str, ids: &[DocumentId]) -> Result<Vec<bool>, SearchError> {
        let found = self.locate(index, ids).await?;
        Ok(found.into_iter().map(|version| version.is_some()).collect())
    }

    /// Which version of each document is in the index, refreshed or not.
    ///
    /// # Errors
    /// See [`SearchError`]; one document that cannot be looked up is an error for all.
    pub async fn locate(&self, index: &str, ids: &[DocumentId]) -> Result<Vec<Option<Version>>, SearchError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let path = format!(
            "{}/_mget?_source=false&filter_path=docs._id,docs.found,docs._seq_no,docs._primary_term,docs.error.type",
            segment(index)
        );
        let names: Vec<&str> = ids.iter().map(DocumentId::as_str).collect();
        let body = self.call(Method::Post, &path, Some(&json!({ "ids": names }))).await?;
        read_located(&format!("POST /{index}/_mget"), &body, ids)
    }

    /// Deletes documents of an index; those that are gone already count as deleted.
    ///
    /// # Errors
    /// See [`SearchError`]; some may be deleted all the same, and it can be asked for again.
    pub async fn delete(&self, index: &str, ids: &[DocumentId]) -> Result<(), SearchError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut lines = Vec::with_capacity(ids.len() * (index.len() + 64));
        for id in ids {
            push_action(&mut lines, "delete", index, id);
            lines.extend_from_slice(b"}}\n");
        }
        let request = format!("POST /_bulk (delete in {index})");
        let path = format!("_bulk?filter_path={}", bulk_response::FILTER_PATH);
        let outcomes = match self.lines(&path, lines.into()).await {
            Ok(answer) => bulk_response::read_deleted(&answer, ids.len()),
            Err(failure) => Err(failure),
        };
        for (status, error_type) in outcomes.map_err(|failure| search_error(&request, failure))? {
            let gone = status == 404 && error_type.is_empty();
            if status == 503 {
                return Err(SearchError::Withheld { request, error_type });
            }
            if !(200..300).contains(&status) && !gone {
                return Err(SearchError::Refused {
                    request,
                    status,
                    error_type,
                    reason: String::new(),
                });
            }
        }
        Ok(())
    }
}

fn read_located(request: &str, body: &[u8], ids: &[DocumentId]) -> Result<Vec<Option<Version>>, SearchError> {
    let unreadable = |detail: &str| SearchError::Unreadable {
        request: request.to_owned(),
        detail: detail.to_owned(),
    };
    let Docs { docs } = read(request, body)?;
    if docs.len() != ids.len() || docs.iter().zip(ids).any(|(doc, id)| doc.id != id.as_str()) {
        return Err(unreadable("other documents than were asked for"));
    }
    docs.into_iter()
        .map(|doc| match (doc.error, doc.found, doc.seq_no, doc.primary_term) {
            // Whatever it is, it does not say "absent".
            (Some(error), ..) => Err(SearchError::Withheld {
                request: request.to_owned(),
                error_type: error.error_type,
            }),
            (None, Some(false), ..) => Ok(None),
            (None, Some(true), Some(seq_no), Some(primary_term)) => Ok(Some(Version { seq_no, primary_term })),
            _ => Err(unreadable("a document neither found nor absent")),
        })
        .collect()
}

/// A failure of a `_bulk` that carried no documents.
fn search_error(request: &str, failure: BulkFailure) -> SearchError {
    let request = request.to_owned();
    let refused = |status, error_type: &str| SearchError::Refused {
        request: request.clone(),
        status,
        error_type: error_type.to_owned(),
        reason: String::new(),
    };
    match failure {
        BulkFailure::TooLarge => refused(413, "unknown"),
        BulkFailure::WholeRequest { status, error_type } | BulkFailure::Forbidden { status, error_type } => {
            refused(status, &error_type)
        }
        BulkFailure::Busy { status } => refused(status, "unknown"),
        BulkFailure::Blocked => refused(403, "cluster_block_exception"),
        BulkFailure::Unreachable(detail) | BulkFailure::Unanswered(detail) => {
            SearchError::Unanswered { request, detail }
        }
        BulkFailure::Miscounted { .. } => SearchError::Unreadable {
            request,
            detail: failure.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
