-- What people and agents ask, as functions: plpgsql with `execute … using`, the only form whose plan stays good under
-- prepared statements and shows the planner which chunks are meant.
--
-- search_logs and get_error_stats get further parameters and columns, so they are made anew; rights on them go with them.
-- Locks: access exclusive on the two functions alone. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

drop function public.search_logs;
drop function public.get_error_stats;

create function public.search_logs(
  p_query text default null,
  p_level text default null,
  p_service text default null,
  p_user_id text default null,
  p_correlation_id text default null,
  p_trace_id text default null,
  p_tenant text default null,
  p_tags text[] default null,
  p_fields jsonb default null,
  p_start_time timestamptz default null,
  p_end_time timestamptz default null,
  p_limit integer default 100,
  p_before text default null
)
returns table (
  id uuid, "timestamp" timestamptz, tenant text, level text, service text, host text, message text,
  correlation_id text, user_id text, trace_id text, span_id text, tags text[],
  fields jsonb, error_details jsonb, performance_metrics jsonb, ai_analysis jsonb, page_end text
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
declare
  q text := 'select l.id, l."timestamp", l.tenant, l.level, l.service, l.host, l.message, l.correlation_id, l.user_id,
    l.trace_id, l.span_id, l.tags, l.fields, l.error_details, l.performance_metrics, l.ai_analysis,
    to_char(l."timestamp" at time zone ''UTC'', ''YYYY-MM-DD"T"HH24:MI:SS.US"Z"'') || ''/'' || l.id || ''/'' || l.tenant
    from public.application_logs l where true';
  v_start timestamptz := p_start_time;
  v_before text[];
begin
  -- Without a name to look up and without a time, the question is "what is going on": the last hour.
  if p_start_time is null and p_end_time is null and p_before is null
     and p_user_id is null and p_correlation_id is null and p_trace_id is null then
    v_start := now() - interval '1 hour';
  end if;
  -- First, so that no other condition is looked at for another tenant's event.
  if p_tenant is not null then q := q || ' and l.tenant = $7'; end if;
  if v_start is not null then q := q || ' and l."timestamp" >= $10'; end if;
  if p_end_time is not null then q := q || ' and l."timestamp" < $11'; end if;
  if p_before is not null then
    v_before := regexp_match(p_before, '^([^/]+)/([0-9a-f-]{36})/(.*)$');
    if v_before is null then
      raise exception 'p_before is not the page_end of an earlier row: %', left(p_before, 100)
        using errcode = '22023', hint = 'pass page_end of the last row you have, unchanged';
    end if;
    -- The time alone first: it is what the index and the choice of chunks understand.
    q := q || ' and l."timestamp" <= $13 and (l."timestamp", l.id, l.tenant) < ($13, $14, $15)';
  end if;
  if p_level is not null then q := q || ' and l.level = $2'; end if;
  if p_service is not null then q := q || ' and l.service = $3'; end if;
  if p_user_id is not null then q := q || ' and l.user_id = $4'; end if;
  if p_correlation_id is not null then q := q || ' and l.correlation_id = $5'; end if;
  if p_trace_id is not null then q := q || ' and l.trace_id = any(array[$6, lower($6)])'; end if;
  if p_tags is not null then q := q || ' and l.tags @> $8'; end if;
  if p_fields is not null then q := q || ' and l.fields @> $9'; end if;
  if p_query is not null then q := q || ' and l.message ilike $1'; end if;
  q := q || ' order by l."timestamp" desc, l.id desc, l.tenant desc limit $12';
  return query execute q using
    '%' || replace(replace(replace(p_query, '\', '\\'), '%', '\%'), '_', '\_') || '%',
    upper(p_level), p_service, p_user_id, p_correlation_id, p_trace_id, p_tenant, p_tags, p_fields,
    v_start, p_end_time, least(greatest(coalesce(p_limit, 100), 1), 10000),
    v_before[1]::timestamptz, v_before[2]::uuid, v_before[3];
end
$f$;
comment on function public.search_logs is
  'Finds log events, newest first. All parameters are optional and joined by AND: p_query (text anywhere in the message, '
  'case ignored), p_level (TRACE, DEBUG, INFO, WARN, ERROR, FATAL), p_service, p_user_id, p_correlation_id, p_trace_id, '
  'p_tenant, p_tags (all of them), p_fields (jsonb that fields must contain), p_start_time (from), p_end_time (before), '
  'p_limit (default 100, at most 10000), p_before (page_end of the last row of the page before). '
  'Without a time and without user, correlation or trace id: the last hour. '
  'Example: select * from search_logs(p_level := ''ERROR'', p_service := ''api'', p_start_time := now() - interval ''2 hours'');';

-- Which counts answer for a window, from where, and how wide their buckets are.
create function public.log_stats_source(
  p_window interval, out name text, out width interval, out window_start timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
begin
  if p_window is null or p_window <= interval '0' then
    raise exception 'a window of time must be longer than nothing: %', coalesce(p_window::text, 'null')
      using errcode = '22023', hint = 'for example interval ''1 hour''';
  end if;
  if p_window > interval '60 days' then
    name := 'public.log_stats_1d'; width := interval '1 day';
  elsif p_window > interval '1 day' then
    name := 'public.log_stats_1h'; width := interval '1 hour';
  else
    name := 'public.log_stats_1m'; width := interval '1 minute';
  end if;
  window_start := date_bin(width, now() - p_window, timestamptz '2000-01-01 00:00:00+00');
end
$f$;
comment on function public.log_stats_source is
  'Used by the other functions: log_stats_1m up to a day, log_stats_1h up to 60 days, then log_stats_1d; a window begins '
  'with a whole bucket.';

-- The counts of a span of minutes as SQL: whole hours that have ended from the hours, the minutes around them from the minutes.
-- A day of minutes is ten thousands of rows with a histogram each, a day of hours hundreds.
create function public.log_stats_span(p_from timestamptz, p_to timestamptz default null) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
declare
  columns constant text := 'bucket, tenant, service, level, events, errors, durations, duration_sum, duration_max, duration_histogram, first_seen, last_seen';
  -- An hour is counted as such when it and the next have ended: until then its minutes are nearer to now.
  v_first timestamptz := date_trunc('hour', p_from + interval '59 minutes 59.999999 seconds', 'UTC');
  v_last timestamptz := date_trunc('hour', least(coalesce(p_to, now()), now() - interval '1 hour'), 'UTC');
  v_end text := case when p_to is null then '' else format(' and bucket < %L', p_to) end;
begin
  if v_last <= v_first + interval '1 hour' then
    return format('(select %s from public.log_stats_1m where bucket >= %L%s)', columns, p_from, v_end);
  end if;
  return format('(select %1$s from public.log_stats_1m where bucket >= %2$L and bucket < %3$L
    union all select %1$s from public.log_stats_1h where bucket >= %3$L and bucket < %4$L
    union all select %1$s from public.log_stats_1m where bucket >= %4$L%5$s)', columns, p_from, v_first, v_last, v_end);
end
$f$;
comment on function public.log_stats_span is
  'Used by the other functions: SQL that reads the counts from one minute to another, by whole hours where it can.';
insert into log_writer.rights (access, object, privileges)
select access, 'function public.log_stats_span', privileges from log_writer.rights where object = 'function public.log_stats_source';

create function public.get_error_stats(p_window interval default interval '1 hour', p_tenant text default null)
returns table (
  service text, errors bigint, total bigint, error_rate double precision, distinct_messages bigint, users bigint,
  first_seen timestamptz, last_seen timestamptz, errors_before bigint, change double precision,
  top_pattern text, top_pattern_events bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
declare
  s record := public.log_stats_source(p_window);
  v_counts text := s.name;
begin
  if s.width = interval '1 minute' then
    v_counts := format('(select * from %s w union all select * from %s b)', public.log_stats_span(s.window_start),
      public.log_stats_span(s.window_start - p_window, s.window_start));
  end if;
  return query execute format(
    'with counted as (
       select c.service,
         sum(c.events) filter (where c.bucket >= $1)::bigint as total,
         sum(c.errors) filter (where c.bucket >= $1)::bigint as errors,
         sum(c.errors) filter (where c.bucket < $1)::bigint as errors_before,
         min(c.first_seen) filter (where c.bucket >= $1 and c.errors > 0) as first_seen,
         max(c.last_seen) filter (where c.bucket >= $1 and c.errors > 0) as last_seen
       from %s c
       where c.bucket >= $2 and ($3 is null or c.tenant = $3)
       group by 1
     ), seen as (
       select l.service, count(distinct hashtextextended(l.message, 0)) as messages, count(distinct l.user_id) as users
       from public.application_logs l
       where l."timestamp" >= $1 and l.level in (''ERROR'', ''FATAL'') and ($3 is null or l.tenant = $3)
       group by 1
     ), patterns as (
       select p.service, p.tenant, p.pattern, sum(p.events)::bigint as events,
         row_number() over (partition by p.service order by sum(p.events) desc, p.pattern) as place
       from public.log_pattern_stats_5m p
       where p.bucket >= $1 and p.level in (''ERROR'', ''FATAL'') and ($3 is null or p.tenant = $3)
       group by 1, 2, 3
     )
     select c.service, c.errors, c.total, c.errors::double precision / c.total,
       coalesce(s.messages, 0), coalesce(s.users, 0), c.first_seen, c.last_seen,
       coalesce(c.errors_before, 0), c.errors::double precision / nullif(c.errors_before, 0) - 1, t.template, p.events
     from counted c
     left join seen s on s.service = c.service
     left join patterns p on p.service = c.service and p.place = 1
     left join public.log_patterns t on t.tenant = p.tenant and t.pattern = p.pattern
     where c.errors > 0
     order by c.errors desc, c.service', v_counts)
    using s.window_start, s.window_start - p_window, p_tenant;
end
$f$;
comment on function public.get_error_stats is
  'Errors (ERROR and FATAL) per service within p_window before now (from a whole minute; hour beyond a day), most errors first; '
  'services without errors are left out. error_rate = errors / total; distinct_messages and users are those of the errors '
  'that are still kept; errors_before: in as long a time before; change: 0.5 is half as many again, null if there were none; '
  'top_pattern: the most frequent kind of message, masked. Example: select * from get_error_stats(interval ''6 hours'');';

create function public.get_log_volume(
  p_window interval default interval '1 hour', p_bucket interval default null, p_service text default null,
  p_level text default null, p_tenant text default null
)
returns table (bucket timestamptz, service text, level text, events bigint, errors bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
declare
  s record := public.log_stats_source(p_window);
begin
  return query execute format(
    'select date_bin($2, c.bucket, timestamptz ''2000-01-01 00:00:00+00''), c.service, c.level,
       sum(c.events)::bigint, sum(c.errors)::bigint
     from %s c
     where c.bucket >= $1 and ($3 is null or c.service = $3) and ($4 is null or c.level = $4) and ($5 is null or c.tenant = $5)
     group by 1, 2, 3
     order by 1, 2, 3
     limit 10000', s.name)
    using s.window_start, greatest(coalesce(p_bucket, s.width), s.width), p_service, upper(p_level), p_tenant;
end
$f$;
comment on function public.get_log_volume is
  'Events and errors per bucket, service and level within p_window before now. p_bucket: width of a bucket (default: a minute '
  'up to a day, an hour up to 60 days, then a day; narrower ones are not counted). At most 10000 rows. '
  'Example: select * from get_log_volume(interval ''1 day'', interval ''1 hour'', p_service := ''api'');';

create function public.get_latency_stats(
  p_window interval default interval '1 hour', p_service text default null, p_tenant text default null
)
returns table (
  service text, requests bigint, avg_ms double precision, p50_ms double precision, p95_ms double precision,
  p99_ms double precision, max_ms double precision
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
declare
  s record := public.log_stats_source(p_window);
begin
  -- Buckets of the histograms are summed as rows: adding arrays one to the other would cost a call for each.
  return query execute format(
    'with chosen as (
       select c.service, c.durations, c.duration_sum, c.duration_max, c.duration_histogram
       from %s c
       where c.bucket >= $1 and c.durations > 0 and ($2 is null or c.service = $2) and ($3 is null or c.tenant = $3)
     ), histograms as (
       select b.service, array_agg(b.n order by b.place) as histogram
       from (select c.service, u.place, sum(u.n)::bigint as n
             from chosen c cross join lateral unnest(c.duration_histogram) with ordinality as u(n, place) group by 1, 2) b
       group by 1
     ), totals as (
       select c.service, sum(c.durations)::bigint as n, sum(c.duration_sum) as total, max(c.duration_max) as longest
       from chosen c group by 1
     )
     select t.service, t.n, t.total / t.n, least(public.log_histogram_quantile(h.histogram, 0.5), t.longest),
       least(public.log_histogram_quantile(h.histogram, 0.95), t.longest),
       least(public.log_histogram_quantile(h.histogram, 0.99), t.longest), t.longest
     from totals t join histograms h on h.service = t.service
     order by 5 desc, 1',
    case s.width when interval '1 minute' then public.log_stats_span(s.window_start) else s.name end)
    using s.window_start, p_service, p_tenant;
end
$f$;
comment on function public.get_latency_stats is
  'Durations (performance_metrics: duration_ms, else response_time_ms) per service within p_window before now, slowest p95 '
  'first. Percentiles are within 7.5 %, average and maximum exact. Example: select * from get_latency_stats(interval ''1 day'');';

create function public.get_log_context(
  p_id uuid, p_before integer default 10, p_after integer default 10, p_timestamp timestamptz default null,
  p_tenant text default null
)
returns table (
  place integer, id uuid, "timestamp" timestamptz, tenant text, level text, service text, host text, message text,
  correlation_id text, user_id text, trace_id text, fields jsonb, error_details jsonb
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
declare
  e record;
  q text := 'select l."timestamp", l.tenant, l.service, l.host from public.application_logs l where l.id = $1';
  columns constant text := 'l.id, l."timestamp", l.tenant, l.level, l.service, l.host, l.message, l.correlation_id,
    l.user_id, l.trace_id, l.fields, l.error_details';
  same_place constant text := ' from public.application_logs l
    where l.service = $4 and l.host is not distinct from $5 and l.tenant = $3 and ';
begin
  if p_timestamp is not null then q := q || ' and l."timestamp" = $2'; end if;
  if p_tenant is not null then q := q || ' and l.tenant = $3'; end if;
  execute q || ' order by l."timestamp" desc, l.tenant limit 1' into e using p_id, p_timestamp, p_tenant;
  if e is null then return; end if;
  return query execute
    '(select (-row_number() over (order by b."timestamp" desc, b.id desc))::integer, b.* from (
        select ' || columns || same_place || 'l."timestamp" <= $2 and (l."timestamp", l.id) < ($2, $1)
          and l."timestamp" >= $2 - interval ''1 day''
        order by l."timestamp" desc, l.id desc limit $6) b)
     union all (select 0, ' || columns || ' from public.application_logs l
        where l.id = $1 and l."timestamp" = $2 and l.tenant = $3)
     union all (select row_number() over (order by a."timestamp", a.id)::integer, a.* from (
        select ' || columns || same_place || 'l."timestamp" >= $2 and (l."timestamp", l.id) > ($2, $1)
          and l."timestamp" <= $2 + interval ''1 day''
        order by l."timestamp", l.id limit $7) a)
     order by 1'
    using p_id, e."timestamp", e.tenant, e.service, e.host,
      least(greatest(coalesce(p_before, 10), 0), 1000), least(greatest(coalesce(p_after, 10), 0), 1000);
end
$f$;
comment on function public.get_log_context is
  'What the same service on the same host logged before (place < 0) and after (place > 0) an event (place 0), within a day, '
  'at most 1000 each. p_timestamp and p_tenant, if known, make it faster and the event certain; else the newest of that id. '
  'Example: select * from get_log_context(''01935b6e-7a60-7f3a-8000-000000000001'', 5, 5);';

create function public.trace_logs(
  p_id text, p_start_time timestamptz default null, p_end_time timestamptz default null, p_tenant text default null,
  p_limit integer default 1000
)
returns table (
  "timestamp" timestamptz, after_ms double precision, service text, level text, message text, host text, user_id text,
  correlation_id text, trace_id text, span_id text, id uuid, tenant text, performance_metrics jsonb, error_details jsonb
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
declare
  bounds text := '';
begin
  if p_start_time is not null then bounds := bounds || ' and l."timestamp" >= $2'; end if;
  if p_end_time is not null then bounds := bounds || ' and l."timestamp" < $3'; end if;
  if p_tenant is not null then bounds := bounds || ' and l.tenant = $4'; end if;
  -- Two halves, so that each has an index of its own.
  return query execute
    'with found as (
       select l.* from public.application_logs l where l.correlation_id = $1' || bounds || '
       union all
       select l.* from public.application_logs l where l.trace_id = any(array[$1, lower($1)])
         and l.correlation_id is distinct from $1' || bounds || '
     )
     select f."timestamp", extract(epoch from f."timestamp" - min(f."timestamp") over ())::double precision * 1000,
       f.service, f.level, f.message, f.host, f.user_id, f.correlation_id, f.trace_id, f.span_id, f.id, f.tenant,
       f.performance_metrics, f.error_details
     from found f
     order by f."timestamp", f.id
     limit $5'
    using p_id, p_start_time, p_end_time, p_tenant, least(greatest(coalesce(p_limit, 1000), 1), 10000);
end
$f$;
comment on function public.trace_logs is
  'All events of one correlation id or trace id, oldest first, over all services; after_ms: milliseconds since the first. '
  'p_limit: default 1000, at most 10000. Example: select * from trace_logs(''abc-123-def'');';

create function public.top_error_patterns(
  p_window interval default interval '1 hour', p_limit integer default 20, p_service text default null,
  p_tenant text default null
)
returns table (
  pattern bigint, template text, tenant text, level text, services text[], events bigint, share double precision,
  events_before bigint, first_seen timestamptz, last_seen timestamptz
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
declare
  v_start timestamptz := date_bin(interval '5 minutes', now() - p_window, timestamptz '2000-01-01 00:00:00+00');
begin
  return query execute
    'with counted as (
       select c.tenant, c.pattern, max(c.level) filter (where c.bucket >= $1) as level,
         array_agg(distinct c.service order by c.service) filter (where c.bucket >= $1) as services,
         sum(c.events) filter (where c.bucket >= $1)::bigint as events,
         sum(c.events) filter (where c.bucket < $1)::bigint as events_before,
         max(c.last_seen) as last_seen
       from public.log_pattern_stats_5m c
       where c.bucket >= $2 and c.level in (''ERROR'', ''FATAL'') and ($3 is null or c.service = $3)
         and ($4 is null or c.tenant = $4)
       group by 1, 2
     )
     select c.pattern, t.template, c.tenant, c.level, c.services, c.events,
       c.events::double precision / sum(c.events) over (), coalesce(c.events_before, 0), t.first_seen, c.last_seen
     from counted c left join public.log_patterns t on t.tenant = c.tenant and t.pattern = c.pattern
     where c.events > 0
     order by c.events desc, c.pattern
     limit $5'
    using v_start, v_start - p_window, p_service, p_tenant, least(greatest(coalesce(p_limit, 20), 1), 1000);
end
$f$;
comment on function public.top_error_patterns is
  'The most frequent kinds of error messages (ERROR, FATAL; numbers, ids and the like masked) within p_window before now, in '
  'whole five minutes; share of all errors, events_before: in as long a time before; first_seen: ever. '
  'Example: select * from top_error_patterns(interval ''1 day'', 10);';

create function public.new_error_patterns(
  p_window interval default interval '1 hour', p_limit integer default 20, p_tenant text default null
)
returns table (
  pattern bigint, template text, tenant text, level text, service text, first_seen timestamptz, events bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
begin
  return query execute
    'select t.pattern, t.template, t.tenant, t.level, t.service, t.first_seen,
       coalesce((select sum(c.events) from public.log_pattern_stats_5m c
         where c.bucket >= date_bin(interval ''5 minutes'', t.first_seen, timestamptz ''2000-01-01 00:00:00+00'')
           and c.pattern = t.pattern and c.tenant = t.tenant), 0)::bigint
     from public.log_patterns t
     where t.first_seen >= $1 and t.level in (''ERROR'', ''FATAL'') and ($2 is null or t.tenant = $2)
     order by t.first_seen desc, t.pattern
     limit $3'
    using now() - p_window, p_tenant, least(greatest(coalesce(p_limit, 20), 1), 1000);
end
$f$;
comment on function public.new_error_patterns is
  'Kinds of error messages that were never seen before p_window ago, newest first, with how often they came since. '
  'Example: select * from new_error_patterns(interval ''1 day'');';

create function public.service_dependencies(p_window interval default interval '1 hour', p_tenant text default null)
returns table (
  from_service text, to_service text, requests bigint, failed bigint, median_lag_ms double precision
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
begin
  return query execute
    'with seen as (
       select l.tenant, coalesce(l.trace_id, l.correlation_id) as request, l.service, min(l."timestamp") as first_seen,
         bool_or(l.level in (''ERROR'', ''FATAL'')) as failed
       from public.application_logs l
       where l."timestamp" >= $1 and (l.trace_id is not null or l.correlation_id is not null)
         and ($2 is null or l.tenant = $2)
       group by 1, 2, 3
     ), steps as (
       select lag(s.service) over request as from_service, s.service as to_service, s.failed,
         extract(epoch from s.first_seen - lag(s.first_seen) over request)::double precision * 1000 as lag_ms
       from seen s
       window request as (partition by s.tenant, s.request order by s.first_seen, s.service)
     )
     select s.from_service, s.to_service, count(*), count(*) filter (where s.failed),
       percentile_cont(0.5) within group (order by s.lag_ms)
     from steps s
     where s.from_service is not null
     group by 1, 2
     order by 3 desc, 1, 2
     limit 1000'
    using now() - p_window, p_tenant;
end
$f$;
comment on function public.service_dependencies is
  'Which service follows which within a request (same trace id, else correlation id), by their first events: how many '
  'requests, in how many of them to_service logged an error, and the median time between. Reads the events of the window. '
  'Example: select * from service_dependencies(interval ''1 hour'');';

create function public.detect_anomalies(
  p_window interval default interval '1 hour', p_threshold double precision default 3.5, p_days integer default 7,
  p_tenant text default null
)
returns table (
  service text, measure text, now_value double precision, usual double precision, score double precision, days bigint
)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
declare
  s record := public.log_stats_source(p_window);
  v_days text;
begin
  if p_window > interval '1 day' then
    raise exception 'detect_anomalies compares with the same time of earlier days: p_window is at most a day, not %', p_window
      using errcode = '22023';
  end if;
  -- A part for each day, so that nothing between them is read.
  select string_agg(format('select %s as day, d.* from %s d', d,
    public.log_stats_span(s.window_start - d * interval '1 day', s.window_start - d * interval '1 day' + p_window)), ' union all ')
  into v_days from generate_series(0, least(greatest(p_days, 3), 60)) d;
  return query execute format(
    'with spans as (
       select d as day from generate_series(0, $2) d
     ), counted as (
       select c.day, c.service, sum(c.events)::double precision as events, sum(c.errors)::double precision as errors,
         sum(c.duration_sum) / nullif(sum(c.durations), 0) as duration
       from (%s) c
       where $1 is null or c.tenant = $1
       group by 1, 2
     ), known as (
       select service, min(day) filter (where day > 0) is not null as has_past, max(day) as oldest from counted group by 1
     ), values_of as (
       -- A day on which a known service was silent counts as nothing, back to the oldest day on which it was seen.
       select k.service, w.day, m.measure,
         case m.measure when ''events'' then coalesce(c.events, 0) when ''errors'' then coalesce(c.errors, 0)
           else c.duration end as value
       from known k join spans w on w.day <= k.oldest
       cross join (values (''events''), (''errors''), (''avg_duration_ms'')) as m(measure)
       left join counted c on c.service = k.service and c.day = w.day
       where k.has_past
     ), medians as (
       select v.service, v.measure, percentile_cont(0.5) within group (order by v.value) as usual, count(v.value) as days
       from values_of v where v.day > 0 group by 1, 2
     ), spreads as (
       select v.service, v.measure, m.usual, m.days,
         percentile_cont(0.5) within group (order by abs(v.value - m.usual)) as mad
       from values_of v join medians m using (service, measure) where v.day > 0 group by 1, 2, 3, 4
     ), scored as (
       -- The spread is never taken for less than what counting alone brings (square root), or a twentieth of the value.
       select v.service, v.measure, v.value, p.usual, p.days,
         0.6745 * (v.value - p.usual)
           / greatest(p.mad, case when v.measure = ''avg_duration_ms'' then 0 else 0.6745 * sqrt(p.usual) end, p.usual / 20, 0.6745)
           as score
       from values_of v join spreads p using (service, measure) where v.day = 0
     )
     select x.service, x.measure, x.value, x.usual, x.score, x.days
     from scored x
     where x.days >= 3 and abs(x.score) >= $3
     order by abs(x.score) desc, 1, 2', v_days)
    using p_tenant, least(greatest(p_days, 3), 60), p_threshold;
end
$f$;
comment on function public.detect_anomalies is
  'Services whose events, errors or average duration within p_window before now differ from the same time of the p_days days '
  'before: score is the distance from the median in robust standard deviations (median absolute deviation), from '
  'p_threshold on; below zero: less than usual. Needs three days of past. Example: select * from detect_anomalies(interval ''1 hour'');';

create function public.silent_services(
  p_window interval default interval '5 minutes', p_known interval default interval '1 day', p_tenant text default null
)
returns table (service text, last_seen timestamptz, silent_for interval, events_per_hour double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
#variable_conflict use_column
declare
  s record := public.log_stats_source(p_known);
begin
  return query execute format(
    'select c.service, max(c.last_seen), now() - max(c.last_seen),
       sum(c.events) / (extract(epoch from $2) / 3600)::double precision
     from %s c
     where c.bucket >= $1 and ($4 is null or c.tenant = $4)
     group by 1
     having max(c.last_seen) < now() - $3
     order by 2 desc, 1', s.name)
    using s.window_start, p_known, p_window, p_tenant;
end
$f$;
comment on function public.silent_services is
  'Services that logged within p_known before now, but nothing for p_window; events_per_hour: what they usually log. '
  'Example: select * from silent_services(interval ''5 minutes'');';
