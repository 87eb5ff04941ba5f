//! How the functions find their answer: through an index, in the chunks of the time that was asked for, and in no other.
//!
//! `auto_explain` sends the plan of each statement, those inside functions too, as a notice.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use log_writer_service::timescale::{ClaimRequest, migrate};
use sqlx::{Connection, Executor, PgConnection};
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    instrument::WithSubscriber,
    span,
};

use crate::{
    timescale_database::{TestDatabase, with_empty_database},
    timescale_outbox::{OWNER, oldest},
};

/// Ten days of events, a hundred users, one correlation id for every three events.
const SAMPLE: &str = "
insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message, correlation_id, user_id, trace_id, pattern)
select md5(i::text)::uuid, now() - i * interval '21.6 s', now(), i / 100, 'default',
  (array['INFO', 'WARN', 'DEBUG', 'ERROR', 'INFO', 'INFO', 'INFO', 'INFO', 'INFO', 'INFO'])[1 + i % 10], 'svc-' || i % 7,
  'message ' || i, 'c' || i / 3, 'user-' || i % 101, md5('t' || i / 5),
  case when i % 10 in (1, 3) then i % 50 end
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
    assert!(plans.contains("plan:"), "no plan was sent: {plans:?}");
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

/// Chunks of more than a handful of pages that are read whole. Of smaller ones (the first or last of the sample, by the time
/// of day) an index is no help.
fn whole_chunks(plan: &str) -> Vec<&str> {
    let is_large = |line: &str| {
        let cost = line.split("..").nth(1).and_then(|rest| rest.split_whitespace().next());
        cost.is_none_or(|cost| cost.parse::<f64>().is_ok_and(|cost| cost > 60.0))
    };
    plan.lines()
        .filter(|line| line.contains("Seq Scan on _hyper_") && !line.contains("never executed") && is_large(line))
        .collect()
}

fn is_read_by(plan: &str, index: &str) {
    assert!(plan.contains(&format!("_{index}")), "{index} is not used:\n{plan}");
    let scans = whole_chunks(plan);
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

/// Batches of two hundred events, later than all others, many within each second, and their outbox rows.
const BATCHES: &str = "
insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message)
select gen_random_uuid(), now() + i * interval '20 us', now(), 500000 + i / 200, 'default', 'INFO', 'svc', 'later ' || i
from generate_series(0, 19999) i;
insert into log_writer.outbox (batch_id, target, tenants, first_time, last_time, events, bytes)
select batch_id, 'logs-app-default', array['default'], min(\"timestamp\"), max(\"timestamp\"), count(*), 0
from application_logs where batch_id >= 500000 group by batch_id";

/// Claims a thousand events and reads them back by their batches, of which `sample` was there before.
async fn read_back_by_batch(sample: &str) {
    with_empty_database(async |database| {
        migrate(&database.settings).await.expect("the migrations run");
        database.execute(sample).await;
        database.execute(BATCHES).await;
        let set =
            "session_preload_libraries = 'auto_explain'; auto_explain.log_min_duration = 0; client_min_messages = log";
        let name = database.text("select current_database()").await;
        for setting in set.split("; ") {
            database
                .execute(&format!("alter database \"{name}\" set {setting}"))
                .await;
        }
        let outbox = &database.outbox;
        let request = ClaimRequest {
            events_max: 1_000,
            ..oldest(OWNER)
        };
        let rows = outbox.claim(&request).await.expect("claimed");
        assert_eq!(rows.len(), 5);
        let notices = Notices::default();
        let read = outbox.read_back(&rows).with_subscriber(Dispatch::new(notices.clone()));
        let events = read.await.expect("read back");
        assert_eq!(events.concat().len(), 1_000);
        let plans = notices.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(plans.contains("copy (select"), "no plan was sent: {plans:?}");
        // Within an hour of midnight the window reaches into another day's chunk, too.
        let chunk = "select tableoid::regclass::text from application_logs where batch_id = 500000 limit 1";
        let chunk = database.text(chunk).await;
        let chunk = chunk.rsplit('.').next().unwrap_or_default().trim_start_matches('_');
        is_read_by(&plans, &format!("{chunk}_application_logs_batch_id_idx"));
        let by_time = format!("{chunk}_application_logs_timestamp_idx");
        assert!(!plans.contains(&by_time), "{plans}");
    })
    .await;
}

#[tokio::test]
async fn batches_later_than_what_was_analysed_are_read_back_by_their_ids() {
    read_back_by_batch(SAMPLE).await;
}

#[tokio::test]
async fn batches_of_a_table_that_was_never_analysed_are_read_back_by_their_ids() {
    read_back_by_batch("select").await;
}

#[tokio::test]
async fn search_logs_reads_the_index_of_what_it_is_given_in_the_chunks_of_its_time() {
    with_ten_days(async |database| {
        // Whatever the hour, it holds half of a chunk: of a few rows an index is no help.
        let day = "p_start_time := now() - interval '13 hours'";
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

/// Brings the counts up to date: the jobs' part on Community, the service's on Apache.
async fn count(database: &TestDatabase) {
    if database.text("select log_writer.timescale_edition()").await == "apache" {
        while database
            .text("select log_writer.refresh_stats(interval '1 day')::text")
            .await
            == "true"
        {}
        return;
    }
    database.refresh_aggregates("now() - interval '14 days'", "now()").await;
}

#[tokio::test]
async fn what_is_counted_is_asked_of_the_counts_and_of_the_newest_events_alone() {
    with_ten_days(async |database| {
        count(database).await;
        let events = database
            .text("select string_agg(c.chunk_name, ' ' order by c.range_start desc) from timescaledb_information.chunks c where c.hypertable_name = 'application_logs'")
            .await;
        let events: Vec<&str> = events.split(' ').collect();
        assert!(events.len() >= 10, "{events:?}");
        for (question, days) in [
            ("get_error_stats('6 hours')", 1),
            // The few minutes around the beginning of the day before.
            ("get_error_stats('1 day')", 2),
            ("get_error_stats('4 days')", 1),
            ("get_log_volume('6 hours', '30 minutes')", 1),
            ("get_log_volume('5 days')", 1),
            ("get_latency_stats('1 day')", 1),
            ("get_latency_stats('5 days')", 1),
            ("top_error_patterns('5 days')", 1),
            ("new_error_patterns('5 days')", 1),
            ("silent_services('5 minutes', '1 day')", 1),
            ("detect_anomalies('1 hour', p_days := 5)", 1),
        ] {
            let plan = plan(database, &format!("select * from {question}")).await;
            let read = chunks_read(&plan);
            let older: Vec<_> = events.iter().skip(days + 1).filter(|chunk| read.contains(*chunk)).collect();
            assert!(older.is_empty(), "{question} reads {older:?}\n{plan}");
            let scanned = whole_chunks(&plan)
                .iter()
                .any(|line| events.iter().any(|chunk| line.contains(chunk)));
            assert!(!scanned, "{question} reads a whole chunk of events\n{plan}");
        }
        let errors = plan(database, "select * from get_error_stats(interval '6 hours')").await;
        assert!(errors.contains("_errors_timestamp_idx"), "what is newer than the counts, by its index\n{errors}");
        assert!(errors.contains("log_errors_5m"), "{errors}");
    })
    .await;
}

#[tokio::test]
async fn an_id_with_a_time_inside_is_looked_for_at_that_time_and_only_then_everywhere() {
    with_ten_days(async |database| {
        database
            .execute(
                "update application_logs set id = (lpad(to_hex((extract(epoch from \"timestamp\") * 1000)::bigint), 12, '0')
                   || '70008000' || right(md5(id::text), 12))::uuid where message = 'message 20000'",
            )
            .await;
        let id = database
            .text("select id::text from application_logs where message = 'message 20000'")
            .await;
        for question in ["get_log", "get_log_context"] {
            let near = plan(database, &format!("select * from {question}('{id}')")).await;
            is_read_by(&near, "application_logs_pkey");
            let most = if question == "get_log" { 2 } else { 4 };
            assert!(chunks_read(&near).len() <= most, "{question}: {:?}\n{near}", chunks_read(&near));
        }
        let anywhere = plan(database, "select * from get_log(md5('20001')::uuid)").await;
        is_read_by(&anywhere, "application_logs_pkey");
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
