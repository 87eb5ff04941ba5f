//! The database's roles, made by the SQL of docs/SECURITY.md: what each can do, and that it can do nothing else.

use std::time::Duration;

use log_writer_service::{
    config::Retention,
    timescale::{
        Committer, LetterFilter, Monitor, Outbox, connect_pool, end_hanging_sessions, expire, housekeep, migrate,
        purge_letters, refresh_stats, upkeep_letters,
    },
};
use log_writer_tests::{
    conditions::{SOON, eventually},
    roles::Roles,
    service::run_command,
};
use sqlx::{ConnectOptions, PgPool, postgres::PgConnectOptions};

use crate::timescale_database::{DAY, MODE, event, request, settings};

/// What a role is refused: insufficient privilege.
const REFUSED: &str = "42501";

async fn sqlstate(roles: &Roles, url: &str, statement: &str) -> Option<String> {
    let error = roles.attempt(url, statement).await.err()?;
    Some(error.as_database_error()?.code()?.into_owned())
}

async fn assert_refused(roles: &Roles, url: &str, statements: &[&str]) {
    for statement in statements {
        assert_eq!(
            sqlstate(roles, url, statement).await.as_deref(),
            Some(REFUSED),
            "{statement}"
        );
    }
}

async fn until(pool: &PgPool, sql: &str) {
    eventually(sql, SOON, || async {
        let is_so: bool = sqlx::query_scalar(sql).fetch_one(pool).await.expect(sql);
        is_so.then_some(())
    })
    .await;
}

/// Makes digests, books and a dead letter old enough to be looked after.
async fn age(roles: &Roles) {
    sqlx::raw_sql(
        "update log_writer.requests set noted_at = now() - interval '7 hours';
         update log_writer.books set updated_at = now() - interval '2 hours';
         insert into log_writer.dead_letters (stage, identity, reason, detail, last_at)
         values ('decode', 'old', 'old', 'old', now() - interval '1 year')",
    )
    .execute(roles.database.pool())
    .await
    .expect("aged");
}

#[tokio::test]
async fn housekeeping_needs_no_more_than_the_rights_of_the_ingest_role() {
    let roles = Roles::create().await;
    let mut settings = settings(&roles.ingest_url());
    let pool = connect_pool(&settings).await.expect("a pool");
    let mut today = event(1);
    let now = "select (extract(epoch from now()) * 1000000)::bigint";
    today.timestamp.0 = roles.database.number(now).await;
    let mut committer = Committer::connect(&settings, "one").await.expect("connected");
    for digest in ["new", "the same events again"] {
        let mut request = request(digest, &[today.clone()]);
        committer.commit(&mut [&mut request], &MODE).await.expect("committed");
    }
    age(&roles).await;
    // Frozen in mid-COPY: active for PostgreSQL, waiting for us.
    let options: PgConnectOptions = pool.connect_options().as_ref().clone();
    let mut frozen = options
        .application_name("log-writer committer frozen")
        .connect()
        .await
        .expect("connected");
    let copy = frozen
        .copy_in_raw("copy public.application_logs from stdin (format binary)")
        .await
        .expect("copying");
    settings.transaction_timeout = Duration::from_millis(1);
    until(
        roles.database.pool(),
        "select exists(select from pg_stat_activity where application_name = 'log-writer committer frozen'
           and datname = current_database() and wait_event_type = 'Client')",
    )
    .await;

    assert_eq!(end_hanging_sessions(&pool, &settings).await.expect("done"), 1);
    let done = housekeep(&pool, &settings, Duration::from_secs(3_600))
        .await
        .expect("done");
    assert_eq!((done.digests_purged, done.books_folded, done.chunk_made), (2, 1, true));
    drop(copy);
    assert_eq!(upkeep_letters(&pool, &settings).await.expect("letters").expired, 1);
    purge_letters(&pool, None, &LetterFilter::default(), Duration::ZERO, 1)
        .await
        .expect("purged");
    refresh_stats(&pool).await.expect("counted");
    let retention: Retention = toml::from_str(
        r#"
        enabled = true
        events = "30d"
        stats_minutes = "90d"
        stats = "365d"
        archive_zstd_level = 6
        "#,
    )
    .expect("settings");
    assert_eq!(expire(&pool, &retention).await.expect("expired"), 0, "nothing is old");
    Monitor::new(pool.clone())
        .snapshot(Duration::from_secs(5))
        .await
        .expect("a snapshot");
    Outbox::new(pool.clone())
        .release(uuid::Uuid::nil())
        .await
        .expect("released");
    committer.rehearse().await.expect("an empty commit");
}

#[tokio::test]
async fn the_ingest_role_can_neither_change_events_nor_tables_nor_rights() {
    let roles = Roles::create().await;
    let url = roles.ingest_url();
    let mut committer = Committer::connect(&settings(&url), "one").await.expect("connected");
    let mut request = request("one", &[event(1)]);
    committer.commit(&mut [&mut request], &MODE).await.expect("committed");
    assert_refused(
        &roles,
        &url,
        &[
            "update application_logs set message = 'other'",
            "delete from application_logs",
            "truncate application_logs",
            "drop table application_logs",
            "alter table application_logs add column more text",
            "create index on application_logs (host)",
            "create table public.more (line text)",
            "create table log_writer.more (line text)",
            "create schema more",
            "drop function log_writer.note_late_events",
            "create or replace function public.search_logs() returns void language sql as ''",
            "create trigger t before insert on application_logs execute function tsvector_update_trigger()",
            "insert into log_writer._sqlx_migrations select 1, '', now(), true, '', 0",
            "delete from log_writer._sqlx_migrations",
            "update log_writer.requests set received = 0",
            "update log_patterns set template = 'other'",
            "delete from log_patterns",
            "select * from log_writer.roles",
            "insert into log_writer.audit (action, actor, target, outcome) values ('a', 'b', '{}', 'done')",
            "select * from log_writer.audit",
            "update log_writer.audit set actor = 'somebody else'",
            "delete from log_writer.audit",
            "truncate log_writer.audit",
            "update log_writer.settings set value = '0'",
            "select log_writer.record_progress(id, 1, 'done') from generate_series(1, 100) id",
            "update log_writer.rights set privileges = 'all'",
            "select log_writer.grant_access('log_writer_ingest', 'reader')",
            "select log_writer.revoke_access('log_reader')",
            "select log_writer.apply_rights()",
            "select log_writer.set_rights('log_reader')",
            "select drop_chunks('application_logs', interval '1 day')",
            "alter role log_reader superuser",
            "set role log_writer_owner",
            "select pg_read_file('/etc/passwd')",
            "copy application_logs to program 'true'",
        ],
    )
    .await;
    let asked = roles
        .attempt(&url, "select log_writer.drop_old_events(interval '15 days')")
        .await;
    let error = asked.expect_err("younger than it must be kept").to_string();
    assert!(error.contains("at least 16 days"), "{error}");
    assert_eq!(roles.database.number("select count(*) from application_logs").await, 1);
}

fn arguments_of(function: &str) -> &'static str {
    match function {
        "public.get_log" | "public.get_log_context" => "gen_random_uuid()",
        "public.trace_logs" => "'x'",
        "public.log_stats_source" => "interval '1 hour'",
        "public.log_stats_span" | "public.log_counts_since" => "now()",
        "public.log_level" => "'error'",
        "public.log_duration_ms" => "'{}'",
        "public.log_histogram_sum" => "null",
        "public.log_histogram_add" => "null, null",
        "public.log_histogram_quantile" => "null, 0.5",
        _ => "",
    }
}

#[tokio::test]
async fn a_reader_reads_events_counts_and_functions_and_nothing_else() {
    let roles = Roles::create().await;
    let mut committer = Committer::connect(&settings(&roles.ingest_url()), "one")
        .await
        .expect("connected");
    let mut old = event(2);
    old.timestamp.0 -= 3 * DAY;
    let mut request = request("one", &[event(1), old]);
    committer.commit(&mut [&mut request], &MODE).await.expect("committed");
    let url = roles.reader_url();
    let functions: Vec<String> = sqlx::query_scalar(
        "select substr(object, 10) from log_writer.rights where access = 'reader' and object like 'function %'",
    )
    .fetch_all(roles.database.pool())
    .await
    .expect("rights");
    let calls = functions
        .iter()
        .map(|name| format!("select {name}({})", arguments_of(name)));
    let tables = [
        "application_logs",
        "log_patterns",
        "log_stats_1m",
        "log_stats_5m",
        "log_errors_5m",
        "log_stats_1h",
        "log_stats_1d",
        "log_pattern_stats_5m",
    ]
    .map(|name| format!("select * from {name}"));
    let asked: Vec<String> = calls.chain(tables).collect();
    assert!(asked.len() > 20, "{asked:?}");
    roles.run(&url, &asked).await;
    assert_refused(
        &roles,
        &url,
        &[
            "select * from log_writer.dead_letters",
            "select * from log_writer.outbox",
            "select * from log_writer.requests",
            "select * from log_writer.books",
            "select * from log_writer.audit",
            "select * from log_writer._sqlx_migrations",
            "select nextval('log_writer.batch_ids')",
            "select log_writer.make_next_chunk()",
        ],
    )
    .await;
    // Its transactions are read-only by default; what it cannot do comes from its rights.
    for statement in [
        "insert into application_logs select * from application_logs",
        "update application_logs set message = 'other'",
        "delete from application_logs",
        "create temporary table mine (line text)",
        "create table public.mine (line text)",
        "insert into log_patterns select * from log_patterns",
    ] {
        assert_eq!(
            sqlstate(&roles, &url, statement).await.as_deref(),
            Some("25006"),
            "{statement}"
        );
        let written = format!("set transaction_read_only = off; {statement}");
        assert_refused(&roles, &url, &[written.as_str()]).await;
    }
}

#[tokio::test]
async fn what_a_reader_asks_is_bounded_by_its_settings() {
    let roles = Roles::create().await;
    let options: PgConnectOptions = roles.reader_url().parse().expect("a URL");
    let reader = PgPool::connect_with(options).await.expect("connected");
    for (name, value) in [
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "30s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("work_mem", "32MB"),
        ("temp_file_limit", "1GB"),
    ] {
        let set: String = sqlx::query_scalar("select current_setting($1)")
            .bind(name)
            .fetch_one(&reader)
            .await
            .expect(name);
        assert_eq!(set, value, "{name}");
    }
    reader.close().await;
}

#[tokio::test]
async fn a_readers_slow_question_is_cancelled_by_the_setting_of_its_role() {
    let roles = Roles::create().await;
    sqlx::raw_sql(
        "insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message)
         select gen_random_uuid(), now(), now(), 1, 'default', 'INFO', 'api', 'm' from generate_series(1, 10000)",
    )
    .execute(roles.database.pool())
    .await
    .expect("events");
    // As it is made, but half a minute is long for a test.
    let limit = async |limit: &str| {
        let set = format!(
            "alter role {} in database {} set statement_timeout = '{limit}'",
            roles.name_of("log_reader"),
            roles.name_of("logs")
        );
        sqlx::raw_sql(&set).execute(roles.database.pool()).await.expect(&set);
    };
    limit("2s").await;
    let url = roles.reader_url();
    for question in [
        "select pg_sleep(60)",
        "select count(*) from application_logs a, application_logs b, application_logs c where a.message < b.message",
        "select count(*) from generate_series(1, 10000) i, lateral search_logs(p_limit := 10000 + i - i)",
    ] {
        let error = roles.attempt(&url, question).await.expect_err(question);
        let error = error.as_database_error().expect("an answer").to_string();
        assert!(
            error.contains("canceling statement due to statement timeout"),
            "{error}"
        );
    }
    // No machine takes as long as that for one event.
    limit("30s").await;
    roles.run(&url, &["select * from search_logs(p_limit := 1)"]).await;
}

#[tokio::test]
async fn nobody_executes_our_functions_but_who_was_given_access() {
    let roles = Roles::create().await;
    let ours = "from pg_proc p where p.pronamespace in ('log_writer'::regnamespace, 'public'::regnamespace)
        and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')";
    let count = async |condition: &str| {
        let sql = format!("select count(*) {ours} and {condition}");
        roles.database.number(&sql).await
    };
    assert!(count("true").await > 20, "there are functions to look at");
    let public =
        "exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)";
    assert_eq!(count(public).await, 0, "executable by everyone");
    let owner = roles.name_of("log_writer_owner");
    assert_eq!(
        count(&format!("p.proowner <> '{owner}'::regrole")).await,
        0,
        "somebody else's"
    );
    let unpinned = "p.prosecdef and not coalesce(
        p.proconfig::text ~ 'search_path=pg_catalog,( public,)? pg_temp', false)";
    assert_eq!(
        count(unpinned).await,
        0,
        "security definer without a search_path of its own"
    );
}

#[tokio::test]
async fn every_object_of_ours_is_somebodys_or_the_owners_on_purpose() {
    const OWNERS: &str =
        "'roles', 'rights', 'settings', 'stats_1m', 'stats_5m', 'errors_5m', 'stats_1h', 'stats_1d', 'pattern_stats_5m', 'stats_state', 'stats_stale',
        'tenant_roles', 'make_tenant_schema', 'set_tenant_rights', 'grant_tenant', 'revoke_tenant', 'remake_tenant_schemas',
        'forget_vanished_roles',
        'apply_rights', 'grant_access', 'recount_stats', 'recount_minutes', 'revoke_access', 'set_rights',
        'set_storage_profile', 'timescale_edition'";
    let roles = Roles::create().await;
    let sql = format!(
        "with ours (kind, schema, name) as (
           select case c.relkind when 'S' then 'sequence' else 'table' end, n.nspname, c.relname
           from pg_class c join pg_namespace n on n.oid = c.relnamespace
           where c.relkind in ('r', 'v', 'm', 'S') and n.nspname in ('log_writer', 'public')
             and not exists (select from pg_depend d where d.objid = c.oid and d.classid = 'pg_class'::regclass and d.deptype in ('e', 'i'))
           union
           select 'function', n.nspname, p.proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace
           where n.nspname in ('log_writer', 'public')
             and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')
         )
         select coalesce(string_agg(format('%s %s.%s', kind, schema, name), ', '), '') from ours
         where format('%s %s.%s', kind, schema, name) not in (select object from log_writer.rights)
           and not (schema = 'log_writer' and name in ({OWNERS}))"
    );
    let forgotten: String = sqlx::query_scalar(&sql)
        .fetch_one(roles.database.pool())
        .await
        .expect(&sql);
    assert_eq!(
        forgotten, "",
        "a migration that makes objects says in log_writer.rights who may use them, or they stand in this test"
    );
}

#[tokio::test]
async fn what_a_later_migration_makes_is_granted_by_the_migrator() {
    let roles = Roles::create().await;
    let owner = roles.owner_url();
    // As if the roles had been given access one migration ago.
    roles
        .run(
            &owner,
            &[
                "create table log_writer.later (line text)",
                "create function public.later() returns text language sql as $$ select 'later' $$",
                "insert into log_writer.rights values ('ingest', 'table log_writer.later', 'insert'),
                   ('reader', 'function public.later', 'execute')",
                "delete from log_writer.rights where access = 'reader' and object = 'table public.log_patterns'",
                "update log_writer.roles set migrations = migrations - 1",
            ],
        )
        .await;
    let (ingest, reader) = (roles.ingest_url(), roles.reader_url());
    assert_refused(&roles, &ingest, &["insert into log_writer.later values ('x')"]).await;
    migrate(&settings(&owner)).await.expect("migrated");
    roles.run(&ingest, &["insert into log_writer.later values ('x')"]).await;
    roles.run(&reader, &["select public.later()"]).await;
    assert_refused(&roles, &ingest, &["select public.later()"]).await;
    assert_refused(&roles, &reader, &["select * from log_patterns"]).await;
}

#[tokio::test]
async fn a_role_whose_access_was_revoked_has_no_right_left_in_the_database() {
    let roles = Roles::create().await;
    let rights_left = "select count(*) from pg_shdepend d join pg_roles r on r.oid = d.refobjid
        where d.deptype = 'a' and r.rolname = '";
    for printed in ["log_writer_ingest", "log_reader", "log_auditor"] {
        let name = roles.name_of(printed);
        let left = format!("{rights_left}{name}'");
        assert!(roles.database.number(&left).await > 0, "{printed}");
        let revoke = format!("select log_writer.revoke_access('{printed}')");
        roles.run(&roles.owner_url(), &[&revoke]).await;
        assert_eq!(roles.database.number(&left).await, 0, "{printed}");
        let again = roles.attempt(&roles.owner_url(), &revoke).await;
        assert!(again.expect_err("once").to_string().contains("was given no access"));
    }
    roles
        .attempt(&roles.reader_url(), "select 1")
        .await
        .expect_err("it cannot even connect");
}

#[tokio::test]
async fn mistakes_in_giving_access_are_told_and_change_nothing() {
    let roles = Roles::create().await;
    for (statement, expected) in [
        (
            "select log_writer.grant_access('log_reader', 'writer')",
            "there is no access",
        ),
        (
            "select log_writer.grant_access('nobody at all', 'reader')",
            "does not exist",
        ),
        (
            "select log_writer.grant_access('log_writer_owner', 'ingest')",
            "may do everything already",
        ),
    ] {
        let error = roles.attempt(&roles.owner_url(), statement).await;
        let error = error.expect_err(statement).to_string();
        assert!(error.contains(expected), "{statement}: {error}");
    }
    assert_eq!(roles.database.number("select count(*) from log_writer.roles").await, 3);
}

#[tokio::test]
async fn an_owner_who_may_not_create_the_extension_is_told_who_can() {
    let roles = Roles::before_migrating().await;
    // A database of somebody else's, in which the role may make schemas at most.
    let owner = roles.name_of("log_writer_owner");
    for statement in [
        format!("alter database {} owner to current_user", roles.name_of("logs")),
        format!("grant connect on database {} to {owner}", roles.name_of("logs")),
    ] {
        sqlx::query(&statement)
            .execute(roles.database.pool())
            .await
            .expect(&statement);
    }
    let output = run_command(&["migrate"], &roles.settings_of_owner()).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["create extension timescaledb", "superuser", "owner of the database"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
