//! A role for one tenant, made as docs/SECURITY.md says: it sees its own events by every way, and nothing of another's.

use log_writer_service::timescale::migrate;
use log_writer_tests::roles::Roles;
use sqlx::{Column, Connection, PgConnection, Row, postgres::PgRow};

use crate::timescale_database::settings;

/// Three events of each of two tenants, one of them with what a leak would show.
const EVENTS: &str = "
    insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, host, message, pattern,
      correlation_id, user_id, trace_id, tags, fields, performance_metrics)
    select ('00000000-0000-7000-8000-0000000000' || case tenant when 'acme' then 'a' else 'b' end || n)::uuid, now() - n * interval '1 minute',
      now(), 1, tenant, 'ERROR', 'api-of-' || tenant, 'host', 'secret of ' || tenant || ' 0', hashtext(tenant), 'shared-request', 'shared-user', 'abc',
      array['shared'], '{\"shared\": true}', '{\"duration_ms\": 5}'
    from unnest(array['acme', 'globex']) tenant, generate_series(1, 3) n;
    insert into log_patterns (tenant, pattern, level, service, template, first_seen)
    select distinct tenant, pattern, level, service, 'secret of ' || tenant || ' <num>', now() - interval '3 minutes' from application_logs";

/// Requests that go through services of the same names in both tenants, and a week of history: today is a multiple of it.
const HISTORY: &str = "
    insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message, correlation_id)
    select gen_random_uuid(), now() - d * interval '1 day' - interval '10 minutes' - n * interval '1 second' + place * interval '20 milliseconds',
      now(), 1, t.tenant, 'INFO', s.service, 'secret', 'request-' || d || '-' || n
    from (values ('acme', 40, array['web', 'db-of-acme']), ('globex', 60, array['web', 'db-of-globex'])) t(tenant, today, services),
      generate_series(0, 7) d, generate_series(1, case d when 0 then today else 1 end) n,
      unnest(services) with ordinality s(service, place)";

/// Every way to ask, with parameters that fit the events of both tenants.
const QUESTIONS: [(&str, &str); 12] = [
    ("search_logs", "p_query := 'secret'"),
    ("get_error_stats", "interval '1 hour'"),
    ("get_log_volume", "interval '1 hour'"),
    ("get_latency_stats", "interval '1 hour'"),
    ("get_log", "'00000000-0000-7000-8000-0000000000a2'"),
    ("get_log_context", "'00000000-0000-7000-8000-0000000000a2'"),
    ("trace_logs", "'shared-request'"),
    ("top_error_patterns", "interval '1 hour'"),
    ("new_error_patterns", "interval '1 hour'"),
    ("service_dependencies", "interval '1 hour'"),
    ("detect_anomalies", "interval '1 hour'"),
    ("silent_services", "interval '10 seconds', interval '1 hour'"),
];

async fn with_events() -> Roles {
    with(EVENTS).await
}

async fn with(events: &str) -> Roles {
    let roles = Roles::create().await;
    sqlx::raw_sql(events)
        .execute(roles.database.pool())
        .await
        .expect("events");
    roles
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("connected")
}

/// All that an answer says, as one text.
async fn said(connection: &mut PgConnection, sql: &str) -> Result<(usize, String), String> {
    let asked = format!("select r::text as line from ({sql}) r");
    let rows: Vec<PgRow> =
        sqlx::query(&asked)
            .fetch_all(connection)
            .await
            .map_err(|error| match error.as_database_error() {
                Some(error) => format!("{} {}", error.code().unwrap_or_default(), error.message()),
                None => error.to_string(),
            })?;
    let lines: Vec<String> = rows.iter().map(|row| row.get(row.column(0).name())).collect();
    Ok((rows.len(), lines.join("\n")))
}

#[tokio::test]
async fn a_tenants_role_is_answered_every_question_and_with_its_own_events_alone() {
    // In one transaction, lest a job counts in between and is late for the rest.
    let roles = with(&format!("{EVENTS}; {HISTORY}")).await;
    let mut acme = connect(&roles.let_tenant_in().await).await;
    for (function, arguments) in QUESTIONS {
        // Named without a schema: the role's search_path finds its own.
        let (rows, text) = said(&mut acme, &format!("select * from {function}({arguments})"))
            .await
            .expect(function);
        assert!(rows > 0, "{function}");
        assert!(!text.contains("globex"), "{function}: {text}");
    }
    // Of services that both have, its own share: as if the other were not there.
    let mut superuser = connect(roles.database.url()).await;
    for (question, own, others) in [
        (
            "select from_service, to_service, requests from {}service_dependencies(interval '1 hour'{}) order by 1, 2",
            "(web,db-of-acme,40)",
            "(web,db-of-globex,60)",
        ),
        (
            "select service, measure, now_value, usual from {}detect_anomalies(interval '1 hour'{}) order by 1, 2",
            "(db-of-acme,events,40,1)\n(web,events,40,1)",
            "(db-of-globex,events,60,1)\n(web,events,60,1)",
        ),
    ] {
        let ask = |schema: &str, argument: &str| question.replacen("{}", schema, 1).replacen("{}", argument, 1);
        assert_eq!(said(&mut acme, &ask("", "")).await.expect("asked").1, own);
        let other = ask("public.", ", p_tenant := 'globex'");
        assert_eq!(
            said(&mut superuser, &other).await.expect("asked").1,
            others,
            "there is more"
        );
    }
    let theirs = "select * from get_log_context('00000000-0000-7000-8000-0000000000b2')";
    assert_eq!(said(&mut acme, theirs).await.expect("asked").0, 0, "another's id");
    let (_, stats) = said(
        &mut acme,
        "select errors, total from get_error_stats(interval '1 hour')",
    )
    .await
    .expect("stats");
    assert_eq!(stats, "(3,3)");
    let offered: i64 = sqlx::query_scalar(
        "select count(*) from log_writer.rights r where r.access = 'reader' and exists (
           select from pg_proc p where format('function public.%s', p.proname) = r.object and p.proretset and 'p_tenant' = any(p.proargnames))",
    )
    .fetch_one(roles.database.pool())
    .await
    .expect("counted");
    assert_eq!(
        offered,
        QUESTIONS.len() as i64,
        "every function that takes a tenant is asked here"
    );
}

#[tokio::test]
async fn a_tenants_role_has_no_way_around_its_functions() {
    let roles = with_events().await;
    let url = roles.let_tenant_in().await;
    let mut acme = connect(&url).await;
    let chunk: String = sqlx::query_scalar("select c::text from show_chunks('public.application_logs') c limit 1")
        .fetch_one(roles.database.pool())
        .await
        .expect("a chunk");
    for relation in [
        "public.application_logs",
        "public.log_patterns",
        "public.log_stats_1m",
        "public.log_stats_5m",
        "public.log_errors_5m",
        "public.log_stats_1h",
        "public.log_stats_1d",
        "public.log_pattern_stats_5m",
        "log_writer.tenant_roles",
        "log_writer.audit",
        &chunk,
    ] {
        let refusal = said(&mut acme, &format!("select * from {relation}"))
            .await
            .expect_err(relation);
        assert!(refusal.starts_with("42501"), "{relation}: {refusal}");
    }
    for (function, arguments) in QUESTIONS {
        let refusal = said(&mut acme, &format!("select * from public.{function}({arguments})"))
            .await
            .expect_err(function);
        assert!(refusal.starts_with("42501"), "{function}: {refusal}");
        let other = said(
            &mut acme,
            &format!("select * from {function}({arguments}, p_tenant := 'globex')"),
        )
        .await;
        assert!(other.expect_err(function).starts_with("42883"), "{function}");
    }
    // Settings and roles do not change who it is.
    for statement in [
        "set search_path = public",
        "set role postgres",
        "set session authorization postgres",
        "create or replace function tenant_acme.search_logs() returns int language sql as 'select 1'",
        "create schema mine",
        "select log_writer.grant_tenant('acme_reader', 'globex')",
        "select log_writer.make_tenant_schema('mine', 'globex', true)",
        "set transaction_read_only = off; create table public.mine (line text)",
        "set transaction_read_only = off; create temporary table mine (line text)",
    ] {
        let done = roles.attempt(&url, statement).await;
        assert_eq!(
            done.is_ok(),
            statement == "set search_path = public",
            "{statement}: {done:?}"
        );
    }
    let statistics = said(
        &mut acme,
        "select * from pg_catalog.pg_stats where tablename like '%application_logs%' or tablename like '%hyper%'",
    )
    .await;
    assert_eq!(statistics.expect("asked").0, 0, "values in the planner's statistics");
}

#[tokio::test]
async fn neither_errors_nor_plans_tell_a_tenant_of_anothers_events() {
    let roles = with_events().await;
    let url = roles.let_tenant_in().await;
    let owner = roles.owner_url();
    let mut acme = connect(&url).await;
    // A plan of a function is the function.
    let plan = "explain (analyze, costs off, timing off, summary off) select * from trace_logs('shared-request')";
    let lines: Vec<String> = sqlx::query_scalar(plan).fetch_all(&mut acme).await.expect("a plan");
    assert_eq!(lines, ["Function Scan on trace_logs (actual rows=3 loops=1)"]);
    // Its views, where it is given them.
    roles
        .run(
            &owner,
            &[
                "select log_writer.revoke_tenant('acme_reader')",
                "select log_writer.grant_tenant('acme_reader', 'acme', true)",
            ],
        )
        .await;
    for view in [
        "application_logs",
        "log_patterns",
        "log_stats_1m",
        "log_stats_5m",
        "log_errors_5m",
        "log_stats_1h",
        "log_stats_1d",
        "log_pattern_stats_5m",
    ] {
        let (rows, text) = said(&mut acme, &format!("select * from tenant_views_acme.{view}"))
            .await
            .expect(view);
        assert!(rows > 0 && !text.contains("globex"), "{view}: {text}");
    }
    // A condition that fails on another's row, cheaper than the tenant's: it would tell that there is such a row.
    let trap = "select message from tenant_views_acme.application_logs
        where (case when message like '%globex%' then 1 / (length(message) - length(message)) else 1 end) = 1";
    assert_eq!(said(&mut acme, trap).await.expect("no error").0, 3);
    let cast =
        "select message from tenant_views_acme.application_logs where replace(message, 'secret of acme ', '')::int = 0";
    assert_eq!(said(&mut acme, cast).await.expect("no error").0, 3);
    // The same without the barrier fails: the trap is one.
    let pool = roles.database.pool();
    let open = trap.replace("tenant_views_acme.", "public.");
    sqlx::query(&open)
        .fetch_all(pool)
        .await
        .expect_err("divided by nothing");
}

#[tokio::test]
async fn who_may_read_all_is_refused_a_tenant_and_a_tenant_is_revoked_to_the_last_right() {
    let roles = with_events().await;
    let url = roles.let_tenant_in().await;
    let owner = roles.owner_url();
    let refusal = roles
        .attempt(&owner, "select log_writer.grant_tenant('log_reader', 'acme')")
        .await;
    assert!(
        refusal
            .expect_err("refused")
            .to_string()
            .contains("may read events of all tenants")
    );
    let refusal = roles
        .attempt(&owner, "select log_writer.grant_tenant('acme_reader', 'globex')")
        .await;
    assert!(
        refusal
            .expect_err("refused")
            .to_string()
            .contains("sees a tenant already")
    );
    let mut superuser = connect(roles.database.url()).await;
    let by_superuser = said(&mut superuser, "select log_writer.grant_tenant('x', 'acme')").await;
    assert!(by_superuser.is_err(), "what it makes would run as superuser");

    // A later migration changes a function: the tenant has the new one, with its rights.
    roles
        .run(
            &owner,
            &[
                "create function public.count_logs(p_tenant text default null) returns table (n bigint) language sql
                   as 'select count(*) from public.application_logs l where l.tenant = p_tenant'",
                "insert into log_writer.rights values ('reader', 'function public.count_logs', 'execute')",
                "update log_writer.tenant_roles set migrations = migrations - 1",
            ],
        )
        .await;
    migrate(&settings(&owner)).await.expect("migrated");
    let mut acme = connect(&url).await;
    assert_eq!(
        said(&mut acme, "select * from count_logs()").await.expect("asked").1,
        "(3)"
    );

    roles
        .run(&owner, &["select log_writer.revoke_tenant('acme_reader')"])
        .await;
    let rights = format!(
        "select count(*) from pg_shdepend d join pg_roles r on r.oid = d.refobjid where d.deptype = 'a' and r.rolname = '{}'",
        roles.name_of("acme_reader")
    );
    assert_eq!(roles.database.number(&rights).await, 0);
    assert_eq!(
        roles
            .database
            .number("select count(*) from pg_namespace where nspname like 'tenant%'")
            .await,
        0
    );
    roles
        .attempt(&url, "select 1")
        .await
        .expect_err("it cannot even connect");
}

#[tokio::test]
async fn a_tenant_whose_role_was_dropped_can_be_given_to_another_role() {
    let roles = with_events().await;
    roles.let_tenant_in().await;
    let (gone, next) = (roles.name_of("acme_reader"), roles.name_of("log_auditor"));
    let (pool, owner) = (roles.database.pool(), roles.owner_url());
    let dropped = format!("drop owned by {gone}; drop role {gone}; select log_writer.revoke_access('{next}')");
    sqlx::raw_sql(&dropped).execute(pool).await.expect("dropped");
    let grant = "select log_writer.grant_tenant('log_auditor', 'acme')";
    roles.run(&owner, &[grant]).await;
    let mut asker = connect(&roles.auditor_url()).await;
    let asked = said(&mut asker, "select * from tenant_acme.search_logs()").await;
    assert_eq!(asked.expect("asked").0, 3);

    // Where nobody takes its place, the migrator clears away.
    roles
        .run(&owner, &["select log_writer.revoke_tenant('log_auditor')", grant])
        .await;
    sqlx::raw_sql(&format!("drop owned by {next}; drop role {next}"))
        .execute(pool)
        .await
        .expect("dropped");
    migrate(&settings(&owner)).await.expect("migrated");
    let left = "select (select count(*) from pg_namespace where nspname like 'tenant%')
                     + (select count(*) from log_writer.tenant_roles)";
    assert_eq!(roles.database.number(left).await, 0);
}
