-- Rows whose id belongs to another event go in under their derived id, with their own id kept in fields. What is there
-- already under the derived id came with an earlier resend of the same event.
with inserted as (
  insert into public.application_logs (
    id, "timestamp", ingested_at, batch_id, tenant, level, service, host, message, correlation_id, user_id, trace_id,
    span_id, tags, fields, error_details, performance_metrics, ai_analysis, pattern)
  select
    derived_id, "timestamp", ingested_at, batch_id, tenant, level, service, host, message, correlation_id, user_id,
    trace_id, span_id, tags,
    coalesce(fields, '{}') || jsonb_build_object(
      '_log_writer', coalesce(fields -> '_log_writer', '{}') || jsonb_build_object('id_conflict', id)),
    error_details, performance_metrics, ai_analysis, pattern
  from pg_temp.log_writer_staging
  where outcome = 'conflict'
  order by derived_id, "timestamp", tenant, ordinal
  on conflict do nothing
  returning id, "timestamp", tenant
),
first_of_key as (
  select distinct on (derived_id, "timestamp", tenant) derived_id, "timestamp", tenant, ordinal
  from pg_temp.log_writer_staging
  where outcome = 'conflict'
  order by derived_id, "timestamp", tenant, ordinal
)
update pg_temp.log_writer_staging s
set outcome = case when i.id is null then 'duplicate' else 'renamed' end
from pg_temp.log_writer_staging c
left join first_of_key f on f.ordinal = c.ordinal
left join inserted i on i.id = f.derived_id and i."timestamp" = f."timestamp" and i.tenant = f.tenant
where c.outcome = 'conflict' and s.ordinal = c.ordinal
