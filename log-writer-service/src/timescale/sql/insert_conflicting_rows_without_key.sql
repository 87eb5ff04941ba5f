-- As insert_conflicting_rows.sql where the table has no key (profile columnar).
with first_of_key as materialized (
  select distinct on (derived_id, "timestamp", tenant) derived_id, "timestamp", tenant, ordinal
  from pg_temp.log_writer_staging
  where outcome = 'conflict'
  order by derived_id, "timestamp", tenant, ordinal
),
free as materialized (
  select f.ordinal
  from first_of_key f
  left join lateral (
    select true as found
    from public.application_logs a
    where a.id = f.derived_id and a."timestamp" = f."timestamp" and a.tenant = f.tenant
    limit 1
  ) l on true
  where l.found is null
),
inserted as (
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
  where ordinal in (select ordinal from free)
)
update pg_temp.log_writer_staging s
set outcome = case when free.ordinal is null then 'duplicate' else 'renamed' end
from pg_temp.log_writer_staging c
left join free on free.ordinal = c.ordinal
where c.outcome = 'conflict' and s.ordinal = c.ordinal
