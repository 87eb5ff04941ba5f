//! What the service does now and then while it runs: housekeeping, counts, retention, dead letters.

use std::time::Duration;

use super::Store;
use crate::timescale;

/// How often housekeeping runs.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(5);
/// How often counts are brought up to date, what is too old is dropped, and the dead letters are counted.
const RETENTION_EVERY: Duration = Duration::from_secs(60);

impl Store {
    /// Looks after what is due until it is dropped, in four loops at once: a count may take half an hour.
    pub(super) async fn keep_house(&self) {
        let sessions = async {
            loop {
                tokio::time::sleep(HOUSEKEEPING_EVERY).await;
                self.end_hanging_sessions().await;
            }
        };
        let house = async {
            loop {
                tokio::time::sleep(HOUSEKEEPING_EVERY).await;
                self.look_at_clock().await;
                self.housekeep().await;
            }
        };
        let counts = async {
            tokio::time::sleep(HOUSEKEEPING_EVERY).await;
            loop {
                self.count_events().await;
                tokio::time::sleep(RETENTION_EVERY).await;
            }
        };
        let retention = async {
            tokio::time::sleep(HOUSEKEEPING_EVERY).await;
            let mut is_over_quota = false;
            loop {
                is_over_quota = self.look_after_letters(is_over_quota).await;
                self.drop_what_is_old().await;
                tokio::time::sleep(RETENTION_EVERY).await;
            }
        };
        tokio::join!(sessions, house, counts, retention);
    }

    async fn end_hanging_sessions(&self) {
        match timescale::end_hanging_sessions(&self.pool, &self.config.database).await {
            Ok(0) => {}
            Ok(sessions) => tracing::warn!(
                session.count = sessions,
                "ended sessions of this service that hung in PostgreSQL: of a process that was frozen, or waiting for a standby"
            ),
            Err(error) => tracing::warn!(%error, "sessions that hang could not be looked for; it is tried again"),
        }
    }

    async fn look_at_clock(&self) {
        if let Err(error) = self.ingestor.clock().look(&self.pool).await {
            tracing::warn!(%error, "PostgreSQL's clock could not be read; the last reading is carried on");
        }
    }

    async fn housekeep(&self) {
        let ready_for = self.readiness.ready_for().unwrap_or_default();
        if let Err(error) = timescale::housekeep(&self.pool, &self.config.database, ready_for).await {
            tracing::warn!(%error, "housekeeping failed; it is tried again");
        }
    }

    /// Brings the counts of `log_stats` up to date where no continuous aggregate does: on the Apache edition.
    async fn count_events(&self) {
        if let Err(error) = timescale::refresh_stats(&self.pool).await {
            tracing::warn!(%error, "counting events for log_stats failed; it is tried again");
        }
    }

    /// Retention of events and counts, and of the audit trail.
    async fn drop_what_is_old(&self) {
        match timescale::purge_audit(&self.pool).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(
                row.count = rows,
                "deleted rows of the audit trail older than database.audit_retention"
            ),
            Err(error) => tracing::warn!(%error, "purging the audit trail failed; it is tried again"),
        }
        if !self.config.elasticsearch.enabled {
            self.forget_annotated().await;
            self.warn_of_stranded_outbox().await;
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

    async fn forget_annotated(&self) {
        if let Err(error) = timescale::forget_annotated(&self.pool).await {
            tracing::warn!(%error, "forgetting annotated events failed; it is tried again");
        }
    }

    async fn warn_of_stranded_outbox(&self) {
        match timescale::Questions::mirror_age(&self.pool).await {
            Ok(Duration::ZERO) => {}
            Ok(age) => tracing::warn!(
                oldest.age_s = age.as_secs(),
                "events wait in the outbox for Elasticsearch, which is off (elasticsearch.enabled), and retention keeps all that is as \
                 old; run one service with it on, or give them up: docs/OPERATIONS.md, \"After an outage of Elasticsearch\""
            ),
            Err(error) => tracing::warn!(%error, "the outbox could not be read; it is tried again"),
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
