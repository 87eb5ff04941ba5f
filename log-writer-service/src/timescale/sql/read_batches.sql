-- The rows of some batches within windows of time. Index: by batch_id or by "timestamp", as the planner sees fit.
select
  l.id, l."timestamp", l.ingested_at, l.batch_id, l.tenant, l.level, l.service, l.host, l.message, l.correlation_id,
  l.user_id, l.trace_id, l.span_id, l.tags, l.fields::text, l.error_details::text, l.performance_metrics::text,
  l.ai_analysis::text
from unnest($1::timestamptz[], $2::timestamptz[]) as w (first, last)
cross join lateral (
  select * from public.application_logs a
  where a."timestamp" >= w.first and a."timestamp" <= w.last and a.batch_id = any ($3::bigint[])
) l
