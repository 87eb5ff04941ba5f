//! What the service does now and then while it runs: housekeeping, counts, retention, dead letters.

use std::time::{Duration, Instant};

use super::Store;
use crate::timescale;

/// How often housekeeping runs.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(5);
/// How often retention and quota of the dead letters are looked at.
const LETTERS_EVERY: Duration = Duration::from_secs(60);
/// How often counts are brought up to date and what is too old is dropped.
const HISTORY_EVERY: Duration = Duration::from_secs(60);

impl Store {
    /// Looks after what is due until it is dropped.
    pub(super) async fn keep_house(&self) {
        let mut letters_due = Instant::now();
        let mut history_due = Instant::now();
        let mut was_over_quota = false;
        loop {
            tokio::time::sleep(HOUSEKEEPING_EVERY).await;
            if let Err(error) = self.ingestor.clock().look(&self.pool).await {
                tracing::warn!(%error, "PostgreSQL's clock could not be read; the last reading is carried on");
            }
            if Instant::now() >= letters_due {
                letters_due = Instant::now() + LETTERS_EVERY;
                was_over_quota = self.look_after_letters(was_over_quota).await;
            }
            if Instant::now() >= history_due {
                history_due = Instant::now() + HISTORY_EVERY;
                self.look_after_history().await;
            }
            let ready_for = self.readiness.ready_for();
            if let Err(error) =
                timescale::housekeep(&self.pool, &self.config.database, ready_for.unwrap_or_default()).await
            {
                tracing::warn!(%error, "housekeeping failed; it is tried again");
            }
        }
    }

    /// Counts on the Apache edition, retention on both, of the audit trail too.
    async fn look_after_history(&self) {
        if let Err(error) = timescale::refresh_stats(&self.pool).await {
            tracing::warn!(%error, "counting events for log_stats failed; it is tried again");
        }
        match timescale::purge_audit(&self.pool).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(
                row.count = rows,
                "deleted rows of the audit trail older than database.audit_retention"
            ),
            Err(error) => tracing::warn!(%error, "purging the audit trail failed; it is tried again"),
        }
        if !self.config.elasticsearch.enabled
            && let Err(error) = timescale::forget_annotated(&self.pool).await
        {
            tracing::warn!(%error, "forgetting annotated events failed; it is tried again");
        }
        match timescale::expire(&self.pool, &self.config.retention).await {
            Ok(0) => {}
            Ok(chunks) => {
                tracing::info!(
                    chunk.count = chunks,
                    "dropped chunks of events older than retention.events"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "dropping what is older than retention.events failed; it is tried again");
            }
        }
    }

    /// Retention and quota of dead letters; whether there are more than the quota.
    async fn look_after_letters(&self, was_over_quota: bool) -> bool {
        let settings = &self.config.database;
        let done = match timescale::upkeep_letters(&self.pool, settings).await {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(%error, "looking after the dead letters failed; it is tried again");
                return was_over_quota;
            }
        };
        if done.expired > 0 {
            tracing::info!(
                letter.count = done.expired,
                "deleted dead letters older than database.dead_letter_retention"
            );
        }
        if done.is_over_quota && !was_over_quota {
            tracing::warn!(
                limit = settings.dead_letters_rows_max,
                "more dead letters than database.dead_letters_rows_max; look at them with `log-writer-service dead-letters \
                 list --summary`"
            );
        }
        done.is_over_quota
    }
}
