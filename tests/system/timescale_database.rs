//! A migrated database for one test, dropped after it; the books must balance at its end.

use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use log_writer_service::{
    config::Database,
    event::{Digest, Level, LogEvent, Timestamp},
    timescale::{
        Books, CommitMode, Committer, EncodedRows, Monitor, Outbox, Snapshot, Source, StoreStatus, WriteRequest,
        connect_pool, migrate,
    },
};
use sqlx::{Connection, Executor, PgConnection, PgPool, postgres::PgConnectOptions};
use uuid::Uuid;

/// 2026-11-20T12:00:00Z in microseconds: no test depends on today's date.
pub(crate) const NOON: i64 = 1_795_176_000_000_000;
/// A day in microseconds: what one chunk spans.
pub(crate) const DAY: i64 = 86_400_000_000;
/// How a batch is committed where the test is not about it.
pub(crate) const MODE: CommitMode = CommitMode {
    lock_timeout: Duration::from_secs(1),
    transaction_timeout: Duration::from_secs(15),
    bisect: false,
};
/// Where events go where the test is not about it.
pub(crate) const STREAM: &str = "logs-app-default";

/// One test's database.
pub(crate) struct TestDatabase {
    pub(crate) settings: Database,
    pub(crate) pool: PgPool,
    pub(crate) outbox: Outbox,
}

/// Runs a test in a database of its own, drops it whatever happens, and looks at the books in between.
pub(crate) async fn with_database(test: impl AsyncFnOnce(&TestDatabase)) {
    with_empty_database(async |database| {
        migrate(&database.settings).await.expect("the migrations run");
        test(database).await;
        books_balance(database).await;
    })
    .await;
}

/// The same without migrations and books.
pub(crate) async fn with_empty_database(test: impl AsyncFnOnce(&TestDatabase)) {
    let server = std::env::var("TEST_DATABASE_URL")
        .expect("TEST_DATABASE_URL names a PostgreSQL server with TimescaleDB on which databases may be created");
    let name = format!("log_writer_test_{}", Uuid::new_v4().simple());
    let options = PgConnectOptions::from_str(&server).expect("TEST_DATABASE_URL is a URL");
    let mut admin = PgConnection::connect_with(&options)
        .await
        .expect("the server of TEST_DATABASE_URL answers");
    admin
        .execute(format!("create database {name}").as_str())
        .await
        .expect("a database can be created");

    assert!(!options.get_host().is_empty(), "TEST_DATABASE_URL names a host");
    let mut url = url::Url::parse(&server).expect("TEST_DATABASE_URL is a URL");
    url.set_path(&name);
    let settings = settings(url.as_str());
    let pool = connect_pool(&settings).await.expect("the pool is made");
    let database = TestDatabase {
        outbox: Outbox::new(pool.clone()),
        pool,
        settings,
    };
    let outcome = AssertUnwindSafe(test(&database)).catch_unwind().await;
    database.pool.close().await;
    admin
        .execute(format!("drop database {name} with (force)").as_str())
        .await
        .expect("the database can be dropped");
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// Settings of a database that is there.
pub(crate) fn settings(url: &str) -> Database {
    toml::from_str(&format!(
        r#"
        url = "{url}"
        committers = 2
        pool_connections_max = 8
        connect_timeout = "5s"
        migrate_on_start = true
        synchronous_commit = "on"
        batch_rows_max = 5000
        batch_bytes_max = "8MB"
        lock_timeout = "1s"
        transaction_timeout = "15s"
        late_after = "1d"
        digest_retention = "6h"
        chunk_interval = "1d"
        dead_letter_bytes_max = "1MiB"
        dead_letters_rows_max = 100000
        dead_letter_retention = "90d"
        audit_retention = "365d"
        "#
    ))
    .expect("the settings are complete")
}

async fn books_balance(database: &TestDatabase) {
    let books = database.books().await;
    let open: i64 = database
        .number("select coalesce(sum(events), 0)::bigint from log_writer.outbox")
        .await;
    let rows: i64 = database.number("select count(*) from public.application_logs").await;
    assert_eq!(
        books.received,
        books.committed + books.duplicates + books.dead_lettered,
        "{books:?}"
    );
    assert_eq!(books.committed, books.mirrored + books.unmirrored, "{books:?}");
    assert_eq!(
        books.mirrored,
        books.indexed + books.index_dead_lettered + books.expired + open,
        "{books:?}, {open} open"
    );
    assert_eq!(books.committed, rows, "the books count the rows of the table");
}

impl TestDatabase {
    pub(crate) async fn committer(&self, name: &str) -> Committer {
        Committer::connect(&self.settings, name)
            .await
            .expect("the committer connects")
    }

    /// A connection beside ours, as another client of the server.
    pub(crate) async fn bystander(&self) -> PgConnection {
        self.pool.acquire().await.expect("a connection").detach()
    }

    pub(crate) async fn status(&self) -> StoreStatus {
        Monitor::new(self.pool.clone())
            .status(Duration::from_secs(10))
            .await
            .expect("the status can be read")
    }

    pub(crate) async fn snapshot(&self) -> Snapshot {
        Monitor::new(self.pool.clone())
            .snapshot(Duration::from_secs(10))
            .await
            .expect("books and backlog can be read")
    }

    pub(crate) async fn books(&self) -> Books {
        self.snapshot().await.books
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect(sql)
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect(sql)
    }

    pub(crate) async fn execute(&self, sql: &str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.expect(sql);
    }

    /// Counts a span of time anew where the counts are continuous aggregates, and stops the jobs, which would count the same at
    /// the same time.
    pub(crate) async fn refresh_aggregates(&self, from: &str, until: &str) {
        let mut connection = self.without_jobs().await;
        for view in COUNTED {
            // At once: by default one transaction for ten buckets each, ten thousand for a few months.
            let call = format!(
                "call refresh_continuous_aggregate('{view}', {from}, {until}, options => '{{\"buckets_per_batch\": 0}}')"
            );
            connection.execute(call.as_str()).await.expect(&call);
        }
    }

    /// Runs jobs of TimescaleDB in their order, as it does every few minutes; those that refresh are one of each of the counts.
    pub(crate) async fn run_jobs(&self, proc_name: &str) -> usize {
        let mut connection = self.without_jobs().await;
        let sql = "select job_id from timescaledb_information.jobs where proc_name = $1 order by job_id";
        let jobs: Vec<i32> = sqlx::query_scalar(sql)
            .bind(proc_name)
            .fetch_all(&mut connection)
            .await
            .expect(sql);
        for job in &jobs {
            let call = format!("call run_job({job})");
            connection.execute(call.as_str()).await.expect(&call);
        }
        jobs.len()
    }

    /// A connection that may take its time, and no jobs beside it.
    async fn without_jobs(&self) -> PgConnection {
        self.stop_jobs().await;
        let mut connection = self.bystander().await;
        // Many days at once take longer than a statement of the service may.
        let statement = "set statement_timeout = 0";
        connection.execute(statement).await.expect(statement);
        connection
    }

    /// Ends TimescaleDB's own jobs in this database, and lets none begin.
    pub(crate) async fn stop_jobs(&self) {
        self.execute("select _timescaledb_functions.stop_background_workers()")
            .await;
    }

    /// Waits until a query answers true.
    pub(crate) async fn until(&self, sql: &str) {
        let deadline = std::time::Instant::now() + log_writer_tests::conditions::SOON;
        while !sqlx::query_scalar::<_, bool>(sql)
            .fetch_one(&self.pool)
            .await
            .expect(sql)
        {
            assert!(std::time::Instant::now() < deadline, "never true: {sql}");
            tokio::task::yield_now().await;
        }
    }
}

/// Continuous aggregates, in the order in which they are made of each other.
const COUNTED: [&str; 6] = [
    "log_stats_1m",
    "log_stats_5m",
    "log_stats_1h",
    "log_stats_1d",
    "log_errors_5m",
    "log_pattern_stats_5m",
];

/// An event that differs from others by its number: its id and its time.
pub(crate) fn event(number: u32) -> LogEvent<'static> {
    LogEvent {
        own_id: Some(id(number)),
        claimed_time: Some(time(number)),
        timestamp: time(number),
        tenant: Arc::from("default"),
        level: Level::Info,
        service: "api".into(),
        host: Some("host-1".into()),
        message: format!("event {number}").into(),
        correlation_id: None,
        user_id: None,
        trace_id: None,
        span_id: None,
        tags: vec!["a".into(), "b,\"c\"".into()],
        fields: r#"{"n": 1}"#.into(),
        error_details: None,
        performance_metrics: None,
        ai_analysis: None,
    }
}

/// The id of [`event`].
pub(crate) fn id(number: u32) -> Uuid {
    Uuid::from_u128(0x0193_4c00_0000_7000_8000_0000_0000_0000 + u128::from(number))
}

/// The id that stands in when that of [`event`] is taken.
pub(crate) fn derived(number: u32) -> Uuid {
    Uuid::from_u128(0x0193_4c00_0000_7000_9000_0000_0000_0000 + u128::from(number))
}

/// The time of [`event`].
pub(crate) fn time(number: u32) -> Timestamp {
    Timestamp(NOON + i64::from(number) * 1_000)
}

/// A request with these events, told from others by its seed.
pub(crate) fn request(seed: &str, events: &[LogEvent<'_>]) -> WriteRequest {
    request_to(seed, events, Some(STREAM))
}

/// The same, going somewhere else or nowhere.
pub(crate) fn request_to(seed: &str, events: &[LogEvent<'_>], target: Option<&str>) -> WriteRequest {
    let target: Option<Arc<str>> = target.map(Arc::from);
    let mut rows = EncodedRows::new();
    for (row, event) in events.iter().enumerate() {
        rows.push(event, Timestamp(NOON), target.as_ref());
        let id = event.own_id.expect("events of these tests have an id");
        rows.set_ids(row, id, Uuid::from_u128(id.as_u128() | 0x1000 << 48));
    }
    WriteRequest {
        digest: digest(seed),
        received: u32::try_from(events.len()).expect("a small number"),
        rows,
        dead_letters: Vec::new(),
        body: Bytes::from(format!("body of {seed}")),
        source: Arc::new(Source {
            tenant: Arc::from("default"),
            address: Some([127, 0, 0, 1].into()),
            content_type: Some("application/json".to_owned()),
            content_encoding: None,
            path: "/ingest".to_owned(),
        }),
    }
}

/// A digest told from others by its seed.
pub(crate) fn digest(seed: &str) -> Digest {
    let mut bytes = [0; 32];
    for (place, byte) in bytes.iter_mut().zip(seed.bytes()) {
        *place = byte;
    }
    Digest(bytes)
}
