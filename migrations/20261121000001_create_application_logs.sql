-- The table that people and agents read: one row, one event; in Elasticsearch one document.
--
-- Locks: none that matter, every object is new. Time: next to none. The same on both editions.
-- An `application_logs` that is not ours stops the migration before anything is made: migrations run in a transaction.
-- The chunk interval comes from `database.chunk_interval`, which the migrator hands over as `log_writer.chunk_interval`.

set local lock_timeout = '5s';

do $m$
declare
  comment_there text;
begin
  if to_regclass('public.application_logs') is not null then
    comment_there := obj_description(to_regclass('public.application_logs'), 'pg_class');
    raise exception 'public.application_logs exists already and was not made by log-writer; nothing was changed'
      using errcode = '42P07',
            detail = format('its comment is: %s', coalesce(comment_there, '(none)')),
            hint = 'rename that table, or give log-writer a database of its own';
  end if;
end
$m$;

-- Which TimescaleDB this is: decided once, here, for every later migration.
create function log_writer.timescale_edition() returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $f$
  select case when current_setting('timescaledb.license', true) = 'timescale' then 'community' else 'apache' end
$f$;
comment on function log_writer.timescale_edition() is
  'community: continuous aggregates and columnstore are there; apache: hypertables and drop_chunks only.';

-- The first four columns are fixed in width and place: the service patches batch_id into encoded rows at commit.
create table public.application_logs (
  id uuid not null,
  "timestamp" timestamptz not null,
  ingested_at timestamptz not null,
  batch_id bigint not null,
  tenant text not null,
  level text not null,
  service text not null,
  host text,
  message text not null,
  correlation_id text,
  user_id text,
  trace_id text,
  span_id text,
  tags text[],
  fields jsonb,
  error_details jsonb,
  performance_metrics jsonb,
  ai_analysis jsonb
);

-- Our own indexes stand for the default one, which would double (timestamp desc).
select create_hypertable(
  'public.application_logs',
  by_range('timestamp', coalesce(nullif(current_setting('log_writer.chunk_interval', true), ''), '1 day')::interval),
  create_default_indexes => false
);

-- What makes an event the same event, here and in Elasticsearch; a unique index must hold the time column (TS103).
alter table public.application_logs
  add constraint application_logs_pkey primary key (id, "timestamp", tenant);
create index application_logs_timestamp_idx on public.application_logs ("timestamp" desc);
create index application_logs_service_level_timestamp_idx
  on public.application_logs (service, level, "timestamp" desc);
create index application_logs_correlation_id_timestamp_idx
  on public.application_logs (correlation_id, "timestamp" desc) where correlation_id is not null;
create index application_logs_user_id_timestamp_idx
  on public.application_logs (user_id, "timestamp" desc) where user_id is not null;
create index application_logs_trace_id_timestamp_idx
  on public.application_logs (trace_id, "timestamp" desc) where trace_id is not null;
-- Delivery reads batches back. A btree, although a BRIN costs writers less: docs/adr/0001.
create index application_logs_batch_id_idx on public.application_logs (batch_id);

comment on table public.application_logs is
  'Log events, one row each; written by log-writer-service, which answers its sender only after the commit. '
  'Always give a range of "timestamp" if you can: rows lie in chunks of time, others are then not read. '
  'search_logs() and get_error_stats() answer the usual questions.';
comment on column public.application_logs.id is
  'The event''s own id (UUID or ULID) or one derived from its request; unique together with "timestamp" and tenant.';
comment on column public.application_logs."timestamp" is
  'When it happened, in microseconds. A time that could not be used stands in fields->''_log_writer''->''timestamp''.';
comment on column public.application_logs.ingested_at is 'When the service received it.';
comment on column public.application_logs.batch_id is 'Which transaction committed it; used for delivery to Elasticsearch.';
comment on column public.application_logs.tenant is 'Whose event it is; ''default'' where tenants are not used.';
comment on column public.application_logs.level is 'TRACE, DEBUG, INFO, WARN, ERROR or FATAL; INFO if the event named none.';
comment on column public.application_logs.service is 'Name of the service that logged it; ''unknown'' if the event named none.';
comment on column public.application_logs.host is 'Name of the machine, container or pod.';
comment on column public.application_logs.message is 'The log line; empty if the event had none.';
comment on column public.application_logs.correlation_id is 'Joins the events of one request across services.';
comment on column public.application_logs.user_id is 'The user concerned.';
comment on column public.application_logs.trace_id is 'OpenTelemetry trace id, lower-case hex.';
comment on column public.application_logs.span_id is 'OpenTelemetry span id, lower-case hex.';
comment on column public.application_logs.tags is 'Tags of the event; null for none. tags @> array[''x''] finds one.';
comment on column public.application_logs.fields is
  'Everything else the event carried, nothing lost. The key _log_writer holds what was changed on the way in.';
comment on column public.application_logs.error_details is 'What is known of the error: type, message, stack.';
comment on column public.application_logs.performance_metrics is
  'Measured numbers, such as duration_ms: (performance_metrics->>''duration_ms'')::double precision.';
comment on column public.application_logs.ai_analysis is 'What an analysis added later.';
