//! How long counts are kept: each kind up to its limit, by whole chunks on Community, and otherwise once the limit is another.

use std::time::Duration;

use log_writer_service::{
    config::Retention,
    timescale::{expire, migrate},
};

use crate::timescale_database::{TestDatabase, with_empty_database};

/// Errors just before and after the limits that are to come, and those of chunks of ten days.
///
/// A limit moves on while a test runs, by no more than two minutes: no count begins in the two minutes after one.
const SAMPLE: &str = "
create table limits (days int, at timestamptz, chunk timestamptz);
insert into limits select d, p, to_timestamp(floor(extract(epoch from p) / 864000) * 864000)
from unnest(array[40, 90, 100, 365]) d,
  lateral (select date_trunc('day', now(), 'UTC') - d * interval '1 day' + interval '12:32:30' as p) l;
insert into application_logs (id, \"timestamp\", ingested_at, batch_id, tenant, level, service, message, pattern)
select gen_random_uuid(), t, now(), 1, 'default', 'ERROR', 'api', 'm', 1
from limits, unnest(array[at - interval '31 seconds', at + interval '3 minutes 30 seconds', at + interval '27 minutes 30 seconds',
  at + interval '11:27:30', chunk - interval '1 second', chunk]) t
union all select gen_random_uuid(), now() - interval '1 day', now(), 1, 'default', 'ERROR', 'api', 'm', 1;
insert into log_patterns (tenant, pattern, level, service, template, first_seen, noted_at)
select 'default', v.pattern, 'ERROR', 'api', v.template, v.noted_at, v.noted_at
from (select 1, 'counted', at - interval '1 day' from limits where days = 365
  union all select days * 10, days || ' outside', at - interval '1 second' from limits where days in (100, 365)
  union all select days * 10 + 1, days || ' inside', at + interval '3 minutes' from limits where days in (100, 365)) v(pattern, template, noted_at)";

const BY_MINUTES: [&str; 4] = ["log_stats_1m", "log_stats_5m", "log_errors_5m", "log_pattern_stats_5m"];
const BY_HOURS: [&str; 2] = ["log_stats_1h", "log_stats_1d"];

async fn is_community(database: &TestDatabase) -> bool {
    database.text("select log_writer.timescale_edition()").await == "community"
}

/// Counts everything, however old: events of that age were young once.
async fn count_all(database: &TestDatabase) {
    if is_community(database).await {
        database
            .refresh_aggregates("now() - interval '400 days'", "now()")
            .await;
        return;
    }
    let done = "select not log_writer.refresh_stats(interval '400 days')";
    database.until(done).await;
}

async fn time_since(database: &TestDatabase, days: u32) -> Duration {
    let sql = format!("select (extract(epoch from now() - at) * 1000000)::bigint from limits where days = {days}");
    let micros = database.number(&sql).await;
    Duration::from_micros(u64::try_from(micros).expect("it has passed"))
}

async fn buckets(database: &TestDatabase, view: &str, condition: &str) -> String {
    let sql =
        format!("select coalesce(string_agg(bucket::text, ' ' order by bucket), '') from {view} where {condition}");
    database.text(&sql).await
}

/// Keeps counts for so many days: what is left is what is younger, and something was older.
async fn keep(database: &TestDatabase, minutes: u32, hours: u32) {
    let settings = Retention {
        enabled: true,
        events: Duration::from_secs(30 * 86_400),
        stats_minutes: time_since(database, minutes).await,
        stats: time_since(database, hours).await,
        archive_path: None,
        archive_zstd_level: 6,
    };
    let edge = if is_community(database).await { "chunk" } else { "at" };
    let mut expected = Vec::new();
    for (views, days) in [(BY_MINUTES.as_slice(), minutes), (&BY_HOURS, hours)] {
        let younger = format!("bucket >= (select {edge} from limits where days = {days})");
        for view in views {
            let left = buckets(database, view, &younger).await;
            assert_ne!(
                left,
                buckets(database, view, "true").await,
                "{view}: something is older than {days} days"
            );
            expected.push((view, days, left));
        }
    }
    expire(&database.pool, &settings).await.expect("dropped");
    for (view, days, left) in expected {
        assert_eq!(buckets(database, view, "true").await, left, "{view} of {days} days");
    }
}

#[tokio::test]
async fn counts_are_kept_up_to_their_limit_and_no_longer_and_a_shorter_one_takes_effect() {
    with_empty_database(async |database| {
        migrate(&database.settings).await.expect("the migrations run");
        database.execute(SAMPLE).await;
        count_all(database).await;
        let kinds = "select string_agg(template, ', ' order by pattern) from log_patterns";
        keep(database, 90, 365).await;
        assert_eq!(
            database.text(kinds).await,
            "counted, 100 outside, 100 inside, 365 inside"
        );
        keep(database, 40, 100).await;
        assert_eq!(database.text(kinds).await, "counted, 100 inside");
        let events = database.number("select count(*) from application_logs").await;
        assert_eq!(events, 1, "counts outlive the events");
    })
    .await;
}
