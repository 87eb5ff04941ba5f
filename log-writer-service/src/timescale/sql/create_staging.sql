-- Temporary, one per connection; columns of application_logs by name, number in the batch, derived id, what became of it.
create temporary table if not exists log_writer_staging (
  id uuid, "timestamp" timestamptz, ingested_at timestamptz, batch_id bigint, tenant text, level text, service text,
  host text, message text, correlation_id text, user_id text, trace_id text, span_id text, tags text[], fields jsonb,
  error_details jsonb, performance_metrics jsonb, ai_analysis jsonb, pattern bigint,
  ordinal integer, derived_id uuid, outcome text
) on commit delete rows;
truncate log_writer_staging
