//! Admission: how many bytes all requests together may hold.
//!
//! A request reserves before it allocates: for the body as it arrives, for the expanded body, for the encoded rows. What can't be
//! reserved at once is refused (429), never waited for, so that memory is bounded whatever the number of clients.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The bytes that may be held; clones share them.
#[derive(Debug, Clone)]
pub struct Admission {
    held: Arc<AtomicUsize>,
    limit: usize,
}

impl Admission {
    /// At most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            held: Arc::default(),
            limit,
        }
    }

    /// An empty reservation, to be grown.
    #[must_use]
    pub fn open(&self) -> Reservation {
        Reservation {
            admission: self.clone(),
            bytes: 0,
        }
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that may be held.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    fn take(&self, bytes: usize) -> bool {
        self.held
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .is_ok()
    }
}

/// Bytes that one request holds; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    admission: Admission,
    bytes: usize,
}

impl Reservation {
    /// Makes the reservation at least `bytes` large; false, and nothing changed, if that is more than is free.
    #[must_use]
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let granted = self.admission.take(more);
        if granted {
            self.bytes += more;
        }
        granted
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.admission.held.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
    }

    /// Bytes that all reservations together may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.admission.limit
    }

    /// Bytes reserved.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_limit_is_refused_and_changes_nothing() {
        let admission = Admission::new(100);
        let (mut first, mut second) = (admission.open(), admission.open());
        assert!(first.grow_to(60));
        assert!(!second.grow_to(41));
        assert_eq!(admission.held(), 60);
        assert!(second.grow_to(40));
        assert!(!first.grow_to(usize::MAX));
        assert_eq!(admission.held(), 100);
    }

    #[test]
    fn everything_comes_back() {
        let admission = Admission::new(100);
        let mut reservation = admission.open();
        assert!(reservation.grow_to(80));
        reservation.shrink_to(30);
        assert_eq!((admission.held(), reservation.bytes()), (30, 30));
        drop(reservation);
        assert_eq!(admission.held(), 0);
    }
}
