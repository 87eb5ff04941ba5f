-- Inserts what has a free key; of several staged rows with one key the first in the batch. In the order of the key, so
-- that two committers with the same rows wait for each other instead of deadlocking.
with inserted as (
  insert into public.application_logs (
    id, "timestamp", ingested_at, batch_id, tenant, level, service, host, message, correlation_id, user_id, trace_id,
    span_id, tags, fields, error_details, performance_metrics, ai_analysis, pattern)
  select
    id, "timestamp", ingested_at, batch_id, tenant, level, service, host, message, correlation_id, user_id, trace_id,
    span_id, tags, fields, error_details, performance_metrics, ai_analysis, pattern
  from pg_temp.log_writer_staging
  order by id, "timestamp", tenant, ordinal
  on conflict do nothing
  returning id, "timestamp", tenant
),
first_of_key as (
  select distinct on (id, "timestamp", tenant) id, "timestamp", tenant, ordinal
  from pg_temp.log_writer_staging
  order by id, "timestamp", tenant, ordinal
)
update pg_temp.log_writer_staging s
set outcome = 'stored'
from first_of_key f join inserted i using (id, "timestamp", tenant)
where s.ordinal = f.ordinal
