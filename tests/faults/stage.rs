//! What the tests of `stalls`, `gone_wrong` and `clocks` stand on: real stores, one service, and what must hold at the end.

use std::{
    io,
    time::{Duration, Instant},
};

use log_writer_tests::{
    client::{Answer, Request},
    conditions::{SOON, eventually},
    invariants::assert_delivered_exactly_once,
    rows::{DeadLetterRow, dead_letters},
    service::{Service, Settings},
    stack::{Database, Stream},
    traffic::{Traffic, send_aside},
};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// Real stores and a service.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) service: Service,
    pub(crate) settings: Settings,
    pub(crate) database: Database,
    pub(crate) stream: Stream,
}

impl Stage {
    pub(crate) async fn start(set: impl FnOnce(Settings) -> Settings) -> Self {
        Self::on(Database::create().await, set).await
    }

    /// The same, with a database of another server.
    pub(crate) async fn on(database: Database, set: impl FnOnce(Settings) -> Settings) -> Self {
        let stream = Stream::create().await;
        let settings = set(Settings::new(database.url(), stream.search.url(), &stream.tenant));
        let service = Service::start(settings.clone()).await;
        Self {
            service,
            settings,
            database,
            stream,
        }
    }

    /// Runs statements as a superuser would.
    pub(crate) async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sql).execute(self.database.pool()).await.expect(sql);
    }

    /// Begins a transaction of somebody else's and leaves it open.
    pub(crate) async fn hold(&self, sql: &str) -> PgConnection {
        let mut holder = PgConnection::connect(self.database.url()).await.expect("connected");
        holder.execute("begin").await.expect("begun");
        sqlx::raw_sql(sql).execute(&mut holder).await.expect(sql);
        holder
    }

    /// The chunk that holds this time.
    pub(crate) async fn chunk_of(&self, hours_ago: i64) -> String {
        sqlx::query_scalar(
            "select format('%I.%I', chunk_schema, chunk_name) from timescaledb_information.chunks
             where hypertable_name = 'application_logs'
               and now() - $1 * interval '1 hour' >= range_start and now() - $1 * interval '1 hour' < range_end",
        )
        .bind(hours_ago)
        .fetch_one(self.database.pool())
        .await
        .expect("there is such a chunk")
    }

    pub(crate) async fn is_community(&self) -> bool {
        sqlx::query_scalar("select log_writer.timescale_edition() = 'community'")
            .fetch_one(self.database.pool())
            .await
            .expect("the edition")
    }

    /// Senders of events as `event` makes them.
    pub(crate) fn traffic(&self, senders: usize, event: impl Fn() -> Value + Send + Sync + 'static) -> Traffic {
        Traffic::start(self.service.address(), senders, event)
    }

    /// Sends a request without waiting for its answer.
    pub(crate) fn send_aside(&self, request: Request) -> Aside {
        Aside::to(&self.service, request)
    }

    /// Waits until a committer of ours waits for a lock.
    pub(crate) async fn until_a_lock_is_waited_for(&self) {
        let waits = "select count(*) from pg_stat_activity where datname = current_database()
                     and application_name like 'log-writer committer%' and wait_event_type = 'Lock'";
        eventually("a committer to wait for a lock", SOON, || async {
            (self.database.number(waits).await > 0).then_some(())
        })
        .await;
    }

    /// Waits until somebody who reads the status is told that nothing can be committed, and why.
    pub(crate) async fn until_not_ready(&self, told: &str) {
        let what = format!("the service to be not ready because of `{told}`");
        self.service
            .until_status(&what, |status| {
                status["ready"] == false && status["problem"].as_str().is_some_and(|problem| problem.contains(told))
            })
            .await;
    }

    pub(crate) async fn letters(&self) -> Vec<DeadLetterRow> {
        dead_letters(self.database.pool()).await
    }

    /// Everything acknowledged stands once in both stores, and nothing else does.
    pub(crate) async fn assert_nothing_lost_or_doubled(&self, acknowledged: u64) {
        self.service.until_delivered().await;
        let documents = self.stream.search.documents(&self.stream.name()).await;
        assert_delivered_exactly_once(&self.service, &self.database, &documents, acknowledged).await;
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct Aside(JoinHandle<io::Result<Answer>>);

impl Aside {
    pub(crate) fn to(service: &Service, request: Request) -> Self {
        Self(send_aside(service.address(), request))
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.0.is_finished()
    }

    pub(crate) async fn answer(self) -> Answer {
        self.0.await.expect("it was sent").expect("an answer")
    }
}

/// An event of so many hours ago.
pub(crate) fn event(hours_ago: i64) -> Value {
    event_at(chrono::Utc::now() - chrono::Duration::hours(hours_ago))
}

pub(crate) fn event_at(time: chrono::DateTime<chrono::Utc>) -> Value {
    json!({ "event_id": Uuid::now_v7(), "timestamp": time.to_rfc3339(), "level": "info", "service": "faults",
        "message": "an event" })
}

/// Lets time pass while something is held up.
pub(crate) async fn pass(time: Duration) {
    let begun = Instant::now();
    eventually("time to pass", time + SOON, || {
        std::future::ready((begun.elapsed() >= time).then_some(()))
    })
    .await;
}
