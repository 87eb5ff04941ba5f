//! Which outbox rows the next claim takes.
//!
//! Streams take turns, and of each the newest rows go first, so that live events stay current while a backlog drains. A stream
//! with more than one claim takes has every second turn: many small ones would leave it behind. Once a minute it is the
//! oldest rows of all: where more comes than Elasticsearch takes, some of them go too.
//!
//! Not half newest and half oldest: then each Lucene segment has ids of both ends, and Elasticsearch must look into all of
//! them for each id of a backlog (`docs/adr/0006-delivery-takes-the-newest-first.md`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::timescale::ClaimOrder;

/// How often the oldest rows have a turn.
const OLDEST_EVERY: Duration = Duration::from_secs(60);

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The oldest rows' of all streams.
    Oldest,
    /// That stream's which had more than a claim takes.
    Full,
    /// The next stream's by name.
    Next,
}

/// Who had turns.
#[derive(Debug)]
pub(super) struct Turns {
    oldest_at: Instant,
    last: Arc<str>,
    /// The last stream that had more than a claim took.
    full: Option<Arc<str>>,
    full_is_due: bool,
}

impl Turns {
    pub(super) fn beginning_at(now: Instant) -> Self {
        Self {
            oldest_at: now,
            last: Arc::from(""),
            full: None,
            full_is_due: false,
        }
    }

    /// Whose turn it is, until [`Self::had`] it.
    pub(super) fn next(&self, now: Instant) -> Turn {
        if now.saturating_duration_since(self.oldest_at) >= OLDEST_EVERY {
            Turn::Oldest
        } else if self.full_is_due && self.full.is_some() {
            Turn::Full
        } else {
            Turn::Next
        }
    }

    /// What is claimed in a turn.
    pub(super) fn order(&self, turn: Turn) -> ClaimOrder<'_> {
        let full = self.full.as_deref().filter(|_| turn == Turn::Full);
        match turn {
            Turn::Oldest => ClaimOrder::OldestFirst,
            Turn::Full | Turn::Next => ClaimOrder::NewestFirst {
                first: full.unwrap_or_default(),
                after: &self.last,
            },
        }
    }

    /// A turn was had at this time: rows of this stream were claimed, and it has more or not.
    pub(super) fn had(&mut self, turn: Turn, stream: &Arc<str>, has_more: bool, now: Instant) {
        match turn {
            Turn::Oldest => self.oldest_at = now,
            Turn::Full => self.full_is_due = false,
            Turn::Next => {
                self.last = Arc::clone(stream);
                self.full_is_due = true;
            }
        }
        if has_more {
            self.full = Some(Arc::clone(stream));
        } else if self.full.as_ref() == Some(stream) {
            self.full = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_have_a_turn_a_minute_which_is_theirs_until_rows_were_taken() {
        let start = Instant::now();
        let mut turns = Turns::beginning_at(start);
        let mut oldest = Vec::new();
        for second in 0..=200 {
            let now = start + Duration::from_secs(second);
            let turn = turns.next(now);
            if turn == Turn::Oldest {
                oldest.push(second);
            }
            // Nothing is found for a while.
            if !(55..70).contains(&second) {
                turns.had(turn, &Arc::from("stream"), false, now);
            }
        }
        let expected: Vec<u64> = (60..=70).chain([130, 190]).collect();
        assert_eq!(oldest, expected);
    }

    /// Streams that had the first so many turns, where all always have rows and these more than a claim takes.
    fn streams_of_turns(streams: &[&str], full: &[&str], count: usize) -> Vec<String> {
        let now = Instant::now();
        let mut turns = Turns::beginning_at(now);
        let mut had = Vec::new();
        for _ in 0..count {
            let turn = turns.next(now);
            let ClaimOrder::NewestFirst { first, after } = turns.order(turn) else {
                panic!("no minute has passed")
            };
            let chosen = *streams
                .iter()
                .min_by_key(|stream| (**stream != first, **stream <= after, **stream))
                .expect("a stream");
            turns.had(turn, &Arc::from(chosen), full.contains(&chosen), now);
            had.push(chosen.to_owned());
        }
        had
    }

    #[test]
    fn streams_take_turns() {
        assert_eq!(streams_of_turns(&["a", "b", "c"], &[], 5), ["a", "b", "c", "a", "b"]);
    }

    #[test]
    fn a_stream_with_more_than_a_claim_takes_has_every_second_turn() {
        let had = streams_of_turns(&["a", "b", "c", "d"], &["b"], 9);
        assert_eq!(had, ["a", "b", "b", "c", "b", "d", "b", "a", "b"]);
    }

    #[test]
    fn several_such_streams_share_these_turns() {
        let had = streams_of_turns(&["a", "b", "c", "d"], &["a", "d"], 16);
        let turns_of = |name: &str| had.iter().filter(|stream| *stream == name).count();
        assert_eq!(["a", "b", "c", "d"].map(turns_of), [8, 2, 2, 4], "{had:?}");
    }
}
