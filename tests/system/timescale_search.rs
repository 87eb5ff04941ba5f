//! The SQL that people and agents ask: `search_logs` and `get_error_stats`.

use log_writer_service::event::{Level, LogEvent};

use crate::timescale_database::{MODE, TestDatabase, event, request, with_database};

/// Ten events of now, and one of an earlier day.
async fn fill(database: &TestDatabase) {
    let now: i64 = database
        .number("select (extract(epoch from now()) * 1000000)::bigint")
        .await;
    let mut events: Vec<LogEvent<'_>> = (0..10)
        .map(|number| {
            let mut event = event(number);
            event.timestamp.0 = now - i64::from(number) * 1_000_000;
            event.level = if number % 2 == 0 { Level::Error } else { Level::Info };
            if number == 3 {
                event.message = "100% of_disk \\ used".into();
            }
            event.service = if number < 5 { "api".into() } else { "billing".into() };
            event.user_id = Some(format!("user-{}", number % 3).into());
            event.trace_id = Some(format!("{number:032x}").into());
            event
        })
        .collect();
    let mut old = event(99);
    old.timestamp.0 = now - 3 * 86_400_000_000;
    old.correlation_id = Some("abc-123-def".into());
    events.push(old);
    let mut committer = database.committer("one").await;
    committer
        .commit(&mut [&mut request("a", &events)], &MODE)
        .await
        .expect("committed");
}

async fn found(database: &TestDatabase, arguments: &str) -> Vec<String> {
    let sql = format!("select message from search_logs({arguments})");
    sqlx::query_scalar(&sql).fetch_all(&database.pool).await.expect(&sql)
}

#[tokio::test]
async fn search_logs_finds_by_each_parameter_newest_first() {
    with_database(async |database| {
        fill(database).await;
        let errors: Vec<String> = [0, 2, 4, 6, 8].map(|number| format!("event {number}")).to_vec();
        assert_eq!(found(database, "p_level := 'ERROR'").await, errors);
        assert_eq!(found(database, "p_level := 'error', p_limit := 2").await, errors[..2]);
        assert_eq!(found(database, "").await.len(), 10, "the last hour");
        assert_eq!(found(database, "p_correlation_id := 'abc-123-def'").await, ["event 99"], "whatever its time");
        assert_eq!(found(database, "p_start_time := now() - interval '7 days'").await.len(), 11);
        assert_eq!(found(database, "p_end_time := now() - interval '1 day'").await, ["event 99"]);
        assert_eq!(found(database, "p_user_id := 'user-1', p_service := 'api'").await, ["event 1", "event 4"]);
        assert_eq!(found(database, &format!("p_trace_id := '{:032X}'", 7)).await, ["event 7"]);
        assert_eq!(found(database, "p_query := '0% OF_D'").await, ["100% of_disk \\ used"]);
        assert_eq!(found(database, "p_query := '0%used'").await, Vec::<String>::new(), "no pattern, but text");
        assert_eq!(found(database, "p_query := '\\ us'").await.len(), 1);
        assert_eq!(found(database, "p_tags := array['a'], p_fields := '{\"n\": 1}'").await.len(), 10);
        assert_eq!(found(database, "p_tags := array['z']").await.len(), 0);
        assert_eq!(found(database, "p_tenant := 'blue'").await.len(), 0);
        assert_eq!(
            found(database, "p_level := 'ERROR', p_user_id := '123e4567-e89b-12d3-a456-426614174000', p_start_time := now() - interval '1 hour'")
                .await
                .len(),
            0
        );
    })
    .await;
}

#[tokio::test]
async fn get_error_stats_counts_errors_by_service() {
    with_database(async |database| {
        fill(database).await;
        let stats: Vec<(String, i64, i64, f64, i64, i64)> = sqlx::query_as(
            "select service, errors, total, error_rate, distinct_messages, users from get_error_stats(interval '6 hours')",
        )
        .fetch_all(&database.pool)
        .await
        .expect("statistics");
        assert_eq!(stats, [("api".to_owned(), 3, 5, 0.6, 3, 3), ("billing".to_owned(), 2, 5, 0.4, 2, 2)]);
        let order: bool = sqlx::query_scalar("select bool_and(first_seen <= last_seen) from get_error_stats()")
            .fetch_one(&database.pool)
            .await
            .expect("statistics");
        assert!(order);
    })
    .await;
}
