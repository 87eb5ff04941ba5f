//! The audit trail, `log_writer.audit`: who did what and when, one row for each action of a person or a program.
//!
//! What is one transaction is recorded in it: [`record_in`] with its outcome. What takes several is begun as `running` in one of
//! its own, each of the others adds its count by [`progress`], and the last call ends it. So nothing happens that is not
//! recorded, and a killed action stays `running` with the count of what it did. A target holds filters and names, never
//! what a body or a secret holds; a dry run changes nothing and shows counts only, so it is not recorded.

use std::{fmt, net::IpAddr, os::unix::fs::MetadataExt};

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgConnection, PgExecutor, PgPool};

use super::{
    error::StoreError,
    limits::{ANSWER_TIMEOUT, on_pool},
};
use crate::event::Timestamp;

/// What was attempted, for errors.
const RECORDING: &str = "record the action in log_writer.audit";

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    name: String,
    address: Option<IpAddr>,
}

impl Actor {
    /// The user of the operating system whom this process runs as: for commands, and for what the service does itself.
    #[must_use]
    pub fn of_process() -> Self {
        let uid = std::fs::metadata("/proc/self").map(|process| process.uid()).ok();
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = match uid {
            Some(uid) => user_name(&users, uid).unwrap_or_else(|| uid.to_string()),
            None => "unknown".to_owned(),
        };
        Self {
            name: format!("os:{user}@{}", gethostname::gethostname().to_string_lossy()),
            address: None,
        }
    }

    /// Who sent a request: the token's name, or `anonymous` where nobody is asked for one.
    #[must_use]
    pub fn of_request(token: Option<&str>, address: Option<IpAddr>) -> Self {
        Self {
            name: token.map_or_else(|| "anonymous".to_owned(), |token| format!("token:{token}")),
            address,
        }
    }
}

impl Actor {
    /// Where the request came from.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

fn user_name(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// How an action stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActionOutcome {
    /// More is to come.
    Running,
    /// It did what it was to do.
    Done,
    /// It ended early; what it did until then is counted.
    Failed,
}

impl ActionOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// Number of a recorded action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionId(i64);

impl fmt::Display for ActionId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Records an action of which `affected` are done.
///
/// # Errors
/// As any query; what is not recorded must not be done.
pub async fn record(
    pool: &PgPool,
    actor: &Actor,
    action: &str,
    target: &Value,
    affected: i64,
    outcome: ActionOutcome,
) -> Result<ActionId, StoreError> {
    on_pool(pool, ANSWER_TIMEOUT, RECORDING, async |connection| {
        record_in(connection, actor, action, target, affected, outcome).await
    })
    .await
}

/// Records an action of which `affected` are done in the transaction of the executor that does it.
///
/// # Errors
/// As [`record`].
pub(super) async fn record_in(
    executor: impl PgExecutor<'_>,
    actor: &Actor,
    action: &str,
    target: &Value,
    affected: i64,
    outcome: ActionOutcome,
) -> Result<ActionId, StoreError> {
    sqlx::query_scalar("select log_writer.record_action($1, $2, $3::text::inet, $4, $5, $6)")
        .bind(action)
        .bind(&actor.name)
        .bind(actor.address.map(|address| address.to_string()))
        .bind(target)
        .bind(affected)
        .bind(outcome.as_str())
        .fetch_one(executor)
        .await
        .map(ActionId)
        .map_err(StoreError::during(RECORDING))
}

/// Counts what an action that is running did, in the transaction of the executor that does it, or ends it.
///
/// # Errors
/// As any query; what is not recorded must not be done.
pub async fn progress(
    executor: impl PgExecutor<'_>,
    action: ActionId,
    affected: i64,
    outcome: ActionOutcome,
) -> Result<(), StoreError> {
    sqlx::query("select log_writer.record_progress($1, $2, $3)")
        .bind(action.0)
        .bind(affected)
        .bind(outcome.as_str())
        .execute(executor)
        .await
        .map(|_| ())
        .map_err(StoreError::during(RECORDING))
}

/// Notes in an action that is running by how many events it corrected the books, in the transaction that does it.
///
/// # Errors
/// As any query; what is not recorded must not be done.
pub(super) async fn correction(executor: impl PgExecutor<'_>, action: ActionId, events: i64) -> Result<(), StoreError> {
    sqlx::query("select log_writer.record_correction($1, $2)")
        .bind(action.0)
        .bind(events)
        .execute(executor)
        .await
        .map(|_| ())
        .map_err(StoreError::during(RECORDING))
}

/// Ends an action after its last transaction; `failed` tells how that was.
///
/// # Errors
/// As any query; what was done is counted all the same.
pub async fn end(pool: &PgPool, action: ActionId, failed: bool) -> Result<(), StoreError> {
    let outcome = if failed {
        ActionOutcome::Failed
    } else {
        ActionOutcome::Done
    };
    end_with(pool, action, 0, outcome).await
}

/// Ends an action that affected so many rows.
///
/// # Errors
/// As any query.
pub async fn end_with(
    pool: &PgPool,
    action: ActionId,
    affected: i64,
    outcome: ActionOutcome,
) -> Result<(), StoreError> {
    on_pool(pool, ANSWER_TIMEOUT, RECORDING, async |connection| {
        progress(connection, action, affected, outcome).await
    })
    .await
}

/// Which rows of the trail are asked for; what is not given matches all.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Begun at this time or later.
    pub since: Option<Timestamp>,
    /// Begun before this time.
    pub until: Option<Timestamp>,
    /// The beginning of the actor's name: `os:alice`.
    pub actor: Option<String>,
    /// The action, exactly.
    pub action: Option<String>,
}

/// One row of the trail.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct AuditRow {
    /// Its number.
    pub id: i64,
    /// When it began.
    pub at: DateTime<Utc>,
    /// What was done.
    pub action: String,
    /// Who did it, as the service says.
    pub actor: String,
    /// Who did it, as the database knows.
    pub database_role: String,
    /// From where.
    pub source_address: Option<String>,
    /// To what.
    pub target: Value,
    /// To how many.
    pub affected: i64,
    /// `running`, `done` or `failed`.
    pub outcome: String,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

impl AuditFilter {
    /// The newest rows that match, newest first.
    ///
    /// # Errors
    /// [`super::StoreErrorKind::Setup`] if the role may not read the trail.
    pub async fn list(&self, pool: &PgPool, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
        sqlx::query_as(
            "select id, at, action, actor, database_role::text, host(source_address) as source_address, target, affected,
               outcome, ended_at
             from log_writer.audit
             where ($1::timestamptz is null or at >= $1) and ($2::timestamptz is null or at < $2)
               and ($3::text is null or starts_with(actor, $3)) and ($4::text is null or action = $4)
             order by at desc, id desc limit $5",
        )
        .bind(self.since.map(DateTime::<Utc>::from))
        .bind(self.until.map(DateTime::<Utc>::from))
        .bind(self.actor.as_deref())
        .bind(self.action.as_deref())
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(StoreError::during("read log_writer.audit"))
    }
}

/// Deletes rows older than the owner's `database.audit_retention`; how many.
///
/// # Errors
/// As any query; what was deleted before stays deleted.
pub async fn purge_audit(pool: &PgPool) -> Result<u64, StoreError> {
    let attempted = "purge the audit trail";
    let mut purged = 0;
    loop {
        let gone: i64 = on_pool(pool, ANSWER_TIMEOUT, attempted, async |connection| {
            sqlx::query_scalar("select log_writer.purge_audit()")
                .fetch_one(connection)
                .await
                .map_err(StoreError::during(attempted))
        })
        .await?;
        purged += u64::try_from(gone).unwrap_or_default();
        if gone == 0 {
            return Ok(purged);
        }
    }
}

/// Keeps what the migrator was told, where the service's own role cannot change it.
pub(super) async fn set_retention(
    connection: &mut PgConnection,
    retention: std::time::Duration,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into log_writer.settings (name, value) values ('audit_retention', $1)
         on conflict (name) do update set value = excluded.value where settings.value <> excluded.value",
    )
    .bind(format!("{} seconds", retention.as_secs()))
    .execute(connection)
    .await
    .map(|_| ())
    .map_err(StoreError::during("note database.audit_retention"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_by_the_third_field_of_its_line() {
        let users = "root:x:0:0:root:/root:/bin/sh\n# 7\nalice:x:1000:7::/home/alice:/bin/sh\n";
        assert_eq!(user_name(users, 0).as_deref(), Some("root"));
        assert_eq!(user_name(users, 1000).as_deref(), Some("alice"));
        assert_eq!(user_name(users, 7), None);
    }

    #[test]
    fn a_command_is_told_by_user_and_host() {
        let actor = Actor::of_process().to_string();
        assert!(actor.starts_with("os:") && actor.contains('@'), "{actor}");
    }
}
