-- Events by id and time, the beginning of the key; `number` tells whose list each was on.
select
  w.number, l.id, l."timestamp", l.ingested_at, l.batch_id, l.tenant, l.level, l.service, l.host, l.message,
  l.correlation_id, l.user_id, l.trace_id, l.span_id, l.tags, l.fields::text, l.error_details::text,
  l.performance_metrics::text, l.ai_analysis::text
from unnest($1::integer[], $2::uuid[], $3::timestamptz[]) as w (number, id, "timestamp")
cross join lateral (
  select * from public.application_logs a
  where a.id = w.id and a."timestamp" = w."timestamp"
  -- Keeps it an index scan for each id; as many as there can be tenants with one id.
  limit 1000
) l
