-- The events that Elasticsearch found, as search_logs shows them; the times once more, so that other chunks are not read.
select row_to_json(r)::text from (
  select l.id, l."timestamp", l.tenant, l.level, l.service, l.host, l.message, l.correlation_id, l.user_id, l.trace_id,
    l.span_id, l.tags, l.fields, l.error_details, l.performance_metrics, l.ai_analysis,
    to_char(l."timestamp" at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '/' || l.id || '/' || l.tenant as page_end
  from jsonb_to_recordset($1 -> 'keys') as k(id uuid, "timestamp" timestamptz, tenant text)
  join public.application_logs l on l.id = k.id and l."timestamp" = k."timestamp" and l.tenant = k.tenant
  where l."timestamp" between ($1 ->> 'first')::timestamptz and ($1 ->> 'last')::timestamptz
  order by l."timestamp" desc, l.id desc, l.tenant desc
) r
