//! What retention drops is archived first, all of it, and comes back as it was; what goes wrong meanwhile drops nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use log_writer_service::{
    archive::{ArchiveError, Day, FileEntry, Keeper, RestoreScope, Restored, Restorer, Round, days},
    config::{Config, DEFAULT_FILE, Database},
    event::Timestamp,
    timescale::{ActionOutcome, Actor, ArchiveTurn, ArchivedSpan, Span, connect_pool, expire, record, refresh_stats},
};
use log_writer_tests::roles::Roles;
use sqlx::PgPool;
use tempfile::TempDir;

use crate::timescale_database::{TestDatabase, settings, with_database};

/// Three days of events of some tenants, one of whose names would be a path, one that shares a name with it once it is cut.
const SAMPLE: &str = "
insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, host, message,
  correlation_id, user_id, trace_id, span_id, tags, fields, error_details, performance_metrics, ai_analysis, pattern)
select gen_random_uuid(), date_trunc('day', now(), 'UTC') - interval '41 days' + i * interval '43.000017 s', now() - interval '41 days', i / 100,
  (array['default', '../../etc/passwd', 'Blue', 'blue', ''])[1 + i % 5], (array['INFO', 'WARN', 'ERROR'])[1 + i % 3],
  'svc-' || i % 7, case when i % 3 = 0 then 'host-' || i end, E'message\\n\\t\"' || i || '\" é' || repeat('x', i % 300),
  case when i % 4 = 0 then '' end, case when i % 5 = 0 then 'user-' || i % 97 end, case when i % 6 = 0 then 'ab12' end,
  case when i % 6 = 0 then 'cd' end, case when i % 7 = 0 then array['a', '', 'b,c \"d\"'] end,
  case when i % 2 = 0 then jsonb_build_object('n', i / 7.0, 'big', 12345678901234567890.125, 'deep', '[[{\"a\": null}]]'::jsonb) end,
  case when i % 3 = 2 then '{\"type\": \"E\", \"stack\": \"a\\nb\"}'::jsonb end,
  case when i % 2 = 0 then jsonb_build_object('duration_ms', i % 3000) end,
  case when i % 50 = 0 then '{\"cause\": \"disk\"}'::jsonb end, case when i % 3 > 0 then i % 50 - 25 end
from generate_series(0, 6000) i";

/// Every column of every row but the batch.
const ROWS: &str = "select count(*) || ' ' || coalesce(md5(string_agg((to_jsonb(l) - 'batch_id')::text, E'\\n'
    order by l.id, l.\"timestamp\", l.tenant)), '') from application_logs l";

/// All counts.
const COUNTS: &str = "select concat_ws(' ',
    (select count(*) || md5(string_agg(s::text, E'\\n' order by s::text)) from log_stats_1m s),
    (select count(*) || md5(string_agg(s::text, E'\\n' order by s::text)) from log_stats_1h s),
    (select count(*) || md5(string_agg(s::text, E'\\n' order by s::text)) from log_stats_1d s),
    (select count(*) || md5(string_agg(s::text, E'\\n' order by s::text)) from log_stats_5m s),
    (select count(*) || md5(string_agg(s::text, E'\\n' order by s::text)) from log_errors_5m s),
    (select count(*) || md5(string_agg(s::text, E'\\n' order by s::text)) from log_pattern_stats_5m s))";

const LET_GO: &str = "update log_writer.holds set until = now() - interval '1 second'";
const DAY: Duration = Duration::from_secs(86_400);

/// An archive of its own for a database.
struct Archive {
    folder: TempDir,
    config: Config,
    keeper: Keeper,
}

impl Archive {
    fn of(database: &TestDatabase) -> Self {
        Self::with(&database.settings)
    }

    fn with(settings: &Database) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config: Config = toml::from_str(DEFAULT_FILE).expect("the defaults");
        config.database = settings.clone();
        config.retention.archive_path = Some(folder.path().to_owned());
        let keeper = Keeper::new(&config).expect("it is on");
        Self { folder, config, keeper }
    }

    async fn round(&self) -> Round {
        self.keeper
            .round()
            .await
            .expect("archived")
            .expect("nobody else archives here")
    }

    fn files(&self) -> Vec<(Day, FileEntry)> {
        let all = days(self.folder.path()).expect("days").into_iter().flat_map(|day| {
            let manifest = day.manifest().expect("readable").expect("a manifest");
            manifest.files.into_iter().map(move |entry| (day.clone(), entry))
        });
        all.collect()
    }

    fn path_of(&self, tenant: &str) -> PathBuf {
        let files = self.files();
        let (day, entry) = files.iter().find(|(_, entry)| entry.tenant == tenant).expect("a file");
        day.folder().join(&entry.file)
    }

    async fn try_restore(&self, pool: &PgPool, tenant: Option<&str>, span: Span) -> Result<Restored, ArchiveError> {
        let running = ActionOutcome::Running;
        let target = serde_json::json!({});
        let action = record(pool, &Actor::of_process(), "archive restore", &target, 0, running)
            .await
            .expect("recorded");
        let mut restorer = Restorer::new(&self.config, pool, None, action, "the test".to_owned());
        let scope = RestoreScope { span, keep: DAY };
        let mut sum = Restored::default();
        for (day, entry) in self.files() {
            if tenant.is_none_or(|tenant| tenant == entry.tenant) && scope.meets(&entry) {
                let add = |more: Restored| {
                    sum.events += more.events;
                    sum.committed += more.committed;
                    sum.duplicates += more.duplicates;
                    sum.refused += more.refused;
                };
                restorer.restore(&day, &entry, scope, add).await?;
            }
        }
        Ok(sum)
    }

    async fn restore(&self, database: &TestDatabase, tenant: Option<&str>, span: Span) -> (u64, u64, u64) {
        let done = self.try_restore(&database.pool, tenant, span).await.expect("restored");
        assert_eq!(done.refused, 0);
        (done.events, done.committed, done.duplicates)
    }
}

const ALWAYS: Span = Span {
    from: Timestamp(i64::MIN),
    to: Timestamp(i64::MAX),
};

/// Counts all that is there, however old.
async fn count(database: &TestDatabase) {
    if database.text("select log_writer.timescale_edition()").await == "community" {
        return database.refresh_aggregates("null", "now() - interval '20 days'").await;
    }
    while database
        .text("select log_writer.refresh_stats(interval '10 days')::text")
        .await
        == "true"
    {}
}

/// What the service and the jobs of Community do each minute.
async fn keep_counts_up_to_date(database: &TestDatabase) {
    for _ in 0..30 {
        refresh_stats(&database.pool).await.expect("counted");
    }
    if database.text("select log_writer.timescale_edition()").await == "community" {
        assert_eq!(database.run_jobs("policy_refresh_continuous_aggregate").await, 6);
    }
}

/// As many rows in the books as in the table, for what a test put there or retention dropped.
async fn balance_books(database: &TestDatabase) {
    database
        .execute(
            "insert into log_writer.books (worker, received, committed, unmirrored)
             select 'the balance', n, n, n from (select count(*) - (select coalesce(sum(committed), 0) from log_writer.books) as n
               from application_logs) c
             on conflict (worker) do update set received = books.received + excluded.received,
               committed = books.committed + excluded.committed, unmirrored = books.unmirrored + excluded.unmirrored",
        )
        .await;
}

async fn rows(database: &TestDatabase) -> String {
    database.text(ROWS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_archived_and_dropped_comes_back_as_it_was_and_counts_stay() {
    with_database(async |database| {
        let archive = Archive::of(database);
        database.execute(SAMPLE).await;
        count(database).await;
        let (before, counts) = (rows(database).await, database.text(COUNTS).await);
        let round = archive.round().await;
        assert_eq!((round.events, round.chunks, round.left), (6001, 3, 0), "{round:?}");
        assert_eq!(database.number("select count(*) from application_logs").await, 0);
        assert_eq!(database.text(COUNTS).await, counts, "after the drop");
        for (day, entry) in archive.files() {
            assert_eq!(day.check_events(&entry, None).expect("whole"), entry.events);
        }
        // A part first: what is there then is passed over.
        let some = archive.restore(database, Some("../../etc/passwd"), ALWAYS).await;
        assert_eq!(some, (1200, 1200, 0));
        keep_counts_up_to_date(database).await;
        assert_eq!(database.text(COUNTS).await, counts, "after the restore of a part");
        assert_eq!(archive.restore(database, None, ALWAYS).await, (6001, 4801, 1200));
        assert_eq!(rows(database).await, before, "restored");
        assert_eq!(archive.restore(database, None, ALWAYS).await, (6001, 0, 6001));
        assert_eq!(rows(database).await, before, "restored twice");
        keep_counts_up_to_date(database).await;
        assert_eq!(database.text(COUNTS).await, counts, "after the restore");
        assert_eq!(archive.round().await, Round::default(), "it is held");
        assert_eq!(rows(database).await, before, "held");
        database.execute(LET_GO).await;
        let round = archive.round().await;
        assert_eq!(
            (round.events, round.chunks),
            (0, 3),
            "nothing new to archive: {round:?}"
        );
        assert_eq!(database.text(COUNTS).await, counts, "after the second drop");
        balance_books(database).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_again_keeps_what_the_archive_had_and_takes_what_is_new() {
    with_database(async |database| {
        let archive = Archive::of(database);
        database.execute(SAMPLE).await;
        count(database).await;
        let before = rows(database).await;
        archive.round().await;
        // A tenant comes back in part, one of its events is analysed, another comes late.
        let second = archive.files()[0].0.span();
        let half = Span { from: second.from, to: Timestamp(second.from.0 + 43_200_000_000) };
        let (events, committed, _) = archive.restore(database, Some("Blue"), half).await;
        assert!(events == committed && (1..402).contains(&events), "{events}");
        let change = "update application_logs set ai_analysis = '{\"found\": \"later\"}'
            where id = (select id from application_logs order by id limit 1)";
        database.execute(change).await;
        database
            .execute("insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message)
                select gen_random_uuid(), min(\"timestamp\") + interval '1 us', now(), 0, 'Blue', 'INFO', 's', 'late'
                from application_logs")
            .await;
        let changed = database.number("select count(*) from application_logs where ai_analysis ? 'found'").await;
        assert_eq!(changed, 1);
        database.execute(LET_GO).await;
        let round = archive.round().await;
        assert_eq!((round.chunks, round.left), (1, 0), "{round:?}");
        let held: u64 = archive.files().iter().map(|(_, entry)| entry.events).sum();
        assert_eq!(held, 6002, "nothing of the archive was lost");
        archive.restore(database, None, ALWAYS).await;
        let late = database.number("delete from application_logs where message = 'late' returning 1::bigint").await;
        let found = "update application_logs set ai_analysis = null where ai_analysis ? 'found' and
            ai_analysis - 'found' = '{}' returning 1::bigint";
        assert_eq!((late, database.number(found).await), (1, 1));
        let cause = "update application_logs l set ai_analysis = '{\"cause\": \"disk\"}'
            where ai_analysis is null and split_part(message, '\"', 2)::bigint % 50 = 0";
        database.execute(cause).await;
        assert_eq!(rows(database).await, before);
        // One file a tenant and day, and the manifest: what was replaced is gone.
        for day in days(archive.folder.path()).expect("days") {
            let files = fs::read_dir(day.folder()).expect("a folder").count();
            assert_eq!(files, 6, "{day:?}");
        }
        balance_books(database).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_changed_after_it_was_archived_is_not_dropped() {
    with_database(async |database| {
        database.execute(SAMPLE).await;
        count(database).await;
        let mut turn = ArchiveTurn::begin(&database.settings)
            .await
            .expect("connected")
            .expect("free");
        let keep = 30 * DAY;
        let chunks = turn.expired_chunks(keep).await.expect("chunks");
        assert_eq!(chunks.len(), 3);
        let archived = async |turn: &mut ArchiveTurn| {
            let states = turn.state(chunks[0]).await.expect("counted");
            ArchivedSpan {
                from: chunks[0].from.into(),
                to: chunks[0].to.into(),
                events: states.iter().map(|state| state.events).sum(),
                fingerprint: states.iter().map(|state| state.fingerprint).sum::<i128>().to_string(),
            }
        };
        let oldest = "(select id from application_logs order by \"timestamp\" limit 1)";
        for change in [
            "insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message)
               select gen_random_uuid(), min(\"timestamp\"), now(), 0, 'x', 'INFO', 's', 'late' from application_logs"
                .to_owned(),
            format!("update application_logs set ai_analysis = '{{\"a\": 1}}' where id = {oldest}"),
            format!("update application_logs set tags = array['new'] where id = {oldest}"),
            format!("delete from application_logs where id = {oldest}"),
        ] {
            let before = archived(&mut turn).await;
            database.execute(&change).await;
            let dropped = turn.drop_chunk(keep, chunks[0], &[before]).await.expect("asked");
            assert!(!dropped, "{change}");
        }
        let now = archived(&mut turn).await;
        for part in [
            Vec::new(),
            vec![ArchivedSpan {
                to: now.from,
                ..now.clone()
            }],
        ] {
            let dropped = turn.drop_chunk(keep, chunks[0], &part).await.expect("asked");
            assert!(!dropped, "not all of it is archived");
        }
        assert!(
            !turn
                .drop_chunk(60 * DAY, chunks[0], std::slice::from_ref(&now))
                .await
                .expect("asked"),
            "too young"
        );
        assert!(turn.drop_chunk(keep, chunks[0], &[now]).await.expect("asked"));
        assert_eq!(turn.expired_chunks(keep).await.expect("chunks").len(), 2);
        balance_books(database).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_can_be_written_nothing_is_dropped() {
    with_database(async |database| {
        let archive = Archive::of(database);
        database.execute(SAMPLE).await;
        count(database).await;
        let before = rows(database).await;
        let gone = archive.folder.path().with_extension("gone");
        fs::rename(archive.folder.path(), &gone).expect("renamed");
        let error = archive
            .keeper
            .round()
            .await
            .expect_err("the folder is gone")
            .to_string();
        assert!(
            error.contains("find the archive") && error.contains(&*archive.folder.path().to_string_lossy()),
            "{error}"
        );
        assert!(
            !archive.folder.path().exists(),
            "a folder that is gone is not made anew"
        );
        fs::rename(&gone, archive.folder.path()).expect("renamed");
        // A file where a day's folder is to be.
        let day = database
            .text("select min(\"timestamp\")::date::text from application_logs")
            .await;
        fs::write(archive.folder.path().join(&day), "").expect("written");
        let error = archive
            .keeper
            .round()
            .await
            .expect_err("no folder can be made")
            .to_string();
        assert!(error.contains(&day), "{error}");
        assert_eq!(rows(database).await, before);
        fs::remove_file(archive.folder.path().join(&day)).expect("removed");
        assert_eq!(archive.round().await.chunks, 3);
        balance_books(database).await;
    })
    .await;
}

fn flip_a_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).expect("a byte") ^= 1;
    fs::write(path, bytes).expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_named_restores_nothing_and_lets_nothing_be_dropped() {
    with_database(async |database| {
        let archive = Archive::of(database);
        database.execute(SAMPLE).await;
        count(database).await;
        archive.round().await;
        archive.restore(database, None, ALWAYS).await;
        let before = rows(database).await;
        let path = archive.path_of("blue");
        let whole = fs::read(&path).expect("a file");
        flip_a_byte(&path);
        let refused = |error: ArchiveError| {
            let error = error.to_string();
            assert!(
                error.contains("is damaged") && error.contains(&*path.to_string_lossy()),
                "{error}"
            );
        };
        let (day, entry) = archive
            .files()
            .into_iter()
            .find(|(_, entry)| entry.tenant == "blue")
            .expect("a file");
        refused(day.check_events(&entry, None).expect_err("damaged"));
        database
            .execute("delete from application_logs where tenant = 'blue'")
            .await;
        refused(
            archive
                .try_restore(&database.pool, Some("blue"), ALWAYS)
                .await
                .expect_err("damaged"),
        );
        assert_eq!(
            database
                .number("select count(*) from application_logs where tenant = 'blue'")
                .await,
            0
        );
        database.execute(LET_GO).await;
        let others = rows(database).await;
        refused(archive.keeper.round().await.expect_err("damaged"));
        assert_eq!(rows(database).await, others, "nothing was dropped");
        // Cut short, and no file at all.
        fs::write(&path, &whole[..whole.len() / 2]).expect("written");
        refused(
            archive
                .try_restore(&database.pool, Some("blue"), ALWAYS)
                .await
                .expect_err("cut"),
        );
        fs::remove_file(&path).expect("removed");
        let error = archive.keeper.round().await.expect_err("no file").to_string();
        assert!(error.contains(&*path.to_string_lossy()), "{error}");
        fs::write(&path, &whole).expect("written");
        archive.restore(database, None, ALWAYS).await;
        assert_eq!(rows(database).await, before);
        // A manifest that names a file elsewhere, or is of a form that is not known.
        let manifest = day.folder().join("manifest.json");
        let text = fs::read_to_string(&manifest).expect("a manifest");
        for wrong in [
            text.replace(&entry.file, "../../other.ndjson.zst"),
            text.replace("\"format\": 1", "\"format\": 2"),
            "{".to_owned(),
        ] {
            fs::write(&manifest, wrong).expect("written");
            assert!(matches!(day.manifest(), Err(ArchiveError::Damaged { .. })));
        }
        balance_books(database).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_an_hour_or_a_week_and_many_tenants_are_archived_whole() {
    for (interval, tenants) in [("1h", 40), ("7d", 3), ("36h", 17)] {
        with_database(async |database| {
            let width = interval.replace('h', " hours").replace('d', " days");
            database
                .execute(&format!("select set_chunk_time_interval('application_logs', interval '{width}')"))
                .await;
            let archive = Archive::of(database);
            database
                .execute(&format!(
                    "insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message)
                     select gen_random_uuid(), date_trunc('day', now(), 'UTC') - interval '50 days' + i * interval '97 s', now(), 0,
                       'tenant ' || i % {tenants}, 'INFO', 's', 'm' from generate_series(0, 3000) i"
                ))
                .await;
            count(database).await;
            let before = rows(database).await;
            let round = archive.round().await;
            assert_eq!((round.events, round.left), (3001, 0), "{interval}: {round:?}");
            assert_eq!(database.number("select count(*) from application_logs").await, 0, "{interval}");
            assert_eq!(archive.restore(database, None, ALWAYS).await, (3001, 3001, 0), "{interval}");
            assert_eq!(rows(database).await, before, "{interval}");
            balance_books(database).await;
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_archives_at_a_time_and_another_goes_on_when_it_ends() {
    with_database(async |database| {
        let archive = Archive::of(database);
        database.execute(SAMPLE).await;
        count(database).await;
        let turn = ArchiveTurn::begin(&database.settings)
            .await
            .expect("connected")
            .expect("free");
        assert_eq!(archive.keeper.round().await.expect("asked"), None);
        assert_eq!(database.number("select count(*) from application_logs").await, 6001);
        turn.end().await;
        assert_eq!(archive.round().await.chunks, 3);
        balance_books(database).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_drops_nothing_that_is_not_counted_delivered_or_let_go() {
    with_database(async |database| {
        let mut archive = Archive::of(database);
        database.execute(SAMPLE).await;
        let is_community = database.text("select log_writer.timescale_edition()").await == "community";
        archive.config.retention.archive_path = None;
        let retention = archive.config.retention.clone();
        let drop_old = async || expire(&database.pool, &retention).await.expect("asked");
        if !is_community {
            assert_eq!((drop_old().await, archive.round().await.chunks), (0, 0), "nothing is counted");
            count(database).await;
            // An event that came late to the second day: the first one alone is settled.
            database
                .execute("select log_writer.note_late_events(array[t], array[t])
                    from (select min(\"timestamp\") + interval '1 day' as t from application_logs) l")
                .await;
            assert_eq!(drop_old().await, 1, "up to what is to be counted again");
            assert_eq!(archive.round().await.chunks, 0);
            database.execute("delete from log_writer.stats_stale").await;
        }
        let there = "select count(distinct \"timestamp\"::date) from application_logs";
        let left = database.number(there).await;
        database
            .execute("insert into log_writer.outbox (batch_id, target, tenants, first_time, last_time, events, bytes)
                select 1, 'x', array['default'], min(\"timestamp\"), max(\"timestamp\"), 0, 0 from application_logs")
            .await;
        assert_eq!((drop_old().await, archive.round().await.chunks), (0, 0), "nothing is delivered");
        database.execute("delete from log_writer.outbox").await;
        let hold = "select log_writer.hold_events(min(\"timestamp\"), min(\"timestamp\") + interval '1 hour', interval '1 day', 'test')
            from application_logs";
        database.execute(hold).await;
        assert_eq!(i64::try_from(drop_old().await), Ok(left - 1), "all but what is held");
        database.execute(LET_GO).await;
        assert_eq!(drop_old().await, 1);
        balance_books(database).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_and_restore_need_no_more_than_the_rights_of_the_ingest_role() {
    let roles = Roles::create().await;
    let settings = settings(&roles.ingest_url());
    let (pool, archive) = (connect_pool(&settings).await.expect("a pool"), Archive::with(&settings));
    let there = || async {
        sqlx::query_scalar::<_, i64>("select count(*) from application_logs")
            .fetch_one(roles.database.pool())
            .await
            .expect("counted")
    };
    roles.database.execute(SAMPLE).await;
    while roles
        .database
        .text("select log_writer.refresh_stats(interval '10 days')::text")
        .await
        == "true"
    {}
    assert_eq!((archive.round().await.chunks, there().await), (3, 0));
    let done = archive.try_restore(&pool, None, ALWAYS).await.expect("restored");
    assert_eq!((done.committed, there().await), (6001, 6001));
    assert_eq!(archive.round().await, Round::default(), "it is held");
}
