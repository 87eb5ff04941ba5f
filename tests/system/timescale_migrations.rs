//! Migrations: from nothing, again, at once, and beside what is not ours.

use log_writer_service::{
    event::{LogEvent, Timestamp},
    timescale::{Edition, Monitor, StoreErrorKind, connect_pool, migrate, pending_migrations},
};

use sqlx::Executor;

use crate::timescale_database::{DAY, MODE, event, request, with_database, with_empty_database};

#[tokio::test]
async fn an_empty_database_gets_everything_and_a_second_run_does_nothing() {
    with_empty_database(async |database| {
        let pending = pending_migrations(&database.pool).await.expect("asked");
        let before = database.status().await;
        assert_eq!((before.timescaledb_version, before.schema_version), (None, None));
        let first = migrate(&database.settings).await.expect("migrated");
        assert_eq!((first.applied.len(), first.already_there), (pending.len(), 0));
        assert!(!pending.is_empty());
        assert!(pending_migrations(&database.pool).await.expect("asked").is_empty());
        let second = migrate(&database.settings).await.expect("migrated");
        assert_eq!((second.applied.len(), second.already_there), (0, pending.len()));
        // Sessions opened before the extension was made have not loaded it.
        let pool = connect_pool(&database.settings).await.expect("a pool");
        let status = Monitor::new(pool)
            .status(std::time::Duration::from_secs(10))
            .await
            .expect("asked");
        assert_eq!(
            status.timescaledb_version.as_deref(),
            Some(first.timescaledb_version.as_str())
        );
        assert_eq!((status.edition, status.schema_version.is_some()), (first.edition, true));
    })
    .await;
}

#[tokio::test]
async fn replicas_may_migrate_at_once() {
    with_empty_database(async |database| {
        let settings = &database.settings;
        let reports = tokio::join!(
            migrate(settings),
            migrate(settings),
            migrate(settings),
            migrate(settings)
        );
        let applied: usize = [reports.0, reports.1, reports.2, reports.3]
            .into_iter()
            .map(|report| report.expect("migrated").applied.len())
            .sum();
        let total = database
            .number("select count(*) from log_writer._sqlx_migrations")
            .await;
        assert_eq!(i64::try_from(applied), Ok(total), "each migration is applied by one");
    })
    .await;
}

#[tokio::test]
async fn a_migrator_that_does_not_come_to_an_end_is_not_waited_for_for_ever() {
    with_empty_database(async |database| {
        let mut stuck = database.bystander().await;
        // The lock's number, `log_writ` in ASCII, is the same in every version.
        stuck
            .execute("select pg_advisory_lock(x'6c6f675f77726974'::bigint)")
            .await
            .expect("locked");
        let error = migrate(&database.settings).await.expect_err("locked");
        assert_eq!(error.kind(), StoreErrorKind::LockTimeout);
        assert!(error.to_string().contains("another migrator"), "{error}");
        drop(stuck);
        migrate(&database.settings).await.expect("free again");
    })
    .await;
}

#[tokio::test]
async fn a_table_that_is_not_ours_stops_the_migration_and_stays_as_it_is() {
    with_empty_database(async |database| {
        database.execute("create table public.application_logs (line text); insert into application_logs values ('precious')").await;
        let error = migrate(&database.settings).await.expect_err("not ours");
        assert_eq!(error.kind(), StoreErrorKind::Setup);
        assert!(error.to_string().contains("was not made by log-writer"), "{error}");
        assert_eq!(database.text("select line from application_logs").await, "precious");
        assert_eq!(database.number("select count(*) from pg_class where relnamespace = 'log_writer'::regnamespace and relkind = 'r' and relname <> '_sqlx_migrations'").await, 0);
        database.execute("alter table application_logs rename to theirs").await;
        migrate(&database.settings).await.expect("out of the way");
        assert_eq!(database.text("select line from theirs").await, "precious");
    })
    .await;
}

#[tokio::test]
async fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
    with_database(async |database| {
        database
            .execute("update log_writer._sqlx_migrations set checksum = 'other' where version = 20261121000001")
            .await;
        let error = migrate(&database.settings).await.expect_err("changed");
        assert_eq!(error.kind(), StoreErrorKind::Setup);
        assert!(error.to_string().contains("20261121000001"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn the_table_is_a_hypertable_with_the_configured_chunks_and_our_indexes_only() {
    with_empty_database(async |database| {
        let mut settings = database.settings.clone();
        settings.chunk_interval = std::time::Duration::from_secs(3600);
        migrate(&settings).await.expect("migrated");
        let interval = "select time_interval::text from timescaledb_information.dimensions where hypertable_name = 'application_logs'";
        assert_eq!(database.text(interval).await, "01:00:00");
        let indexes = "select string_agg(indexname, ' ' order by indexname) from pg_indexes where schemaname = 'public' and tablename = 'application_logs'";
        assert_eq!(
            database.text(indexes).await,
            "application_logs_batch_id_idx application_logs_correlation_id_timestamp_idx application_logs_errors_timestamp_idx application_logs_pkey \
             application_logs_service_level_timestamp_idx application_logs_timestamp_idx \
             application_logs_trace_id_timestamp_idx application_logs_user_id_timestamp_idx"
        );
    })
    .await;
}

#[tokio::test]
async fn chunks_go_to_the_columnstore_a_day_after_their_end_where_there_is_one() {
    with_database(async |database| {
        let is_community = database.status().await.edition == Edition::Community;
        let policies = "select coalesce(string_agg(proc_name || ' ' || (config ->> 'compress_after'), ', '), '')
            from timescaledb_information.jobs where hypertable_name = 'application_logs'";
        let expected = if is_community { "policy_compression 1 day" } else { "" };
        assert_eq!(database.text(policies).await, expected);
        let now = database
            .number("select (extract(epoch from now()) * 1000000)::bigint")
            .await;
        let mut committer = database.committer("one").await;
        let events: Vec<LogEvent<'_>> = (0..5)
            .map(|day| LogEvent {
                timestamp: Timestamp(now - i64::from(day) * DAY),
                ..event(day)
            })
            .collect();
        committer
            .commit(&mut [&mut request("five days", &events)], &MODE)
            .await
            .expect("committed");
        let runs = database.run_jobs("policy_compression").await;
        assert_eq!(runs, usize::from(is_community));
        // Today's and yesterday's stay: the latter ended less than a day ago.
        let compressed =
            "select string_agg(case when is_compressed then 'columns' else 'rows' end, ' ' order by range_start desc)
            from timescaledb_information.chunks where hypertable_name = 'application_logs'";
        let expected = if is_community {
            "rows rows columns columns columns"
        } else {
            "rows rows rows rows rows"
        };
        assert_eq!(database.text(compressed).await, expected);
    })
    .await;
}

#[tokio::test]
async fn people_and_agents_find_every_public_object_described() {
    with_database(async |database| {
        let undescribed = database
            .number(
                "select count(*) from pg_attribute where attrelid = 'public.application_logs'::regclass and attnum > 0
                   and not attisdropped and col_description(attrelid, attnum) is null",
            )
            .await;
        assert_eq!(undescribed, 0, "columns without a comment");
        assert_eq!(
            database
                .number(
                    "select count(*) from pg_proc where proname in ('search_logs', 'get_error_stats')
                       and obj_description(oid, 'pg_proc') is not null and proconfig::text like '%search_path%'
                       and provolatile = 's'",
                )
                .await,
            2
        );
    })
    .await;
}
