-- Puts the events of letters back into the outbox, and marks the letters; those whose event is gone stay as they are.
--
-- $1 letters, $2 events and $3 bytes of one outbox row. Index: the letters' and the events' primary keys. One attempt is
-- counted already, so that the first claim looks up: the document may be there. A change that was refused goes over it.
with letters as materialized (
  select d.id, d.target, d.tenant, d.batch_id, d.event_id, d.event_time,
    case when d.kind <> 'replace' then 'redrive' else 'replace' end as kind
  from log_writer.dead_letters d
  where d.id = any ($1) and d.stage = 'index' and d.redriven_at is null
  order by d.id
  for update
),
found as materialized (
  select l.*, a.bytes
  from letters l
  cross join lateral (
    select octet_length(a::text)::bigint as bytes from public.application_logs a
    where a.id = l.event_id and a."timestamp" = l.event_time and a.tenant = l.tenant
    limit 1
  ) a
),
placed as (
  select
    f.*,
    (row_number() over neighbours - 1) / $2 as by_number,
    (sum(f.bytes) over neighbours - f.bytes)::bigint / $3 as by_bytes
  from found f
  window neighbours as (partition by f.target, f.tenant, f.kind order by f.event_time, f.event_id)
),
enqueued as (
  insert into log_writer.outbox
    (batch_id, target, tenants, first_time, last_time, events, bytes, kind, open_ids, open_times, attempts)
  select
    max(p.batch_id), p.target, array[p.tenant], min(p.event_time), max(p.event_time), count(*), sum(p.bytes), p.kind,
    array_agg(p.event_id order by p.id), array_agg(p.event_time order by p.id), 1
  from placed p
  group by p.target, p.tenant, p.kind, p.by_number, p.by_bytes
),
marked as (
  update log_writer.dead_letters d set redriven_at = now(), look_at = null from found f where d.id = f.id
  returning d.id
)
select (select count(*) from marked) as requeued, (select count(*) from letters) as locked
