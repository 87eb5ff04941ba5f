-- Events that Elasticsearch should have, by tenant and bucket of time: their number, and the sum of the last 32 bits of
-- their ids (`event.id_tail`).
--
-- Not counted: batches that stand in the outbox (some of their events may be there already: the caller looks at such
-- buckets by id), and events that stand in it by id or are dead letters.
-- $1 from, $2 until, $3 width of a bucket, $4 tenant or null. Index: application_logs_timestamp_idx.
with open_batches as materialized (
  select distinct batch_id from log_writer.outbox where open_ids is null
),
apart as materialized (
  select n.id, n."timestamp"
  from log_writer.outbox o
  cross join lateral unnest(o.open_ids, o.open_times) as n (id, "timestamp")
  where o.open_ids is not null and o.first_time < $2 and o.last_time >= $1
  union
  select d.event_id, d.event_time from log_writer.dead_letters d
  where d.stage = 'index' and d.event_time >= $1 and d.event_time < $2
)
select
  a.tenant,
  time_bucket as bucket,
  count(*) as events,
  sum(('x' || right(a.id::text, 8))::bit(32)::bigint)::bigint as tails
from public.application_logs a
cross join lateral (select date_bin($3, a."timestamp", 'epoch'::timestamptz) as time_bucket) b
where a."timestamp" >= $1 and a."timestamp" < $2
  and ($4::text is null or a.tenant = $4)
  and not exists (select from open_batches o where o.batch_id = a.batch_id)
  and not exists (select from apart p where p.id = a.id and p."timestamp" = a."timestamp")
group by 1, 2
