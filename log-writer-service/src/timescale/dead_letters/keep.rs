//! Keeping dead letters, as a part of the commit that could not take their events.
//!
//! One row for each stage and identity: the same letter again raises its `attempts` and is not kept twice.

use std::borrow::Cow;

use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    event::Timestamp,
    timescale::{
        batch::Place,
        copy_text::row_as_json,
        error::StoreError,
        write::{Part, Source},
    },
};

/// Where an event failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It never became an event.
    Decode,
    /// PostgreSQL refused it.
    Store,
    /// It is stored, Elasticsearch refused it.
    Index,
}

impl Stage {
    /// As in the column `stage`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Store => "store",
            Self::Index => "index",
        }
    }
}

/// Something of a request that is kept instead of stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it failed.
    pub stage: Stage,
    /// Short kind in `snake_case`.
    pub reason: String,
    /// In words.
    pub detail: String,
    /// As received, cut by whoever makes the letter; that of a whole request by the committer.
    pub raw: Vec<u8>,
    /// Length in bytes before the cut.
    pub raw_bytes: u64,
    /// Of the event in its request, from 0; `None`: the whole request.
    pub position: Option<u32>,
}

/// A dead letter as it goes into the table.
pub(in crate::timescale) struct Letter<'a> {
    pub(super) stage: Stage,
    pub(super) identity: Vec<u8>,
    pub(super) reason: &'a str,
    pub(super) detail: &'a str,
    raw: Cow<'a, [u8]>,
    raw_bytes: u64,
    position: Option<u32>,
    events: u32,
    event: Option<(Uuid, Timestamp)>,
    tenant: &'a str,
    source: &'a Source,
}

/// Number of a letter that stands for its whole request.
pub(super) const WHOLE_REQUEST: u32 = u32::MAX;

impl<'a> Letter<'a> {
    /// A letter that came with its request; `number` among that request's letters makes it one of its own.
    pub(in crate::timescale) fn decoded(part: &'a Part<'_>, letter: &'a DeadLetter, number: u32) -> Self {
        let whole = letter.position.is_none();
        let number = if whole && part.rows.is_empty() && part.letters.len() == 1 {
            WHOLE_REQUEST
        } else {
            number
        };
        Self {
            stage: letter.stage,
            identity: identity(part, number),
            reason: &letter.reason,
            detail: &letter.detail,
            raw: Cow::Borrowed(&letter.raw),
            raw_bytes: letter.raw_bytes,
            position: letter.position,
            events: if number == WHOLE_REQUEST { part.received } else { 1 },
            event: None,
            tenant: &part.source.tenant,
            source: part.source,
        }
    }

    /// A row that PostgreSQL refused.
    pub(in crate::timescale) fn refused_row(
        part: &'a Part<'_>,
        place: &Place<'_>,
        reason: &'a str,
        detail: &'a str,
        bytes_max: usize,
    ) -> Self {
        let mut raw = row_as_json(place.rows, place.row).into_bytes();
        let raw_bytes = u64::try_from(raw.len()).unwrap_or(u64::MAX);
        raw.truncate(bytes_max);
        let number = place.rows.note(place.row).map_or(WHOLE_REQUEST, |note| note.position);
        Self {
            stage: Stage::Store,
            identity: identity(part, number),
            reason,
            detail,
            raw: Cow::Owned(raw),
            raw_bytes,
            position: Some(number),
            events: 1,
            event: place
                .rows
                .note(place.row)
                .map(|note| (place.rows.id(place.row), note.timestamp)),
            tenant: part
                .rows
                .note(place.row)
                .map_or(&part.source.tenant, |note| &note.tenant),
            source: part.source,
        }
    }
}

/// Keeps the letters, within the caller's transaction.
pub(in crate::timescale) async fn keep(
    connection: &mut PgConnection,
    batch_id: i64,
    letters: &[Letter<'_>],
) -> Result<(), StoreError> {
    // In groups: a body full of bad lines is one request, its letters must not all be one statement's parameters.
    for group in letters.chunks(500) {
        sqlx::query(include_str!("../sql/keep_dead_letters.sql"))
            .bind(batch_id)
            .bind(column(group, |letter| letter.stage.as_str()))
            .bind(column(group, |letter| letter.identity.as_slice()))
            .bind(column(group, |letter| without_nul(letter.reason)))
            .bind(column(group, |letter| without_nul(letter.detail)))
            .bind(column(group, |letter| letter.raw.as_ref()))
            .bind(column(group, |letter| {
                i64::try_from(letter.raw_bytes).unwrap_or(i64::MAX)
            }))
            .bind(column(group, |letter| {
                letter.position.map(|at| i32::try_from(at).unwrap_or(i32::MAX))
            }))
            .bind(column(group, |letter| i64::from(letter.events)))
            .bind(column(group, |letter| letter.event.map(|(id, _)| id)))
            .bind(column(group, |letter| {
                letter.event.map(|(_, time)| chrono::DateTime::from(time))
            }))
            .bind(column(group, |letter| without_nul(letter.tenant)))
            .bind(column(group, |letter| {
                letter.source.address.map(|address| address.to_string())
            }))
            .bind(column(group, |letter| {
                letter.source.content_type.as_deref().map(without_nul)
            }))
            .bind(column(group, |letter| {
                letter.source.content_encoding.as_deref().map(without_nul)
            }))
            .bind(column(group, |letter| without_nul(&letter.source.path)))
            .execute(&mut *connection)
            .await
            .map_err(StoreError::during("keep dead letters"))?;
    }
    Ok(())
}

fn column<'g, T>(group: &'g [Letter<'_>], of: impl Fn(&'g Letter<'_>) -> T) -> Vec<T> {
    group.iter().map(of).collect()
}

/// PostgreSQL's text holds no NUL, and a letter must not fail for what made it one.
pub(in crate::timescale) fn without_nul(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn identity(part: &Part<'_>, number: u32) -> Vec<u8> {
    [part.digest.0.as_slice(), &number.to_be_bytes()].concat()
}
