//! Admission: how many bytes all requests together may hold.
//!
//! A request reserves before it allocates: for the body as it arrives, for the expanded body, for the encoded rows. What can't be
//! reserved at once is refused (429), never waited for, so that memory is bounded whatever the number of clients.
//! Requests of the late lane have a half of it together: they may wait for a lock as long as they may wait at all.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// The bytes that may be held; clones share them.
#[derive(Debug, Clone)]
pub struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held: AtomicUsize,
    /// Of these, what requests of the late lane hold.
    held_late: AtomicUsize,
    limit: usize,
    scarce: Notify,
}

impl Admission {
    /// At most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Shared {
            held: AtomicUsize::default(),
            held_late: AtomicUsize::default(),
            limit,
            scarce: Notify::new(),
        }))
    }

    /// An empty reservation, to be grown.
    #[must_use]
    pub fn open(&self) -> Reservation {
        Reservation {
            admission: self.clone(),
            bytes: 0,
            is_late: false,
        }
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Whether more than a half is held.
    #[must_use]
    pub fn is_scarce(&self) -> bool {
        self.held() > self.limit() / 2
    }

    /// Waits until more is asked for, granted or not, while more than a half is held; at once where that was so since it was
    /// waited for last. One may wait at a time.
    pub async fn gets_scarce(&self) {
        self.0.scarce.notified().await;
    }

    /// Bytes that may be held.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit
    }
}

/// Adds to what is held unless that is then more than the limit.
fn take(held: &AtomicUsize, bytes: usize, limit: usize) -> bool {
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
        held.checked_add(bytes).filter(|sum| *sum <= limit)
    })
    .is_ok()
}

/// Bytes that one request holds; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    admission: Admission,
    bytes: usize,
    is_late: bool,
}

impl Reservation {
    /// Makes the reservation at least `bytes` large; false, and nothing changed, if that is more than is free.
    #[must_use]
    pub fn grow_to(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let Shared {
            held,
            held_late,
            limit,
            scarce,
        } = &*self.admission.0;
        let granted = take(held, more, *limit);
        if self.admission.is_scarce() {
            // A refused one, too: what it held is freed next.
            scarce.notify_one();
        }
        if granted {
            self.bytes += more;
            if self.is_late {
                held_late.fetch_add(more, Ordering::Relaxed);
            }
        }
        granted
    }

    /// Counts it among those of the late lane; false, and nothing changed, if these would then hold more than a half of all.
    ///
    /// One that has the late lane for itself may be larger.
    #[must_use]
    pub fn enter_late(&mut self) -> bool {
        let Shared { held_late, limit, .. } = &*self.admission.0;
        self.is_late = self.is_late
            || take(held_late, self.bytes, limit / 2)
            || held_late
                .compare_exchange(0, self.bytes, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        self.is_late
    }

    /// Gives back what is above `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.admission.0.held.fetch_sub(less, Ordering::Relaxed);
        if self.is_late {
            self.admission.0.held_late.fetch_sub(less, Ordering::Relaxed);
        }
        self.bytes -= less;
    }

    /// Bytes that all reservations together may have.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.admission.limit()
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
    use futures::FutureExt as _;

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

    #[tokio::test]
    async fn it_gets_scarce_when_more_than_a_half_is_held() {
        let admission = Admission::new(100);
        let (mut first, mut second) = (admission.open(), admission.open());
        assert!(first.grow_to(50) && !admission.is_scarce());
        assert_eq!(admission.gets_scarce().now_or_never(), None);
        assert!(second.grow_to(1) && admission.is_scarce());
        assert_eq!(admission.gets_scarce().now_or_never(), Some(()));
        assert_eq!(admission.gets_scarce().now_or_never(), None);
        assert!(!second.grow_to(51));
        assert_eq!(admission.gets_scarce().now_or_never(), Some(()));
    }

    #[test]
    fn late_requests_hold_a_half_or_one_alone_what_it_needs() {
        let admission = Admission::new(100);
        let [mut first, mut second, mut third] = [30, 20, 10].map(|bytes| {
            let mut reservation = admission.open();
            assert!(reservation.grow_to(bytes));
            reservation
        });
        assert!(first.enter_late() && first.enter_late() && second.enter_late());
        assert!(!third.enter_late());
        second.shrink_to(5);
        assert!(third.enter_late());
        drop((first, second, third));
        let mut alone = admission.open();
        assert!(alone.grow_to(90) && alone.enter_late());
        drop(alone);
        assert_eq!(admission.held(), 0);
        assert_eq!(admission.0.held_late.load(Ordering::Relaxed), 0);
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
