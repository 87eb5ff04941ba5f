//! The rows of a batch, counted through over all its new requests, and how they go down a COPY.

use std::{collections::HashSet, ops::Range};

use sqlx::{PgConnection, postgres::PgCopyIn};

use super::{
    copy::{COLUMN_COUNT, COPY_HEADER, COPY_TRAILER, EncodedRows, put_field},
    digests::Noted,
    error::{StoreError, StoreErrorKind},
    write::Part,
};
use crate::failpoint::failpoint;

/// What one message to the server holds; larger ones gain nothing and cost memory on both sides.
const SEND_BYTES: usize = 1024 * 1024;

/// The rows of all new requests, numbered from 0.
pub(super) struct Batch<'a> {
    slices: Vec<Slice<'a>>,
    len: usize,
}

struct Slice<'a> {
    part: usize,
    first: usize,
    rows: &'a EncodedRows,
}

/// Where a row of the batch stands.
pub(super) struct Place<'a> {
    /// Number of its request among all parts.
    pub(super) part: usize,
    /// The rows of that request.
    pub(super) rows: &'a EncodedRows,
    /// Its number among those.
    pub(super) row: usize,
}

/// Which table a COPY goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    /// `application_logs`, rows as they are encoded.
    Table,
    /// The temporary table, with two more columns: number in the batch, derived id.
    Staging,
}

impl<'a> Batch<'a> {
    /// Takes the rows of those parts that are new.
    pub(super) fn of_new(parts: &'a [Part<'_>], noted: &[Noted]) -> Self {
        let mut batch = Self {
            slices: Vec::with_capacity(parts.len()),
            len: 0,
        };
        for (number, (part, of_part)) in parts.iter().zip(noted).enumerate() {
            if *of_part == Noted::New && !part.rows.is_empty() {
                batch.slices.push(Slice {
                    part: number,
                    first: batch.len,
                    rows: &*part.rows,
                });
                batch.len += part.rows.len();
            }
        }
        batch
    }

    /// How many rows.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Finds a row.
    pub(super) fn locate(&self, row: usize) -> Option<Place<'a>> {
        let after = self.slices.partition_point(|slice| slice.first <= row);
        let slice = self.slices.get(after.checked_sub(1)?)?;
        let row = row - slice.first;
        (row < slice.rows.len()).then_some(Place {
            part: slice.part,
            rows: slice.rows,
            row,
        })
    }

    /// The number of a row among those of all parts, known requests included: how the caller counts.
    pub(super) fn number_among_all(&self, parts: &[Part<'_>], row: usize) -> Option<usize> {
        let place = self.locate(row)?;
        let before: usize = parts.get(..place.part)?.iter().map(|part| part.rows.len()).sum();
        Some(before + place.row)
    }

    /// Rows in the encoding of their requests: those of each, from its first to its last.
    fn slices(&self, range: Range<usize>) -> impl Iterator<Item = &'a [u8]> {
        self.slices.iter().map(move |slice| {
            let within = |row: usize| row.saturating_sub(slice.first).min(slice.rows.len());
            slice.rows.rows(within(range.start)..within(range.end))
        })
    }

    /// Requests that bring rows.
    pub(super) fn requests(&self) -> impl Iterator<Item = &'a EncodedRows> {
        self.slices.iter().map(|slice| slice.rows)
    }

    /// All rows in order.
    pub(super) fn places(&self) -> impl Iterator<Item = (usize, Place<'a>)> {
        self.slices.iter().flat_map(|slice| {
            (0..slice.rows.len()).map(|row| {
                (
                    slice.first + row,
                    Place {
                        part: slice.part,
                        rows: slice.rows,
                        row,
                    },
                )
            })
        })
    }

    /// Whether two rows have one key. Those with a derived id have it alone: it comes from their place in their request.
    pub(super) fn has_twins(&self) -> bool {
        let mut seen = HashSet::new();
        self.places()
            .filter_map(|(_, place)| place.rows.own_key(place.row))
            .any(|key| !seen.insert(key))
    }

    /// Sends some of the rows down one COPY.
    ///
    /// # Errors
    /// With the row of the batch in it where PostgreSQL names one. The connection can be used again after any refusal.
    ///
    /// # Cancel safety
    /// None: the connection is in the middle of a COPY and must be thrown away.
    pub(super) async fn copy_in(
        &self,
        connection: &mut PgConnection,
        scratch: &mut Vec<u8>,
        into: Into,
        statement: &str,
        range: Range<usize>,
    ) -> Result<(), StoreError> {
        let attempted = "copy rows";
        let copy = connection
            .copy_in_raw(statement)
            .await
            .map_err(StoreError::during(attempted))?;
        // From here to `finish` the only way out is a failed send, and then the connection itself is gone: `?` is safe.
        scratch.clear();
        let mut out = Messages { copy, scratch };
        out.put(COPY_HEADER).await?;
        match into {
            Into::Table => {
                for rows in self.slices(range.clone()) {
                    out.put(rows).await?;
                }
            }
            Into::Staging => {
                for number in range.clone() {
                    let Some(place) = self.locate(number) else { continue };
                    out.put(&(COLUMN_COUNT + 2).to_be_bytes()).await?;
                    out.put(place.rows.row(place.row).get(2..).unwrap_or_default()).await?;
                    out.put(&added_columns(&place, number)).await?;
                }
            }
        }
        out.put(COPY_TRAILER).await?;
        let copied = out.finish().await.map_err(|error| {
            let error = StoreError::during(attempted)(error);
            let row = error
                .row()
                .map(|row| range.start + row)
                .filter(|row| range.contains(row));
            error.at_row(row)
        })?;
        if usize::try_from(copied) != Ok(range.len()) {
            return Err(StoreError::own(
                StoreErrorKind::Other,
                attempted,
                format!("{copied} rows arrived of {}", range.len()),
            ));
        }
        Ok(())
    }
}

/// A COPY under way, sent in messages of [`SEND_BYTES`] wherever rows end: one may be larger than any message.
struct Messages<'c> {
    copy: PgCopyIn<&'c mut PgConnection>,
    scratch: &'c mut Vec<u8>,
}

impl Messages<'_> {
    async fn put(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        loop {
            let room = SEND_BYTES.saturating_sub(self.scratch.len());
            let Some((now, later)) = bytes.split_at_checked(room) else {
                self.scratch.extend_from_slice(bytes);
                return Ok(());
            };
            self.scratch.extend_from_slice(now);
            self.send().await?;
            failpoint!("commit::in_copy");
            bytes = later;
        }
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        let sent = self.copy.send(self.scratch.as_slice()).await;
        sent.map_err(StoreError::during("copy rows"))?;
        self.scratch.clear();
        Ok(())
    }

    async fn finish(mut self) -> Result<u64, sqlx::Error> {
        self.copy.send(self.scratch.as_slice()).await?;
        self.copy.finish().await
    }
}

/// What the staging table has beside the row.
fn added_columns(place: &Place<'_>, number: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(32);
    put_field(&mut out, &i32::try_from(number).unwrap_or(i32::MAX).to_be_bytes());
    let derived = place.rows.note(place.row).map(|note| note.derived).unwrap_or_default();
    put_field(&mut out, derived.as_bytes());
    out
}
