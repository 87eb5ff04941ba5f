-- Puts events into the outbox again, those that are still stored and do not stand in it by id; how many. And from the
-- books: events that were never meant for Elasticsearch, and those of outbox rows that were lost, as they were before.
--
-- $1 tenant, $2 ids, $3 times, $4 target, $5 kind, $6 events and $7 bytes of one outbox row. One attempt is counted
-- already, so that the first claim looks up. Index: the primary key of application_logs.
with listed as materialized (
  select n.id, n."timestamp"
  from log_writer.outbox o
  cross join lateral unnest(o.open_ids, o.open_times) as n (id, "timestamp")
  where o.open_ids is not null and $1 = any (o.tenants)
),
found as materialized (
  select w.id, w."timestamp", a.batch_id, a.bytes
  from unnest($2::uuid[], $3::timestamptz[]) as w (id, "timestamp")
  cross join lateral (
    select a.batch_id, octet_length(a::text)::bigint as bytes from public.application_logs a
    where a.id = w.id and a."timestamp" = w."timestamp" and a.tenant = $1
    limit 1
  ) a
  where not exists (select from listed l where l.id = w.id and l."timestamp" = w."timestamp")
),
placed as (
  select
    f.*,
    (row_number() over neighbours - 1) / $6 as by_number,
    (sum(f.bytes) over neighbours - f.bytes)::bigint / $7 as by_bytes
  from found f
  window neighbours as (order by f."timestamp", f.id)
),
enqueued as (
  insert into log_writer.outbox
    (batch_id, target, tenants, first_time, last_time, events, bytes, kind, open_ids, open_times, attempts)
  select
    max(p.batch_id), $4, array[$1], min(p."timestamp"), max(p."timestamp"), count(*), sum(p.bytes), $5,
    array_agg(p.id order by p."timestamp", p.id), array_agg(p."timestamp" order by p."timestamp", p.id), 1
  from placed p
  group by p.by_number, p.by_bytes
)
select (select count(*) from found) as enqueued, coalesce(sum(b.unmirrored), 0)::bigint as unmirrored,
  (coalesce(sum(b.mirrored - b.indexed - b.index_dead_lettered - b.expired), 0)
    - (select coalesce(sum(o.events), 0) from log_writer.outbox o))::bigint as lost
from log_writer.books b
