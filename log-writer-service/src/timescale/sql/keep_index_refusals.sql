-- Keeps dead letters of the stage `index`: the event itself stands in application_logs. A refusal that repeats is one row.
-- Identity: time, id and tenant. By the unique (stage, identity).
--
-- Once a change was refused (`replace`), the letter is that of a change until it goes: the document may be the old one.
insert into log_writer.dead_letters as d (
  stage, identity, reason, detail, tenant, batch_id, event_id, event_time, target, kind, look_at)
select
  'index', int8send((extract(epoch from n."timestamp") * 1000000)::bigint) || uuid_send(n.id) || convert_to(e.tenant, 'UTF8'),
  n.reason, n.detail, e.tenant, o.batch_id, n.id, n."timestamp", o.target,
  o.kind, case when o.kind <> 'replace' then now() end
from unnest($2::uuid[], $3::timestamptz[], $4::text[], $5::text[]) as n (id, "timestamp", reason, detail)
join log_writer.outbox o on o.id = $1
cross join lateral (
  -- A target has one tenant but where it is configured otherwise; then the event itself tells.
  select case when cardinality(o.tenants) = 1 then o.tenants[1] else coalesce(
    (select a.tenant from public.application_logs a
     where a.id = n.id and a."timestamp" = n."timestamp" and a.tenant = any (o.tenants) limit 1),
    o.tenants[1]) end as tenant
) e
on conflict (stage, identity) do update set
  attempts = d.attempts + 1,
  last_at = now(),
  redriven_at = null,
  reason = excluded.reason,
  detail = excluded.detail,
  batch_id = excluded.batch_id,
  target = excluded.target,
  kind = case when d.kind = 'replace' then d.kind else excluded.kind end,
  look_at = case when d.kind = 'replace' then null else excluded.look_at end
