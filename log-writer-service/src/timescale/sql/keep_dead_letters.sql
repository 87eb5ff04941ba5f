-- Keeps dead letters of requests; one that is there already is counted again. By the unique (stage, identity).
insert into log_writer.dead_letters as d (
  batch_id, stage, identity, reason, detail, raw, raw_bytes, position, events, event_id, event_time, tenant,
  source_address, content_type, content_encoding, path)
select
  $1, n.stage, n.identity, n.reason, n.detail, n.raw, n.raw_bytes, n.position, n.events, n.event_id, n.event_time,
  n.tenant, n.source_address::inet, n.content_type, n.content_encoding, n.path
from unnest(
  $2::text[], $3::bytea[], $4::text[], $5::text[], $6::bytea[], $7::bigint[], $8::integer[], $9::bigint[],
  $10::uuid[], $11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[]
) as n (
  stage, identity, reason, detail, raw, raw_bytes, position, events, event_id, event_time, tenant, source_address,
  content_type, content_encoding, path)
order by n.stage, n.identity
on conflict (stage, identity) do update set
  attempts = d.attempts + 1,
  last_at = now(),
  reason = excluded.reason,
  detail = excluded.detail,
  batch_id = excluded.batch_id
