//! How long each function takes on many events (`make bench-sql`).
//!
//! ```text
//! log-bench-sql --database-url postgres://… --rows 20000000
//! ```
//!
//! Fills an empty database with events of 30 days up to now (one that was filled before: with those since), brings the
//! counts up to date and prints a table: median, fastest and slowest of several calls, as the client sees them.
//! On Community then once more as the service keeps them, the newest two days as rows, and with every chunk in the
//! columnstore. A database that has something there already is asked once, as it is.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool that reports on its terminal"
)]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, postgres::PgPoolOptions};

/// What the events are spread over.
const DAYS: i64 = 30;
/// Connections that fill.
const WRITERS: usize = 2;
/// A call is not repeated any more after this long.
const REPEAT_MAX: Duration = Duration::from_secs(8);

/// Measures the functions that people and agents ask.
#[derive(Debug, Parser)]
struct Options {
    /// A migrated database of its own: it stays filled.
    #[arg(long)]
    database_url: String,
    /// Events over 30 days.
    #[arg(long, default_value_t = 20_000_000)]
    rows: u32,
    /// Calls of each question.
    #[arg(long, default_value_t = 9)]
    runs: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .connect(&options.database_url)
        .await?;
    let edition: String = sqlx::query_scalar("select log_writer.timescale_edition()")
        .fetch_one(&pool)
        .await?;
    // Counts and columnstore move when this tool says so.
    sqlx::query("select _timescaledb_functions.stop_background_workers()")
        .execute(&pool)
        .await?;
    bring_up_to_date(&pool, options.rows, &edition).await?;
    pool.execute("vacuum analyze application_logs").await?;
    pool.execute("analyze").await?;
    let is_new = compressed(&pool).await?.0 == 0;
    measure(&options, &pool, &edition).await?;
    if edition == "community" && is_new {
        // The policy's own condition (migration `enable_columnstore`), then all.
        for older_than in ["1 day", "-1 day"] {
            compress(&pool, older_than).await?;
            measure(&options, &pool, &edition).await?;
        }
    }
    Ok(())
}

/// Events and counts up to now: between a window and the next minutes pass.
async fn bring_up_to_date(pool: &PgPool, rows: u32, edition: &str) -> Result<()> {
    fill(pool, rows).await?;
    count(pool, edition).await
}

/// Writes what is missing up to now, an hour at a time.
async fn fill(pool: &PgPool, rows: u32) -> Result<()> {
    let now = Utc::now();
    let newest: Option<DateTime<Utc>> = sqlx::query_scalar("select max(\"timestamp\") from application_logs")
        .fetch_one(pool)
        .await?;
    let mut from = newest.map_or(now - TimeDelta::days(DAYS), |newest| {
        newest + TimeDelta::milliseconds(1)
    });
    let begun = from;
    let per_second = f64::from(rows) / (TimeDelta::days(DAYS).as_seconds_f64());
    let mut hours = Vec::new();
    while from < now {
        let to = (from + TimeDelta::hours(1)).min(now);
        hours.push((from, to));
        from = to;
    }
    let (started, spans) = (Instant::now(), hours.len());
    let written: u64 = stream::iter(hours)
        .map(|(from, to)| async move {
            sqlx::query(include_str!("sql/fill.sql"))
                .bind(from)
                .bind(to)
                .bind(per_second)
                .execute(pool)
                .await
                .map(|done| done.rows_affected())
        })
        .buffered(WRITERS)
        .try_fold(0, async |sum, more| Ok(sum + more))
        .await
        .context("fill application_logs")?;
    // The service does it with each batch.
    sqlx::query(
        "insert into log_patterns (tenant, pattern, level, service, template, first_seen)
         select distinct on (tenant, pattern) tenant, pattern, level, service, regexp_replace(message, '[0-9]+$', '<num>'), \"timestamp\"
         from application_logs where pattern is not null and \"timestamp\" >= $1
         order by tenant, pattern, \"timestamp\" on conflict do nothing",
    )
    .bind(begun)
    .execute(pool)
    .await?;
    // So does it with what came after its minute was counted.
    if newest.is_some() {
        sqlx::query("select log_writer.note_late_events(array[$1], array[$2])")
            .bind(begun)
            .bind(now)
            .execute(pool)
            .await?;
    }
    eprintln!(
        "{written} events written in {:.0} s ({spans} spans)",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Brings the counts up to date, as the jobs or the service do.
async fn count(pool: &PgPool, edition: &str) -> Result<()> {
    let started = Instant::now();
    if edition == "community" {
        for (stats, until) in [
            ("log_stats_1m", "1 minute"),
            ("log_stats_5m", "1 minute"),
            ("log_errors_5m", "1 minute"),
            ("log_stats_1h", "1 hour"),
            ("log_stats_1d", "1 day"),
            ("log_pattern_stats_5m", "5 minutes"),
        ] {
            let refresh = format!(
                "call refresh_continuous_aggregate('public.{stats}', now() - interval '32 days', now() - interval '{until}')"
            );
            pool.execute(refresh.as_str()).await.with_context(|| refresh.clone())?;
        }
    } else {
        // Not more at once: rows of a time lie together then, as they do where the service counts every minute.
        while sqlx::query_scalar::<_, bool>("select log_writer.refresh_stats(interval '1 hour')")
            .fetch_one(pool)
            .await?
        {}
    }
    eprintln!("counted in {:.0} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// How many chunks are in the columnstore, and how many there are.
async fn compressed(pool: &PgPool) -> Result<(i64, i64)> {
    Ok(sqlx::query_as(
        "select count(*) filter (where is_compressed), count(*) from timescaledb_information.chunks where hypertable_name = 'application_logs'",
    )
    .fetch_one(pool)
    .await?)
}

async fn compress(pool: &PgPool, older_than: &str) -> Result<()> {
    let started = Instant::now();
    let chunks: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', chunk_schema, chunk_name) from timescaledb_information.chunks
         where hypertable_name = 'application_logs' and not is_compressed and range_end < now() - $1::text::interval",
    )
    .bind(older_than)
    .fetch_all(pool)
    .await?;
    for chunk in &chunks {
        sqlx::query("select compress_chunk($1::text::regclass)")
            .bind(chunk)
            .execute(pool)
            .await?;
    }
    pool.execute("vacuum analyze application_logs").await?;
    println!(
        "{} chunks compressed in {:.0} s",
        chunks.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Asks everything for each window and prints a line for each question.
async fn measure(options: &Options, pool: &PgPool, edition: &str) -> Result<()> {
    let mut connection = PgConnection::connect(&options.database_url).await?;
    let (events, bytes): (i64, i64) =
        sqlx::query_as("select count(*), hypertable_size('application_logs') from application_logs")
            .fetch_one(&mut connection)
            .await?;
    let (in_columnstore, chunks) = compressed(pool).await?;
    println!(
        "\n{edition}, {in_columnstore} of {chunks} chunks in the columnstore: {events} events, {} MB with indexes",
        bytes / 1_000_000
    );
    println!("| question | window | rows | median ms | min | max |\n|---|---|---|---|---|---|");
    for (window, days_back) in [("1 hour", 1), ("6 hours", 1), ("1 day", 1), ("30 days", 30)] {
        bring_up_to_date(pool, options.rows, edition).await?;
        // A request and a user of the middle of the window, or the nearest to it.
        let (correlation, trace, user, id): (String, String, String, uuid::Uuid) = sqlx::query_as(&format!(
            "select correlation_id, trace_id, user_id, id from application_logs
             where \"timestamp\" between now() - interval '{window}' / 2 - interval '1 day' and now() - interval '{window}' / 2 + interval '1 day'
               and correlation_id is not null and trace_id is not null and user_id is not null
             order by abs(extract(epoch from \"timestamp\" - (now() - interval '{window}' / 2))) limit 1"
        ))
        .fetch_one(&mut connection)
        .await?;
        for question in questions(window, days_back, &correlation, &trace, &user, &id.to_string()) {
            let (rows, times) = ask(&mut connection, &question, options.runs)
                .await
                .with_context(|| question.clone())?;
            println!(
                "| `{question}` | {window} | {rows} | {} | {} | {} |",
                milliseconds(times.get(times.len() / 2)),
                milliseconds(times.first()),
                milliseconds(times.last())
            );
        }
    }
    connection.close().await?;
    Ok(())
}

fn questions(window: &str, days: i64, correlation: &str, trace: &str, user: &str, id: &str) -> Vec<String> {
    let from = format!("p_start_time := now() - interval '{window}'");
    let mut all = vec![
        format!("search_logs(p_level := 'ERROR', p_service := 'orders', {from})"),
        format!("search_logs({from})"),
        format!("search_logs(p_user_id := '{user}', {from})"),
        format!("search_logs(p_correlation_id := '{correlation}', {from})"),
        format!("search_logs(p_query := 'customer 4321 in region', {from})"),
        format!("search_logs(p_tags := array['checked'], p_fields := '{{\"region\": 3}}', {from})"),
        format!("trace_logs('{trace}', {from})"),
        format!("get_log('{id}')"),
        format!("get_log_context('{id}')"),
        format!("get_error_stats('{window}')"),
        format!("get_log_volume('{window}', '{window}'::interval / 12)"),
        format!("get_latency_stats('{window}')"),
        format!("top_error_patterns('{window}')"),
        format!("new_error_patterns('{window}')"),
        format!("service_dependencies('{window}')"),
        format!("silent_services('5 minutes', '{window}')"),
    ];
    if days == 1 {
        all.push(format!("detect_anomalies('{window}')"));
    }
    all
}

/// Rows of a question, and the times of its calls, sorted; the first call, which reads from disk and plans, is not counted.
async fn ask(connection: &mut PgConnection, question: &str, runs: usize) -> Result<(usize, Vec<Duration>)> {
    let query = format!("select * from {question}");
    let begun = Instant::now();
    let rows = sqlx::query(&query).fetch_all(&mut *connection).await?.len();
    let mut times = Vec::with_capacity(runs);
    while times.is_empty() || (times.len() < runs && begun.elapsed() < REPEAT_MAX) {
        let started = Instant::now();
        sqlx::query(&query).fetch_all(&mut *connection).await?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok((rows, times))
}

fn milliseconds(time: Option<&Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.1}", time.as_secs_f64() * 1000.0))
}
