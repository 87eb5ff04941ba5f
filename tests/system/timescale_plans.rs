//! How the functions find their answer: through an index, in the chunks of the time that was asked for, and in no other.
//!
//! `auto_explain` sends the plan of each statement, those inside functions too, as a notice.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use log_writer_service::timescale::migrate;
use sqlx::{Connection, Executor, PgConnection};
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    instrument::WithSubscriber,
    span,
};

use crate::timescale_database::{TestDatabase, with_empty_database};

/// Ten days of events, a hundred users, one correlation id for every three events.
const SAMPLE: &str = "
insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message, correlation_id, user_id, trace_id)
select md5(i::text)::uuid, now() - i * interval '21.6 s', now(), i / 100, 'default',
  (array['INFO', 'WARN', 'DEBUG', 'ERROR', 'INFO', 'INFO', 'INFO', 'INFO', 'INFO', 'INFO'])[1 + i % 10], 'svc-' || i % 7,
  'message ' || i, 'c' || i / 3, 'user-' || i % 101, md5('t' || i / 5)
from generate_series(1, 40000) i;
analyze application_logs";

/// The plan of what a statement runs inside of functions, with what each node did.
async fn plan(database: &TestDatabase, statement: &str) -> String {
    let mut connection = PgConnection::connect_with(&database.pool.connect_options())
        .await
        .expect("a connection");
    connection
        .execute(
            "load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_nested_statements = on;
             set auto_explain.log_analyze = on; set auto_explain.log_timing = off; set client_min_messages = log",
        )
        .await
        .expect("auto_explain is part of PostgreSQL");
    let notices = Notices::default();
    connection
        .execute(statement)
        .with_subscriber(Dispatch::new(notices.clone()))
        .await
        .expect(statement);
    let plans = notices.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(plans.contains("application_logs"), "no plan was sent: {plans:?}");
    plans
}

/// Chunks of events of which something was read.
fn chunks_read(plan: &str) -> BTreeSet<&str> {
    plan.lines()
        .filter(|line| line.contains(" on _hyper_") && line.contains("Scan") && !line.contains("never executed"))
        .filter_map(|line| line.split(" on ").nth(1)?.split_whitespace().next())
        // The others are indexes.
        .filter(|name| name.ends_with("_chunk"))
        .collect()
}

fn is_read_by(plan: &str, index: &str) {
    assert!(plan.contains(&format!("_{index}")), "{index} is not used:\n{plan}");
    let scans: Vec<&str> = plan
        .lines()
        .filter(|line| line.contains("Seq Scan on _hyper_") && !line.contains("never executed"))
        .collect();
    assert!(scans.is_empty(), "whole chunks are read: {scans:#?}\n{plan}");
}

async fn with_ten_days(test: impl AsyncFnOnce(&TestDatabase)) {
    with_empty_database(async |database| {
        migrate(&database.settings).await.expect("the migrations run");
        database.execute(SAMPLE).await;
        test(database).await;
    })
    .await;
}

#[tokio::test]
async fn search_logs_reads_the_index_of_what_it_is_given_in_the_chunks_of_its_time() {
    with_ten_days(async |database| {
        let day = "p_start_time := now() - interval '1 hour'";
        for (arguments, index, chunks_max) in [
            (format!("p_level := 'ERROR', p_user_id := 'user-7', {day}"), "application_logs_", 2),
            ("p_user_id := 'user-7', p_start_time := now() - interval '9 days'".to_owned(), "application_logs_user_id_timestamp_idx", 10),
            (format!("p_level := 'ERROR', p_service := 'svc-1', {day}"), "application_logs_", 2),
            (String::new(), "application_logs_timestamp_idx", 2),
            ("p_correlation_id := 'c7000'".to_owned(), "application_logs_correlation_id_timestamp_idx", 11),
            ("p_trace_id := 'abc'".to_owned(), "application_logs_trace_id_timestamp_idx", 11),
            (
                "p_start_time := now() - interval '5 days 1 hour', p_end_time := now() - interval '5 days', p_query := 'message'".to_owned(),
                "application_logs_timestamp_idx",
                2,
            ),
        ] {
            let plan = plan(database, &format!("select * from search_logs({arguments})")).await;
            is_read_by(&plan, index);
            let chunks = chunks_read(&plan);
            assert!(chunks.len() <= chunks_max, "{arguments} reads {chunks:?}\n{plan}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_of_search_logs_reads_no_newer_chunk_and_no_more_than_it_gives() {
    with_ten_days(async |database| {
        let before = database
            .text("select page_end from search_logs(p_end_time := now() - interval '6 days', p_limit := 1)")
            .await;
        let plan = plan(
            database,
            &format!("select * from search_logs(p_before := '{before}', p_limit := 50)"),
        )
        .await;
        is_read_by(&plan, "application_logs_timestamp_idx");
        assert!(chunks_read(&plan).len() <= 2, "{plan}");
    })
    .await;
}

#[tokio::test]
async fn traces_contexts_and_errors_are_found_through_their_indexes() {
    with_ten_days(async |database| {
        let trace = plan(database, "select * from trace_logs('c7000')").await;
        is_read_by(&trace, "application_logs_correlation_id_timestamp_idx");
        is_read_by(&trace, "application_logs_trace_id_timestamp_idx");
        let context = plan(database, "select * from get_log_context(md5('20000')::uuid)").await;
        is_read_by(&context, "application_logs_pkey");
        let errors = plan(database, "select * from get_error_stats(interval '2 hours')").await;
        assert!(
            chunks_read(&errors).len() <= 6,
            "the chunks of two hours, and of the counts:\n{errors}"
        );
        assert!(errors.contains("application_logs_errors_timestamp_idx"), "{errors}");
    })
    .await;
}

/// Keeps what PostgreSQL says: sqlx gives notices to `tracing` alone.
#[derive(Debug, Clone, Default)]
struct Notices(Arc<Mutex<String>>);

impl Subscriber for Notices {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::postgres::notice"
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Message(&self.0));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Message<'a>(&'a Mutex<String>);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let mut plans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            plans.push_str(&format!("{value:?}\n").replace("\\n", "\n"));
        }
    }
}
