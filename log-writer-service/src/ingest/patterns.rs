//! Which kinds of messages this process has noted, and the task that notes new ones in `log_patterns`.
//!
//! Beside the way of an event: nothing waits for it. What does not fit into its queue is noted with the next event of
//! its kind.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    event::{LogEvent, mask},
    timescale::{NewPattern, note_patterns},
};

/// Kinds that wait to be noted; a burst of new ones beyond this comes again.
const WAITING_MAX: usize = 1_000;
/// Kinds that one process notes until it forgets, of a tenant and in all: messages without a pattern in them make one each,
/// and those of one tenant must not keep another's out.
const KNOWN_MAX: (usize, usize) = (10_000, 50_000);
/// How often it forgets what it noted, and so may note again: a kind that is there already changes nothing.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// Pause after the database could not take them.
const PAUSE: Duration = Duration::from_secs(5);

/// Notes kinds of messages. Clones share what is known.
#[derive(Debug, Clone)]
pub struct Patterns {
    known: Arc<RwLock<Known>>,
    waiting: mpsc::Sender<NewPattern>,
}

/// What was noted since the last time that all was forgotten.
#[derive(Debug, Default)]
struct Known {
    patterns: HashMap<Arc<str>, HashSet<i64>>,
    count: usize,
}

impl Known {
    /// Whether one is to be noted.
    fn lacks(&self, tenant: &str, pattern: i64) -> bool {
        let of_tenant = self.patterns.get(tenant);
        self.count < KNOWN_MAX.1 && of_tenant.is_none_or(|known| known.len() < KNOWN_MAX.0 && !known.contains(&pattern))
    }

    fn add(&mut self, tenant: &Arc<str>, pattern: i64) {
        let is_new = match self.patterns.get_mut(tenant) {
            Some(known) => known.insert(pattern),
            None => self
                .patterns
                .insert(Arc::clone(tenant), HashSet::from([pattern]))
                .is_none(),
        };
        self.count += usize::from(is_new);
    }
}

/// The other end: what is to be noted.
#[derive(Debug)]
pub struct NewPatterns {
    known: Arc<RwLock<Known>>,
    arriving: mpsc::Receiver<NewPattern>,
}

impl Patterns {
    /// Knows none.
    #[must_use]
    pub fn new() -> (Self, NewPatterns) {
        let (waiting, arriving) = mpsc::channel(WAITING_MAX);
        let known: Arc<RwLock<Known>> = Arc::default();
        let new = NewPatterns {
            known: Arc::clone(&known),
            arriving,
        };
        (Self { known, waiting }, new)
    }

    /// Hands a kind on if it is new.
    pub(super) fn note(&self, event: &LogEvent<'_>, pattern: i64) {
        let is_new = |known: &Known| known.lacks(&event.tenant, pattern);
        if !is_new(&self.known.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let new = NewPattern {
            tenant: Arc::clone(&event.tenant),
            pattern,
            level: event.level,
            service: event.service.clone().into_owned(),
            template: mask(&event.message),
            first_seen: event.timestamp,
        };
        if self.waiting.try_send(new).is_ok() {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            known.add(&event.tenant, pattern);
        }
    }
}

impl NewPatterns {
    /// Notes what arrives until told to stop.
    pub async fn keep(mut self, pool: PgPool, stopping: CancellationToken) {
        stopping.run_until_cancelled(self.keep_on(&pool)).await;
    }

    async fn keep_on(&mut self, pool: &PgPool) {
        let mut forget = tokio::time::interval(FORGET_EVERY);
        let mut new = Vec::new();
        loop {
            tokio::select! {
                arrived = self.arriving.recv_many(&mut new, WAITING_MAX) => if arrived == 0 {
                    return;
                },
                _ = forget.tick() => {
                    *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known::default();
                    continue;
                }
            }
            while let Err(error) = note_patterns(pool, &new).await {
                tracing::debug!(%error, pattern.count = new.len(), "kinds of messages were not noted; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
            new.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_with_endless_kinds_keeps_no_other_out() {
        let (one, other): (Arc<str>, Arc<str>) = (Arc::from("one"), Arc::from("other"));
        let mut known = Known::default();
        for pattern in 0..100_000 {
            if known.lacks(&one, pattern) {
                known.add(&one, pattern);
            }
        }
        assert_eq!(known.count, KNOWN_MAX.0);
        assert!(known.lacks(&other, 7));
        known.add(&other, 7);
        assert!(!known.lacks(&other, 7), "it is known now");
        assert!(known.lacks(&other, 8));
    }

    #[test]
    fn what_is_remembered_of_all_tenants_is_limited() {
        let mut known = Known::default();
        for tenant in 0..100_000 {
            let tenant: Arc<str> = Arc::from(tenant.to_string());
            if known.lacks(&tenant, 1) {
                known.add(&tenant, 1);
            }
        }
        assert_eq!((known.count, known.patterns.len()), (KNOWN_MAX.1, KNOWN_MAX.1));
    }
}
