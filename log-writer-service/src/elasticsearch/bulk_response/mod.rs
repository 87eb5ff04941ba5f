//! The answer to a `_bulk`, read into one verdict for each document. Pure.
//!
//! Items come in the order of the documents and are counted: Elasticsearch drops a last action without its document in
//! silence, and a clean answer cut by `filter_path` has no items at all.

use std::{borrow::Cow, sync::Arc};

use serde::Deserialize;

use super::{
    error::BulkFailure,
    verdict::{Outcome, Verdict, judge},
};

/// What is asked of an answer; the items' statuses stand in it also when all went well.
pub(super) const FILTER_PATH: &str =
    "items.*.status,items.*._index,items.*.error.type,items.*.error.reason,items.*.failure_store";

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    items: Vec<Item<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Item<'a> {
    #[serde(borrow)]
    Create(Fields<'a>),
    #[serde(borrow)]
    Index(Fields<'a>),
    #[serde(borrow)]
    Delete(Fields<'a>),
}

#[derive(Deserialize)]
struct Fields<'a> {
    status: u16,
    #[serde(borrow, default, rename = "_index")]
    index: Cow<'a, str>,
    #[serde(borrow, default)]
    error: Option<Cause<'a>>,
    #[serde(borrow, default)]
    failure_store: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Cause<'a> {
    #[serde(borrow, default, rename = "type")]
    error_type: Cow<'a, str>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

/// Verdicts for documents that were sent to be created.
pub(super) fn read_created(body: &[u8], sent: usize) -> Result<Vec<Verdict>, BulkFailure> {
    read(body, sent, judge)
}

/// Verdicts for documents that were sent to go over a known version: a 409 says that it is no longer that version.
pub(super) fn read_overwritten(body: &[u8], sent: usize) -> Result<Vec<Verdict>, BulkFailure> {
    read(body, sent, |outcome| {
        let (status, error_type) = (outcome.status, outcome.error_type);
        let verdict = judge(outcome);
        if matches!(verdict, Verdict::Duplicate { .. }) {
            return Verdict::Retry {
                status,
                error_type: error_type.to_owned(),
            };
        }
        verdict
    })
}

/// Statuses and error types of deletions; a 404 without a type is a document that was gone already.
pub(super) fn read_deleted(body: &[u8], sent: usize) -> Result<Vec<(u16, String)>, BulkFailure> {
    read(body, sent, |outcome| (outcome.status, outcome.error_type.to_owned()))
}

/// A whole answer to documents that were sent to be created, whatever its status.
#[cfg(any(test, feature = "targets"))]
pub(crate) fn read_answer(status: u16, body: &[u8], sent: usize) -> Result<Vec<Verdict>, BulkFailure> {
    if status == 200 {
        read_created(body, sent)
    } else {
        Err(super::verdict::judge_request(status, super::error::read_refusal(body)))
    }
}

fn read<T>(body: &[u8], sent: usize, mut judge: impl FnMut(Outcome<'_>) -> T) -> Result<Vec<T>, BulkFailure> {
    // The error's own text would quote the answer, and the answer documents.
    let answer: Answer<'_> = serde_json::from_slice(body).map_err(|error| {
        let place = format!(
            "{:?} error at byte {} of {}",
            error.classify(),
            error.column(),
            body.len()
        );
        BulkFailure::Unanswered(format!("the answer cannot be read: {place}"))
    })?;
    if answer.items.len() != sent {
        return Err(BulkFailure::Miscounted {
            sent,
            answered: answer.items.len(),
        });
    }
    // Most often one name is that of all items: it is copied where another comes.
    let mut index: Arc<str> = Arc::default();
    let outcomes = answer.items.iter().map(|item| {
        let (Item::Create(fields) | Item::Index(fields) | Item::Delete(fields)) = item;
        let error = fields.error.as_ref();
        if *index != *fields.index {
            index = Arc::from(&*fields.index);
        }
        judge(Outcome {
            status: fields.status,
            index: Arc::clone(&index),
            error_type: error.map_or("", |error| &error.error_type),
            reason: error.and_then(|error| error.reason.as_deref()).unwrap_or_default(),
            failure_store: fields.failure_store.as_deref(),
        })
    });
    Ok(outcomes.collect())
}

#[cfg(test)]
mod tests;
