//! The functions that people and agents ask, on events whose answer is known.

use crate::timescale_database::{TestDatabase, with_empty_database};
use log_writer_service::timescale::migrate;
use sqlx::{Row, postgres::PgRow};

/// Runs a test in a migrated database whose rows it writes by SQL: the books know nothing of them.
/// TimescaleDB's own jobs end before: one that began between two of the migrations still counts the newest events first, and
/// leaves older ones out until it comes to them.
async fn with_events(insert: &str, test: impl AsyncFnOnce(&TestDatabase)) {
    with_empty_database(async |database| {
        migrate(&database.settings).await.expect("the migrations run");
        database.stop_jobs().await;
        database.execute(insert).await;
        test(database).await;
    })
    .await;
}

async fn rows(database: &TestDatabase, query: &str) -> Vec<PgRow> {
    sqlx::query(query).fetch_all(&database.pool).await.expect(query)
}

/// One text for each row: its columns, joined.
async fn lines(database: &TestDatabase, query: &str) -> Vec<String> {
    let joined = format!(
        "select array_to_string(array(select value from json_each_text(row_to_json(r)) with ordinality as c(key, value, n) order by n), ' ', '-') from ({query}) r"
    );
    sqlx::query_scalar(&joined)
        .fetch_all(&database.pool)
        .await
        .expect(query)
}

const INSERT: &str =
    "insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, host, message,
  correlation_id, user_id, trace_id, performance_metrics, pattern)";

#[tokio::test]
async fn pages_of_search_logs_hold_every_event_once_in_order() {
    let insert = format!(
        "{INSERT} select gen_random_uuid(), now() - (i / 4) * interval '1 second', now(), 1, case when i % 2 = 0 then 'a' else 'b' end,
           'INFO', 'api', null, i::text, null, null, null, null, null from generate_series(1, 50) i"
    );
    with_events(&insert, async |database| {
        let all: Vec<String> = lines(database, "select message from search_logs(p_limit := 1000)").await;
        assert_eq!(all.len(), 50);
        let (mut paged, mut before) = (Vec::new(), "null".to_owned());
        loop {
            let page = rows(
                database,
                &format!("select message, page_end from search_logs(p_before := {before}, p_limit := 7)"),
            )
            .await;
            paged.extend(page.iter().map(|row| row.get::<String, _>("message")));
            match page.last() {
                Some(last) => before = format!("'{}'", last.get::<String, _>("page_end")),
                None => break,
            }
        }
        assert_eq!(paged, all);
        let wrong = sqlx::query("select * from search_logs(p_before := 'yesterday')")
            .fetch_all(&database.pool)
            .await;
        let message = wrong.expect_err("refused").to_string();
        assert!(
            message.contains("p_before is not the page_end of an earlier row: yesterday"),
            "{message}"
        );
    })
    .await;
}

#[tokio::test]
async fn search_logs_gives_ten_thousand_rows_at_most_however_many_are_asked_for() {
    let insert = format!(
        "{INSERT} select gen_random_uuid(), now() - i * interval '100 milliseconds', now(), 1, 'default', 'INFO', 'api', null, i::text,
           null, null, null, null, null from generate_series(1, 10010) i"
    );
    with_events(&insert, async |database| {
        for (asked, given) in [("10001", 10_000), ("2147483647", 10_000), ("null", 100), ("-1", 1)] {
            let count = format!("select count(*) from search_logs(p_limit := {asked})");
            assert_eq!(database.number(&count).await, given, "{asked}");
        }
        // The newest, and the rest is the next page.
        let rest = "select string_agg(message, ' ') from search_logs(p_limit := 20000, p_before :=
            (select page_end from search_logs(p_limit := 20000) order by \"timestamp\" limit 1))";
        let expected: Vec<String> = (10_001..=10_010).map(|number: u32| number.to_string()).collect();
        assert_eq!(database.text(rest).await, expected.join(" "));
    })
    .await;
}

#[tokio::test]
async fn the_context_of_an_event_is_what_its_service_logged_around_it_on_its_host() {
    let insert = format!(
        "{INSERT} select ('00000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, now() - interval '1 hour' + i * interval '1 second',
           now(), 1, 'default', 'INFO', case when i % 2 = 0 then 'api' else 'web' end, case when i % 4 = 0 then 'h1' else 'h2' end,
           'm' || i, null, null, null, null, null from generate_series(1, 60) i"
    );
    with_events(&insert, async |database| {
        let id = "'00000000-0000-7000-8000-000000000020'";
        let around = lines(
            database,
            &format!("select place, message from get_log_context({id}, 2, 3)"),
        )
        .await;
        assert_eq!(around, ["-2 m12", "-1 m16", "0 m20", "1 m24", "2 m28", "3 m32"]);
        assert_eq!(
            lines(database, &format!("select place from get_log_context({id}, 0, 0)")).await,
            ["0"]
        );
        assert!(
            lines(
                database,
                &format!("select place from get_log_context({id}, p_tenant := 'other')")
            )
            .await
            .is_empty()
        );
        assert!(
            lines(database, "select place from get_log_context(gen_random_uuid())")
                .await
                .is_empty()
        );
    })
    .await;
}

#[tokio::test]
async fn a_trace_holds_every_event_of_its_id_oldest_first_over_all_services() {
    let insert = format!(
        "{INSERT} values
           (gen_random_uuid(), '2026-11-20T12:00:00Z', now(), 1, 'default', 'INFO', 'web', null, 'first', 'abc', null, null, null, null),
           (gen_random_uuid(), '2026-11-20T12:00:00.25Z', now(), 1, 'default', 'INFO', 'api', null, 'second', null, null, 'abc', null, null),
           (gen_random_uuid(), '2026-11-20T12:00:01Z', now(), 1, 'default', 'ERROR', 'db', null, 'third', 'abc', null, 'abc', null, null),
           (gen_random_uuid(), '2026-11-20T12:00:01Z', now(), 1, 'default', 'ERROR', 'db', null, 'other', 'abcd', null, 'ab', null, null)"
    );
    with_events(&insert, async |database| {
        let trace = lines(database, "select after_ms, service, message from trace_logs('abc')").await;
        assert_eq!(trace, ["0 web first", "250 api second", "1000 db third"]);
        assert_eq!(
            lines(database, "select message from trace_logs('ABC')").await,
            ["second", "third"],
            "trace ids are lower case"
        );
        assert_eq!(
            lines(
                database,
                "select message from trace_logs('abc', p_start_time := '2026-11-20T12:00:00.5Z')"
            )
            .await,
            ["third"]
        );
    })
    .await;
}

#[tokio::test]
async fn an_event_is_found_by_its_id_wherever_the_time_in_the_id_is() {
    let insert = format!(
        "{INSERT} select v.id::uuid, now() - v.age::interval, now(), 1, v.tenant, 'INFO', 'api', null, v.message, null, null, null, null, null
         from (values ('a0000000-0000-4000-8000-000000000001', '5 days', 'default', 'random'),
           ('00000000-0000-7000-8000-000000000002', '3 days', 'default', 'of 1970'),
           ('01935b6e-7a60-7f3a-8000-000000000003', '2 days', 'default', 'of 2024'),
           (lpad(to_hex((extract(epoch from now() - interval '4 days') * 1000)::bigint), 12, '0') || '-7000-8000-000000000004', '4 days', 'blue', 'at its time'),
           (lpad(to_hex((extract(epoch from now() - interval '4 days') * 1000)::bigint), 12, '0') || '-7000-8000-000000000004', '4 days', 'green', 'at its time'),
           ('a0000000-0000-4000-8000-000000000005', '1 day', 'default', 'newer'), ('a0000000-0000-4000-8000-000000000005', '2 days', 'default', 'older'))
         v(id, age, tenant, message)"
    );
    with_events(&insert, async |database| {
        let found =
            async |arguments: &str| lines(database, &format!("select message, tenant from get_log({arguments})")).await;
        assert_eq!(
            found("'a0000000-0000-4000-8000-000000000001'").await,
            ["random default"]
        );
        assert_eq!(
            found("'00000000-0000-7000-8000-000000000002'").await,
            ["of 1970 default"]
        );
        assert_eq!(
            found("'01935b6e-7a60-7f3a-8000-000000000003'").await,
            ["of 2024 default"]
        );
        let both = "(select id from application_logs where message = 'at its time' limit 1)";
        assert_eq!(found(both).await, ["at its time blue", "at its time green"]);
        assert_eq!(
            found(&format!("{both}, p_tenant := 'green'")).await,
            ["at its time green"]
        );
        let twice = "'a0000000-0000-4000-8000-000000000005'";
        assert_eq!(found(twice).await, ["newer default", "older default"]);
        let older = "(select \"timestamp\" from application_logs where message = 'older')";
        assert_eq!(found(&format!("{twice}, {older}")).await, ["older default"]);
        assert!(found("gen_random_uuid()").await.is_empty());
        let context = lines(
            database,
            &format!("select place, message from get_log_context({twice}, 0, 0)"),
        )
        .await;
        assert_eq!(context, ["0 newer"]);
    })
    .await;
}

#[tokio::test]
async fn a_level_that_is_none_is_refused() {
    with_events("", async |database| {
        for question in ["search_logs(p_level := 'loud')", "get_log_volume(p_level := 'loud')"] {
            let refused = sqlx::query(&format!("select * from {question}"))
                .fetch_all(&database.pool)
                .await;
            assert!(
                refused
                    .expect_err(question)
                    .to_string()
                    .contains("no event has the level loud")
            );
        }
        for level in ["error", "Error", "FATAL"] {
            assert!(
                rows(database, &format!("select * from search_logs(p_level := '{level}')"))
                    .await
                    .is_empty()
            );
        }
    })
    .await;
}

#[tokio::test]
async fn error_statistics_compare_with_the_time_before_and_name_the_top_pattern() {
    let insert = format!(
        "{INSERT} select gen_random_uuid(), now() - v.age::interval, now(), 1, v.tenant, v.level, v.service, null, v.message, null, v.usr, null, null, v.pattern
         from (values ('5 minutes', 'default', 'ERROR', 'api', 'disk 1 full', 'u1', 1), ('6 minutes', 'default', 'ERROR', 'api', 'disk 2 full', 'u2', 1),
           ('6 minutes', 'default', 'FATAL', 'api', 'boom', 'u2', 2), ('7 minutes', 'default', 'INFO', 'api', 'fine', null, null),
           ('7 minutes', 'other', 'ERROR', 'web', 'boom', null, 2),
           ('70 minutes', 'default', 'ERROR', 'api', 'disk 3 full', 'u1', 1), ('80 minutes', 'default', 'ERROR', 'api', 'disk 3 full', 'u1', 1))
         v(age, tenant, level, service, message, usr, pattern);
         insert into log_patterns values ('default', 1, 'ERROR', 'api', 'disk <num> full', now() - interval '80 minutes'),
           ('default', 2, 'FATAL', 'api', 'boom', now() - interval '6 minutes'), ('other', 2, 'ERROR', 'web', 'boom', now() - interval '7 minutes')"
    );
    with_events(&insert, async |database| {
        let columns = "service, errors, total, error_rate, distinct_messages, users, errors_before, change, top_pattern, top_pattern_events";
        assert_eq!(
            lines(database, &format!("select {columns} from get_error_stats(interval '1 hour')")).await,
            ["api 3 4 0.75 3 2 2 0.5 disk <num> full 2", "web 1 1 1 1 0 0 - boom 1"]
        );
        assert_eq!(lines(database, "select service, errors from get_error_stats(interval '1 hour', 'other')").await, ["web 1"]);
        assert_eq!(lines(database, "select service, errors from get_error_stats(interval '2 hours')").await, ["api 5", "web 1"]);
        assert_eq!(
            lines(database, "select template, services, events, share, events_before from top_error_patterns(interval '1 hour')").await,
            ["disk <num> full [\"api\"] 2 0.5 2", "boom [\"api\"] 1 0.25 0", "boom [\"web\"] 1 0.25 0"]
        );
        assert_eq!(
            lines(database, "select template, tenant, service, events from new_error_patterns(interval '1 hour')").await,
            ["boom default api 1", "boom other web 1"]
        );
        let refused = sqlx::query("select * from get_error_stats(interval '0')").fetch_all(&database.pool).await;
        assert!(refused.expect_err("refused").to_string().contains("must be longer than nothing"));
    })
    .await;
}

#[tokio::test]
async fn volume_and_latency_are_those_of_the_events() {
    let insert = format!(
        "{INSERT} select gen_random_uuid(), now() - i * interval '1 minute', now(), 1, 'default', case when i % 10 = 0 then 'ERROR' else 'INFO' end,
           'api', null, 'm', null, null, null, jsonb_build_object('duration_ms', i), null from generate_series(1, 100) i"
    );
    with_events(&insert, async |database| {
        assert_eq!(
            lines(database, "select level, sum(events), sum(errors) from get_log_volume(interval '2 hours', interval '3 hours') group by 1 order by 1").await,
            ["ERROR 10 10", "INFO 90 0"]
        );
        assert_eq!(lines(database, "select sum(events) from get_log_volume(interval '2 hours', p_level := 'error')").await, ["10"]);
        let latency = rows(database, "select * from get_latency_stats(interval '2 hours')").await;
        let [row] = latency.as_slice() else { panic!("one service") };
        let of = |column: &str| row.get::<f64, _>(column);
        assert_eq!((row.get::<i64, _>("requests"), of("avg_ms"), of("max_ms")), (100, 50.5, 100.0));
        for (column, exact) in [("p50_ms", 50.0), ("p95_ms", 95.0), ("p99_ms", 99.0)] {
            assert!((of(column) - exact).abs() <= 0.075 * exact, "{column} = {} and not about {exact}", of(column));
        }
    })
    .await;
}

#[tokio::test]
async fn services_follow_each_other_as_their_requests_went() {
    let insert = format!(
        "{INSERT} select gen_random_uuid(), now() - interval '10 minutes' + r * interval '1 second' + s * interval '20 milliseconds', now(), 1, 'default',
           case when s = 2 and r <= 3 then 'ERROR' else 'INFO' end, (array['web', 'api', 'db'])[s + 1], null, 'm',
           case when r > 5 then 'c' || r end, null, case when r <= 5 then 't' || r end, null, null
         from generate_series(1, 10) r, generate_series(0, 2) s where s < 2 or r <= 7"
    );
    with_events(&insert, async |database| {
        assert_eq!(
            lines(
                database,
                "select from_service, to_service, requests, failed, median_lag_ms from service_dependencies()"
            )
            .await,
            ["web api 10 0 20", "api db 7 3 20"]
        );
    })
    .await;
}

#[tokio::test]
async fn an_anomaly_is_what_differs_from_the_same_time_of_earlier_days() {
    // In the middle of the last hour of eight days: 40 events and 1 error a day, today 20 errors, and one service silent.
    let insert = format!(
        "{INSERT} select gen_random_uuid(), now() - d * interval '1 day' - interval '30 minutes' - i * interval '1 second', now(), 1, 'default',
           case when i = 0 or (d = 0 and s = 'api' and i < 20) then 'ERROR' else 'INFO' end, s, null, 'm', null, null, null,
           case when s = 'web' then jsonb_build_object('duration_ms', case when d = 0 then 900 else 100 + d end) end, null
         from generate_series(0, 7) d, unnest(array['api', 'web', 'gone', 'same']) s, generate_series(0, 39) i where s <> 'gone' or d > 0;
         {INSERT} select gen_random_uuid(), now() - interval '20 minutes', now(), 1, 'default', 'INFO', 'new', null, 'm', null, null, null, null, null"
    );
    with_events(&insert, async |database| {
        assert_eq!(
            lines(
                database,
                "select service, measure, now_value, usual, days from detect_anomalies(interval '1 hour') order by 1, 2"
            )
            .await,
            [
                "api errors 20 1 7",
                "gone events 0 40 7",
                "web avg_duration_ms 900 104 7"
            ]
        );
        assert_eq!(
            lines(
                database,
                "select score > 0 from detect_anomalies() where service = 'api'"
            )
            .await,
            ["true"]
        );
        assert_eq!(
            lines(
                database,
                "select score < 0 from detect_anomalies() where service = 'gone'"
            )
            .await,
            ["true"]
        );
        assert_eq!(
            lines(
                database,
                "select service from silent_services(interval '5 minutes', interval '12 hours')"
            )
            .await
            .len(),
            4
        );
        assert_eq!(
            lines(
                database,
                "select service from silent_services(interval '1 hour', interval '2 days')"
            )
            .await,
            ["gone"]
        );
    })
    .await;
}

/// Agents read the comments, and a caller's `search_path` must not decide what a function means.
#[tokio::test]
async fn every_function_is_documented_stable_and_pins_its_search_path() {
    with_events("", async |database| {
        let functions = "from pg_proc p join pg_namespace n on n.oid = p.pronamespace
          where n.nspname = 'public' and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')";
        assert!(database.number(&format!("select count(*) {functions}")).await >= 15);
        let undocumented = format!("select proname {functions} and obj_description(p.oid, 'pg_proc') is null");
        assert_eq!(lines(database, &undocumented).await, Vec::<String>::new());
        let volatile = format!("select proname {functions} and provolatile = 'v' and proname <> 'annotate_log'");
        assert_eq!(lines(database, &volatile).await, Vec::<String>::new());
        let unpinned = format!(
            "select proname {functions} and p.prokind = 'f' and proname <> 'log_duration_ms'
               and not coalesce(p.proconfig @> array['search_path=pg_catalog, pg_temp'], false)"
        );
        assert_eq!(lines(database, &unpinned).await, Vec::<String>::new());
    })
    .await;
}
