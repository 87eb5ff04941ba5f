-- Puts annotated events into the outbox again, to be written over their copies. Those that are gone are left out.
--
-- $1 target, tenant, id and time of each. One attempt is counted already, so that the first claim looks up. An event whose
-- document was refused goes out of its letter, any other out of what is indexed.
with wanted as materialized (
  select distinct n.target, n.tenant, n.id, n.time
  from jsonb_to_recordset($1) as n (target text, tenant text, id uuid, time timestamptz)
),
found as materialized (
  select w.*, a.batch_id, a.bytes
  from wanted w
  cross join lateral (
    select l.batch_id, octet_length(l::text)::bigint as bytes from public.application_logs l
    where l.id = w.id and l."timestamp" = w.time and l.tenant = w.tenant
    limit 1
  ) a
),
enqueued as (
  insert into log_writer.outbox
    (batch_id, target, tenants, first_time, last_time, events, bytes, kind, open_ids, open_times, attempts)
  select max(f.batch_id), f.target, array[f.tenant], min(f.time), max(f.time), count(*), sum(f.bytes), 'replace',
    array_agg(f.id order by f.time, f.id), array_agg(f.time order by f.time, f.id), 1
  from found f
  group by f.target, f.tenant
),
-- Rows of theirs that nobody has claimed yet may come after this one: then they have to look up too.
fresh as (
  update log_writer.outbox o set attempts = 1
  where o.id in (
    select u.id from log_writer.outbox u
    where (u.target, u.batch_id) in (select f.target, f.batch_id from found f) and u.kind = 'fresh' and u.attempts = 0
    order by u.id
    for update)
),
letters as (
  update log_writer.dead_letters d set redriven_at = now(), look_at = null
  from found f
  where d.stage = 'index' and d.redriven_at is null
    and d.event_id = f.id and d.event_time = f.time and d.tenant = f.tenant
  returning d.id
)
select (select count(*) from found) as requeued, (select count(*) from letters) as letters
