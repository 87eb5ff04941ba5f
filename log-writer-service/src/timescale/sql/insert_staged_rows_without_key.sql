-- As insert_staged_rows.sql where the table has no key (profile columnar): a look for each staged row, by id and time, takes
-- the place of the conflict. `limit 1` keeps it a look-up in the chunk of that time.
with first_of_key as materialized (
  select distinct on (id, "timestamp", tenant) id, "timestamp", tenant, ordinal
  from pg_temp.log_writer_staging
  order by id, "timestamp", tenant, ordinal
),
free as materialized (
  select f.ordinal
  from first_of_key f
  left join lateral (
    select true as found
    from public.application_logs a
    where a.id = f.id and a."timestamp" = f."timestamp" and a.tenant = f.tenant
    limit 1
  ) l on true
  where l.found is null
),
inserted as (
  insert into public.application_logs (
    id, "timestamp", ingested_at, batch_id, tenant, level, service, host, message, correlation_id, user_id, trace_id,
    span_id, tags, fields, error_details, performance_metrics, ai_analysis, pattern)
  select
    id, "timestamp", ingested_at, batch_id, tenant, level, service, host, message, correlation_id, user_id, trace_id,
    span_id, tags, fields, error_details, performance_metrics, ai_analysis, pattern
  from pg_temp.log_writer_staging
  where ordinal in (select ordinal from free)
)
update pg_temp.log_writer_staging s
set outcome = 'stored'
from free
where s.ordinal = free.ordinal
