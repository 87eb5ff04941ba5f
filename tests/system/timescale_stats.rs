//! What is counted continuously is what a scan of the events counts: fresh, at rest, late, and after the events are gone.

use std::time::Duration;

use log_writer_service::{
    config::Retention,
    event::{Level, LogEvent, Timestamp, mask, pattern_of},
    timescale::{NewPattern, connect_pool, expire, note_patterns, refresh_stats},
};

use crate::timescale_database::{DAY, MODE, TestDatabase, event, request, with_database};

/// Three days of events, with and without durations, users and patterns, two tenants.
const SAMPLE: &str = "
insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message, user_id,
  performance_metrics, pattern)
select gen_random_uuid(), date_trunc('minute', now()) - interval '3 days' + i * interval '25.9 s', now(), i / 100,
  case when i % 20 = 0 then 'blue' else 'default' end, of_level, 'svc-' || i % 7, 'message ' || i,
  case when i % 5 = 0 then 'user-' || i % 97 end,
  case when i % 2 = 0 then jsonb_build_object('duration_ms', 1 + (i * 7919) % 3000)
    when i % 11 = 0 then '{\"duration_ms\": \"fast\"}'::jsonb when i % 13 = 0 then '{\"response_time_ms\": 0}'
    when i % 17 = 0 then '{\"duration_ms\": 1e400}' when i % 19 = 0 then '{\"duration_ms\": -1}' end,
  case when of_level in ('WARN', 'ERROR') then i % 50 end
from generate_series(1, 10000) i,
  lateral (select (array['INFO', 'WARN', 'DEBUG', 'ERROR', 'INFO'])[1 + (i * 7 + i / 10) % 5] as of_level) l";

/// For each table of counts: buckets that differ from a scan of the events.
const DIFFERENT: [&str; 6] = [
    "with raw as (
       select time_bucket(interval '1 minute', \"timestamp\") as bucket, tenant, service, level, count(*) as n,
         count(*) filter (where level in ('ERROR', 'FATAL')) as e, count(distinct user_id) as u,
         count(log_duration_ms(performance_metrics)) as d, sum(log_duration_ms(performance_metrics)) as total,
         max(log_duration_ms(performance_metrics)) as longest,
         percentile_cont(0.95) within group (order by log_duration_ms(performance_metrics)) as p95,
         min(\"timestamp\") as f, max(\"timestamp\") as l
       from application_logs group by 1, 2, 3, 4)
     select count(*) from raw r full join log_stats_1m s using (bucket, tenant, service, level)
     where (r.n, r.e, r.u, r.d, r.total, r.longest, r.p95, r.f, r.l) is distinct from
       (s.events, s.errors, s.users, s.durations, s.duration_sum, s.duration_max, s.duration_p95, s.first_seen, s.last_seen)",
    "with raw as (
       select time_bucket(interval '1 hour', \"timestamp\") as bucket, tenant, service, level, count(*) as n,
         count(*) filter (where level in ('ERROR', 'FATAL')) as e, count(log_duration_ms(performance_metrics)) as d,
         max(log_duration_ms(performance_metrics)) as longest,
         percentile_disc(0.95) within group (order by log_duration_ms(performance_metrics)) as p95,
         min(\"timestamp\") as f, max(\"timestamp\") as l
       from application_logs group by 1, 2, 3, 4)
     select count(*) from raw r full join log_stats_1h s using (bucket, tenant, service, level)
     where (r.n, r.e, r.d, r.longest, r.f, r.l) is distinct from
       (s.events, s.errors, s.durations, s.duration_max, s.first_seen, s.last_seen)
       or abs(s.duration_p95 - r.p95) > greatest(0.075 * r.p95, 0.1)",
    "with raw as (
       select time_bucket(interval '1 day', \"timestamp\") as bucket, tenant, service, level, count(*) as n,
         percentile_disc(0.5) within group (order by log_duration_ms(performance_metrics)) as p50,
         min(\"timestamp\") as f, max(\"timestamp\") as l
       from application_logs group by 1, 2, 3, 4)
     select count(*) from raw r full join log_stats_1d s using (bucket, tenant, service, level)
     where (r.n, r.f, r.l) is distinct from (s.events, s.first_seen, s.last_seen)
       or abs(s.duration_p50 - r.p50) > greatest(0.075 * r.p50, 0.1)",
    "with raw as (
       select time_bucket(interval '5 minutes', \"timestamp\") as bucket, tenant, service, level, pattern, count(*) as n
       from application_logs where pattern is not null group by 1, 2, 3, 4, 5)
     select count(*) from raw r full join log_pattern_stats_5m s using (bucket, tenant, service, level, pattern)
     where r.n is distinct from s.events",
    "with raw as (
       select time_bucket(interval '5 minutes', \"timestamp\") as bucket, tenant, service, count(*) as n,
         count(*) filter (where level in ('ERROR', 'FATAL')) as e, min(\"timestamp\") as f, max(\"timestamp\") as l
       from application_logs group by 1, 2, 3)
     select count(*) from raw r full join log_stats_5m s using (bucket, tenant, service)
     where (r.n, r.e, r.f, r.l) is distinct from (s.events, s.errors, s.first_seen, s.last_seen)",
    "with raw as (
       select time_bucket(interval '5 minutes', \"timestamp\") as bucket, tenant, service, count(*) as n,
         min(\"timestamp\") as f, max(\"timestamp\") as l,
         array_agg(distinct hashtextextended(message, 0)) as m,
         array_agg(distinct hashtextextended(user_id, 0)) filter (where user_id is not null) as u
       from application_logs where level in ('ERROR', 'FATAL') group by 1, 2, 3)
     select count(*) from raw r full join log_errors_5m s using (bucket, tenant, service)
     where (r.n, r.f, r.l, r.m, r.u) is distinct from (s.errors, s.first_seen, s.last_seen, s.messages, s.users)",
];

/// What of `get_error_stats`, `get_log_volume` and `silent_services` is not what a scan of the events says, for windows that
/// begin and end anywhere between whole minutes, five minutes and hours.
const ANSWERED_WRONG: &str = "
with windows as (
  select w * interval '1 minute' as w, date_trunc('minute', now() - w * interval '1 minute') as since,
    date_trunc('minute', now() - w * interval '1 minute') - w * interval '1 minute' as before
  from unnest(array[1, 2, 4, 7, 13, 16, 59, 61, 118, 361, 733, 1440]) w
), raw as (
  select w.w, l.tenant as of_tenant, l.level in ('ERROR', 'FATAL') as is_error, l.\"timestamp\" >= w.since as is_now, l.*
  from windows w join application_logs l on l.\"timestamp\" >= w.before
), errors as (
  select r.w, t.tenant, r.service, count(*) filter (where is_now and is_error) as errors, count(*) filter (where is_now) as total,
    count(distinct message) filter (where is_now and is_error) as messages, count(distinct user_id) filter (where is_now and is_error) as users,
    min(\"timestamp\") filter (where is_now and is_error) as f, max(\"timestamp\") filter (where is_now and is_error) as l,
    count(*) filter (where is_error and not is_now) as before
  from raw r join (values (null), ('blue')) t(tenant) on t.tenant is null or t.tenant = r.of_tenant
  group by 1, 2, 3 having count(*) filter (where is_now and is_error) > 0
), said as (
  select w.w, t.tenant, s.* from windows w cross join (values (null), ('blue')) t(tenant)
  cross join lateral get_error_stats(w.w, t.tenant) s
), volumes as (
  select w.w, b.b, date_bin(b.b, v.bucket, '2000-01-01 00:00:00+00') as bucket, v.service, v.level, sum(v.events) as n, sum(v.errors) as e
  from windows w cross join (values (interval '5 minutes'), (interval '1 hour')) b(b)
  cross join lateral get_log_volume(w.w, b.b) v where w.w <= interval '10 hours' group by 1, 2, 3, 4, 5
), counted as (
  select r.w, b.b, date_bin(b.b, r.\"timestamp\", '2000-01-01 00:00:00+00') as bucket, r.service, r.level, count(*) as n,
    count(*) filter (where is_error) as e
  from raw r cross join (values (interval '5 minutes'), (interval '1 hour')) b(b) where is_now and r.w <= interval '10 hours' group by 1, 2, 3, 4, 5
)
select coalesce((select string_agg(format('%s %s: %s and not %s', e.w, e.service, s, e), E'\n') from errors e
    full join said s on (s.w, s.service) = (e.w, e.service) and s.tenant is not distinct from e.tenant
    where (e.errors, e.total, e.messages, e.users, e.f, e.l, e.before)
      is distinct from (s.errors, s.total, s.distinct_messages, s.users, s.first_seen, s.last_seen, s.errors_before)), '')
  || coalesce((select string_agg(format('%s: %s and not %s', c.w, v, c), E'\n') from counted c
    full join volumes v using (w, b, bucket, service, level) where (c.n, c.e) is distinct from (v.n, v.e)), '')
  || coalesce((select string_agg(format('%s: %s', s, m), E'\n') from silent_services('0', '1 day') s
    full join (select service, max(\"timestamp\") as l from application_logs
      where \"timestamp\" >= date_trunc('minute', now() - interval '1 day') group by 1) m using (service)
    where s.last_seen is distinct from m.l), '')";

async fn counts_are_right(database: &TestDatabase, when: &str) {
    for query in DIFFERENT {
        assert_eq!(database.number(query).await, 0, "{when}: {query}");
    }
    assert_eq!(database.text(ANSWERED_WRONG).await, "", "{when}");
}

/// Counts what has come to rest: the service's part on Apache, the jobs' part on Community.
async fn count(database: &TestDatabase) {
    refresh_stats(&database.pool).await.expect("counted");
    if is_community(database).await {
        database.refresh_aggregates("now() - interval '14 days'", "now()").await;
    }
}

/// The same by the jobs themselves, which also compress; on Apache to the end.
async fn run_what_counts(database: &TestDatabase) {
    refresh_stats(&database.pool).await.expect("counted");
    while database.text("select log_writer.refresh_stats()::text").await == "true" {}
    database.run_jobs("policy_compression").await;
    database.run_jobs("policy_refresh_continuous_aggregate").await;
}

async fn is_community(database: &TestDatabase) -> bool {
    database.text("select log_writer.timescale_edition()").await == "community"
}

async fn commit(database: &TestDatabase, seed: &str, events: &[LogEvent<'_>]) {
    let mut committer = database.committer(seed).await;
    committer
        .commit(&mut [&mut request(seed, events)], &MODE)
        .await
        .expect("committed");
}

/// As many rows in the books as in the table, for what a test put there by SQL.
async fn balance_books(database: &TestDatabase) {
    database
        .execute(
            "insert into log_writer.books (worker, received, committed, unmirrored)
             select 'the test', n, n, n from (select count(*) - (select coalesce(sum(committed), 0) from log_writer.books) as n
               from application_logs) c",
        )
        .await;
}

async fn now(database: &TestDatabase) -> i64 {
    database
        .number("select (extract(epoch from now()) * 1000000)::bigint")
        .await
}

/// Commits an error with a duration at each of these times, in microseconds since 1970.
async fn commit_errors(database: &TestDatabase, times: impl Iterator<Item = i64>) {
    let errors: Vec<LogEvent<'_>> = (0..)
        .zip(times)
        .map(|(number, time)| {
            let mut event = event(number);
            event.timestamp = Timestamp(time);
            event.level = Level::Error;
            event.performance_metrics = Some(format!(r#"{{"duration_ms": {number}.5}}"#));
            event
        })
        .collect();
    commit(database, "late", &errors).await;
}

#[tokio::test]
async fn counts_are_those_of_a_scan_before_and_after_they_are_stored_and_when_events_come_late() {
    with_database(async |database| {
        database.execute(SAMPLE).await;
        counts_are_right(database, "fresh").await;
        count(database).await;
        counts_are_right(database, "at rest").await;
        let now = now(database).await;
        commit_errors(database, (0..60).map(|number| now - number * DAY / 15 - 90_000_000)).await;
        count(database).await;
        counts_are_right(database, "after late events").await;
        balance_books(database).await;
    })
    .await;
}

#[tokio::test]
async fn what_comes_as_late_as_it_may_into_compressed_time_is_counted_by_the_jobs() {
    with_database(async |database| {
        let two_weeks = SAMPLE
            .replace("interval '3 days'", "interval '14 days'")
            .replace("25.9 s", "120.9 s");
        database.execute(&two_weeks).await;
        // The jobs would take a minute for all of it.
        if is_community(database).await {
            database
                .refresh_aggregates("now() - interval '16 days'", "now() - interval '2 days'")
                .await;
        } else {
            while database
                .text("select log_writer.refresh_stats(interval '1 day')::text")
                .await
                == "true"
            {}
        }
        run_what_counts(database).await;
        let compressed = "select count(*) from timescaledb_information.chunks
            where hypertable_name = 'application_logs' and is_compressed";
        assert_eq!(database.number(compressed).await > 10, is_community(database).await);
        counts_are_right(database, "before").await;
        let now = now(database).await;
        // One for each day, back to the most that events.accept_past may be.
        commit_errors(database, (0..=14).map(|number| now - number * DAY)).await;
        run_what_counts(database).await;
        counts_are_right(database, "after late events").await;
        balance_books(database).await;
    })
    .await;
}

#[tokio::test]
async fn counts_are_whole_while_the_jobs_catch_up() {
    with_database(async |database| {
        if !is_community(database).await {
            return;
        }
        // None before there are events; then each run a few of many batches.
        database.stop_jobs().await;
        database
            .execute(
                "select alter_job(job_id, config => config || '{\"max_batches_per_execution\": 4}')
                 from timescaledb_information.jobs where proc_name = 'policy_refresh_continuous_aggregate'",
            )
            .await;
        database.execute(SAMPLE).await;
        for _ in 0..3 {
            assert_eq!(database.run_jobs("policy_refresh_continuous_aggregate").await, 6);
            counts_are_right(database, "in between").await;
        }
        balance_books(database).await;
    })
    .await;
}

#[tokio::test]
async fn counting_takes_up_where_it_stopped_and_leaves_the_rest_to_the_next_call() {
    with_database(async |database| {
        if is_community(database).await {
            return;
        }
        database.execute(SAMPLE).await;
        let until = "select (extract(epoch from counted_until) * 1000000)::bigint from log_writer.stats_state";
        let mut before = 0;
        while database
            .text("select log_writer.refresh_stats(interval '1 day')::text")
            .await
            == "true"
        {
            let counted = database.number(until).await;
            assert!(counted > before, "each call counts more");
            before = counted;
            counts_are_right(database, "in between").await;
        }
        counts_are_right(database, "at the end").await;
        balance_books(database).await;
    })
    .await;
}

fn kept_for_30_days() -> Retention {
    Retention {
        enabled: true,
        events: Duration::from_secs(30 * 86_400),
        stats_minutes: Duration::from_secs(90 * 86_400),
        stats: Duration::from_secs(365 * 86_400),
        archive_path: None,
        archive_zstd_level: 6,
    }
}

#[tokio::test]
async fn old_events_are_dropped_once_they_are_delivered_and_their_counts_stay() {
    with_database(async |database| {
        let now = now(database).await;
        let aged = |number: u32, days: i64| LogEvent {
            timestamp: Timestamp(now - days * DAY),
            ..event(number)
        };
        // Of the old ones more than one call drops.
        let mut events = vec![aged(1, 20), aged(2, 0)];
        events.extend((33..58).zip(3..).map(|(days, number)| aged(number, days)));
        commit(database, "a", &events).await;
        let counted = "select sum(events)::bigint from log_stats_1m";
        // Counted while it was young: what is older than two weeks is not counted any more.
        if is_community(database).await {
            database.refresh_aggregates("now() - interval '60 days'", "now()").await;
        } else {
            while database
                .text("select log_writer.refresh_stats(interval '20 days')::text")
                .await
                == "true"
            {}
        }
        assert_eq!(database.number(counted).await, 27);
        let retention = kept_for_30_days();
        assert_eq!(
            expire(&database.pool, &retention).await.expect("done"),
            0,
            "the outbox points to it"
        );
        database
            .execute("delete from log_writer.outbox; update log_writer.books set indexed = 27")
            .await;
        let of_call = "select log_writer.drop_old_events(interval '30 days')";
        assert_eq!(database.number(of_call).await, 20);
        assert_eq!(expire(&database.pool, &retention).await.expect("done"), 5);
        assert_eq!(database.number("select count(*) from application_logs").await, 2);
        assert_eq!(expire(&database.pool, &retention).await.expect("done"), 0);
        assert_eq!(database.number(counted).await, 27, "counts are kept longer than events");
        database
            .execute("update log_writer.books set received = 2, committed = 2, mirrored = 2, indexed = 2")
            .await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_dropped_that_may_still_be_counted_or_where_retention_is_off() {
    with_database(async |database| {
        let off = Retention {
            enabled: false,
            ..kept_for_30_days()
        };
        commit(
            database,
            "a",
            &[LogEvent {
                timestamp: Timestamp(now(database).await - 60 * DAY),
                ..event(1)
            }],
        )
        .await;
        assert_eq!(expire(&database.pool, &off).await.expect("done"), 0);
        let short = Retention {
            events: Duration::from_secs(86_400),
            ..kept_for_30_days()
        };
        let refused = expire(&database.pool, &short).await.expect_err("refused");
        assert!(refused.to_string().contains("at least 16 days"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn a_kind_of_message_is_noted_once_with_its_first_time() {
    with_database(async |database| {
        let now = now(database).await;
        let kind = |message: &str, micros: i64| NewPattern {
            tenant: "default".into(),
            pattern: pattern_of(Level::Error, message).expect("an error"),
            level: Level::Error,
            service: "api".to_owned(),
            template: mask(message),
            first_seen: Timestamp(micros),
        };
        let noted = [
            kind("user 1 gone", now),
            kind("user 2 gone", now - DAY),
            kind("disk full", now),
        ];
        note_patterns(&database.pool, &noted).await.expect("noted");
        note_patterns(&database.pool, &[kind("user 3 gone", now + 5)])
            .await
            .expect("noted");
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "select template, (extract(epoch from first_seen) * 1000000)::bigint from log_patterns order by 1",
        )
        .fetch_all(&database.pool)
        .await
        .expect("rows");
        assert_eq!(
            rows,
            [("disk full".to_owned(), now), ("user <num> gone".to_owned(), now - DAY)]
        );
    })
    .await;
}

#[tokio::test]
async fn events_of_one_minute_that_take_long_to_count_are_given_the_time() {
    with_database(async |database| {
        database.execute("create table public.rounds (at timestamptz default now())").await;
        // As if nothing could be counted within the pool's limit for one statement.
        database
            .execute(
                "create or replace function log_writer.refresh_stats(p_most interval default '10 minutes') returns boolean
                 language plpgsql as $$
                 begin
                   if p_most > interval '1 minute' or current_setting('statement_timeout')::interval < interval '20 minutes' then
                     raise 'canceling statement due to statement timeout' using errcode = '57014';
                   end if;
                   insert into public.rounds default values;
                   return (select count(*) < 3 from public.rounds);
                 end $$",

            )
            .await;
        let pool = connect_pool(&database.settings).await.expect("a pool");
        refresh_stats(&pool).await.expect("counted");
        assert_eq!(database.number("select count(*) from public.rounds").await, 3);
        let limits = "select current_setting('statement_timeout')";
        let limit: String = sqlx::query_scalar(limits).fetch_one(&pool).await.expect("a limit");
        assert_eq!(limit, "30s", "for all that comes after");
    })
    .await;
}
