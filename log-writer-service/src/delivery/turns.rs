//! Which outbox rows the next claim takes.
//!
//! Streams take turns, and of each the newest rows go first, so that live events stay current while a backlog drains. Once a
//! minute it is the oldest rows of all: where more comes than Elasticsearch takes, some of them go too.
//!
//! Not half and half: then each Lucene segment has ids of both ends, and Elasticsearch must look into all of them for each id
//! of a backlog (`docs/adr/0006-delivery-takes-the-newest-first.md`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::timescale::ClaimOrder;

/// How often the oldest rows have a turn.
const OLDEST_EVERY: Duration = Duration::from_secs(60);

/// Who had a turn, and when.
#[derive(Debug)]
pub(super) struct Turns {
    oldest_at: Instant,
    last_target: Arc<str>,
}

impl Turns {
    pub(super) fn beginning_at(now: Instant) -> Self {
        Self {
            oldest_at: now,
            last_target: Arc::from(""),
        }
    }

    /// Whose turn it is; it stays theirs until [`Self::had_turn`].
    pub(super) fn next_order(&self, now: Instant) -> ClaimOrder<'_> {
        if now.saturating_duration_since(self.oldest_at) < OLDEST_EVERY {
            ClaimOrder::NewestFirst {
                after: &self.last_target,
            }
        } else {
            ClaimOrder::OldestFirst
        }
    }

    /// A claim of [`Self::next_order`] at this time took rows of this target.
    pub(super) fn had_turn(&mut self, target: &Arc<str>, now: Instant) {
        match self.next_order(now) {
            ClaimOrder::OldestFirst => self.oldest_at = now,
            ClaimOrder::NewestFirst { .. } => self.last_target = Arc::clone(target),
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
        let target = Arc::from("stream");
        let mut oldest = Vec::new();
        for second in 0..=200 {
            let now = start + Duration::from_secs(second);
            let is_oldest = turns.next_order(now) == ClaimOrder::OldestFirst;
            // Nothing is found for a while.
            if !(55..70).contains(&second) {
                turns.had_turn(&target, now);
            }
            if is_oldest {
                oldest.push(second);
            }
        }
        let expected: Vec<u64> = (60..=70).chain([130, 190]).collect();
        assert_eq!(oldest, expected);
    }

    #[test]
    fn the_stream_that_had_a_turn_last_is_remembered() {
        let now = Instant::now();
        let mut turns = Turns::beginning_at(now);
        assert_eq!(turns.next_order(now), ClaimOrder::NewestFirst { after: "" });
        turns.had_turn(&Arc::from("stream"), now);
        assert_eq!(turns.next_order(now), ClaimOrder::NewestFirst { after: "stream" });
    }
}
