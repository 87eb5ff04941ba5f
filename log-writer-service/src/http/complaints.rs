//! Lets a flood of refused requests become a line now and then, not a flood of lines.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One line for each address and reason in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// Addresses and reasons that are remembered; beyond it they share one line.
const COMPLAINTS_MAX: usize = 1024;

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told: Mutex<HashMap<(IpAddr, &'static str), Told>>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    silent: u64,
}

impl Complaints {
    /// Whether a line is due, and for how many requests like this there was none.
    pub(super) fn due(&self, reason: &'static str, address: IpAddr, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |told: &Told| now.duration_since(told.at) >= COMPLAIN_EVERY;
        let mut key = (address, reason);
        if told.len() >= COMPLAINTS_MAX && !told.contains_key(&key) {
            told.retain(|_, told| !is_old(told));
            if told.len() >= COMPLAINTS_MAX {
                key = (IpAddr::from([0, 0, 0, 0]), reason);
            }
        }
        match told.get_mut(&key) {
            Some(told) if !is_old(told) => {
                told.silent += 1;
                None
            }
            before => {
                let silent = before.map_or(0, |told| told.silent);
                told.insert(key, Told { at: now, silent: 0 });
                Some(silent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_the_next_says_how_many_there_were() {
        let complaints = Complaints::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        assert_eq!(complaints.due("unknown", one, start), Some(0));
        for _ in 0..5 {
            assert_eq!(complaints.due("unknown", one, start), None);
        }
        assert_eq!(complaints.due("unknown", other, start), Some(0), "another address");
        assert_eq!(complaints.due("expired", one, start), Some(0), "another reason");
        let later = start + COMPLAIN_EVERY;
        assert_eq!(complaints.due("unknown", one, later), Some(5));
        assert_eq!(complaints.due("unknown", one, later), None);
    }

    #[test]
    fn many_addresses_take_no_more_memory_and_share_a_line() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let mut lines = 0;
        for number in 0..10_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            lines += u32::from(complaints.due("missing", address, start).is_some());
        }
        assert!(complaints.told.lock().unwrap().len() <= COMPLAINTS_MAX + 1);
        assert!(lines <= 1025, "{lines} lines");
        let later = start + COMPLAIN_EVERY;
        assert_eq!(complaints.due("missing", IpAddr::from([99, 0, 0, 1]), later), Some(0));
        assert_eq!(complaints.told.lock().unwrap().len(), 1, "what is old is forgotten");
    }
}
