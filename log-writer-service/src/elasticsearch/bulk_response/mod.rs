//! The answer to a `_bulk`, read into one verdict for each document. Pure.
//!
//! Items come in the order of the documents and are counted: Elasticsearch drops a last action without its document in
//! silence, and a clean answer cut by `filter_path` has no items at all.

use std::{borrow::Cow, fmt, mem, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    error::BulkFailure,
    verdict::{Outcome, Verdict, judge},
};

/// What is asked of an answer; the items' statuses stand in it also when all went well.
pub(super) const FILTER_PATH: &str =
    "items.*.status,items.*._index,items.*.error.type,items.*.error.reason,items.*.failure_store";

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

fn read<T>(body: &[u8], sent: usize, judge: impl FnMut(Outcome<'_>) -> T) -> Result<Vec<T>, BulkFailure> {
    let mut judging = Judging {
        judge,
        sent,
        answered: 0,
        index: Arc::default(),
        judged: Vec::with_capacity(sent),
    };
    let mut answer = serde_json::Deserializer::from_slice(body);
    let read = Answer(&mut judging)
        .deserialize(&mut answer)
        .and_then(|()| answer.end());
    // The error's own text would quote the answer, and the answer documents.
    read.map_err(|error| {
        let place = format!(
            "{:?} error at byte {} of {}",
            error.classify(),
            error.column(),
            body.len()
        );
        BulkFailure::Unanswered(format!("the answer cannot be read: {place}"))
    })?;
    if judging.answered != sent {
        return Err(BulkFailure::Miscounted {
            sent,
            answered: judging.answered,
        });
    }
    Ok(judging.judged)
}

/// Judges items as they are read: none is kept.
struct Judging<T, J> {
    judge: J,
    sent: usize,
    answered: usize,
    /// Most often one name is that of all items: it is copied where another comes.
    index: Arc<str>,
    judged: Vec<T>,
}

impl<T, J: FnMut(Outcome<'_>) -> T> Judging<T, J> {
    fn take(&mut self, item: &Item<'_>) {
        self.answered += 1;
        if self.answered > self.sent {
            return;
        }
        let (Item::Create(fields) | Item::Index(fields) | Item::Delete(fields)) = item;
        let error = fields.error.as_ref();
        if *self.index != *fields.index {
            self.index = Arc::from(&*fields.index);
        }
        self.judged.push((self.judge)(Outcome {
            status: fields.status,
            index: Arc::clone(&self.index),
            error_type: error.map_or("", |error| &error.error_type),
            reason: error.and_then(|error| error.reason.as_deref()).unwrap_or_default(),
            failure_store: fields.failure_store.as_deref(),
        }));
    }
}

/// The whole answer: an object with `items`.
struct Answer<'j, T, J>(&'j mut Judging<T, J>);

impl<'de, T, J: FnMut(Outcome<'_>) -> T> DeserializeSeed<'de> for Answer<'_, T, J> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T, J: FnMut(Outcome<'_>) -> T> Visitor<'de> for Answer<'_, T, J> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the answer to a _bulk")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut has_items = false;
        while let Some(name) = members.next_key::<String>()? {
            if name == "items" {
                if mem::replace(&mut has_items, true) {
                    return Err(A::Error::duplicate_field("items"));
                }
                members.next_value_seed(Items(self.0))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Items<'j, T, J>(&'j mut Judging<T, J>);

impl<'de, T, J: FnMut(Outcome<'_>) -> T> DeserializeSeed<'de> for Items<'_, T, J> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T, J: FnMut(Outcome<'_>) -> T> Visitor<'de> for Items<'_, T, J> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("its items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(item) = items.next_element::<Item<'de>>()? {
            self.0.take(&item);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
