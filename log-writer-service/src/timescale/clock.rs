//! PostgreSQL's clock, for all that is judged by the time of day: one clock for all replicas, whatever theirs say.
//!
//! It is asked now and then, and carried on by the monotonic clock in between. So a replica whose wall clock is wrong, or
//! jumps, takes and refuses the same times as the others.

use std::time::Instant;

use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;

use super::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
};
use crate::event::Timestamp;

/// The clock. Clones share what was asked.
#[derive(Debug, Clone)]
pub struct Clock(watch::Sender<Option<Look>>);

#[derive(Debug, Clone, Copy)]
struct Look {
    time: Timestamp,
    at: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Clock {
    /// Asks PostgreSQL.
    ///
    /// # Errors
    /// As any query; the clock then goes on as before.
    pub async fn look(&self, pool: &PgPool) -> Result<(), StoreError> {
        let (time, at) = on_pool(
            pool,
            ANSWER_TIMEOUT,
            "ask PostgreSQL for the time",
            async |connection| {
                let asked = Instant::now();
                let time = ask(connection).await?;
                // Half of the way there and back.
                Ok((time, asked + asked.elapsed() / 2))
            },
        )
        .await?;
        self.0.send_replace(Some(Look { time, at }));
        Ok(())
    }

    /// The time; waits until PostgreSQL was asked once.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn now(&self) -> Timestamp {
        loop {
            let look = *self.0.borrow();
            match look {
                Some(look) => return look.carried_on(),
                // It cannot fail: `self` holds the sender.
                None => drop(self.0.subscribe().wait_for(Option::is_some).await),
            }
        }
    }
}

impl Look {
    fn carried_on(self) -> Timestamp {
        let passed = i64::try_from(self.at.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp(self.time.0.saturating_add(passed))
    }
}

/// PostgreSQL's time of day.
///
/// # Errors
/// As any query.
pub(super) async fn ask(connection: &mut PgConnection) -> Result<Timestamp, StoreError> {
    sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000000)::bigint")
        .fetch_one(connection)
        .await
        .map(Timestamp)
        .map_err(StoreError::during("ask PostgreSQL for the time"))
}
