//! Which kinds of messages this process has noted, and the task that notes new ones in `log_patterns`.
//!
//! Beside the way of an event: nothing waits for it. What does not fit into its queue is noted with the next event of
//! its kind.

use std::{
    collections::HashSet,
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
/// Kinds that one process remembers, and thereby notes: messages without a pattern in them make one each.
const KNOWN_MAX: usize = 50_000;
/// Pause after the database could not take them.
const PAUSE: Duration = Duration::from_secs(5);

/// Tenant and pattern.
type Kind = (Arc<str>, i64);

/// Notes kinds of messages. Clones share what is known.
#[derive(Debug, Clone)]
pub struct Patterns {
    known: Arc<RwLock<HashSet<Kind>>>,
    waiting: mpsc::Sender<NewPattern>,
}

/// The other end: what is to be noted.
#[derive(Debug)]
pub struct NewPatterns {
    arriving: mpsc::Receiver<NewPattern>,
}

impl Patterns {
    /// Knows none.
    #[must_use]
    pub fn new() -> (Self, NewPatterns) {
        let (waiting, arriving) = mpsc::channel(WAITING_MAX);
        let known = Arc::default();
        (Self { known, waiting }, NewPatterns { arriving })
    }

    /// Hands a kind on if it is new.
    pub(super) fn note(&self, event: &LogEvent<'_>, pattern: i64) {
        let key = (Arc::clone(&event.tenant), pattern);
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= KNOWN_MAX || known.contains(&key) {
                return;
            }
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
            self.known.write().unwrap_or_else(PoisonError::into_inner).insert(key);
        }
    }
}

impl NewPatterns {
    /// Notes what arrives until told to stop.
    pub async fn keep(mut self, pool: PgPool, stopping: CancellationToken) {
        stopping.run_until_cancelled(self.keep_on(&pool)).await;
    }

    async fn keep_on(&mut self, pool: &PgPool) {
        let mut new = Vec::new();
        while self.arriving.recv_many(&mut new, WAITING_MAX).await > 0 {
            while let Err(error) = note_patterns(pool, &new).await {
                tracing::debug!(%error, pattern.count = new.len(), "kinds of messages were not noted; it is tried again");
                tokio::time::sleep(PAUSE).await;
            }
            new.clear();
        }
    }
}
