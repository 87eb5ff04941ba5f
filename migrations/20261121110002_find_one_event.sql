-- One event by its id alone, without a look into every chunk where the id has a time inside; and a level that is none is refused
-- instead of finding nothing.
--
-- Locks: none that matter, every object is new or a function. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

create function public.get_log(p_id uuid, p_timestamp timestamptz default null, p_tenant text default null)
returns setof public.application_logs
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
declare
  q constant text := 'select l.* from public.application_logs l where l.id = $1'
    || case when p_tenant is null then '' else ' and l.tenant = $4' end;
  around constant text := ' and l."timestamp" >= $2 and l."timestamp" <= $3';
  newest_first constant text := ' order by l."timestamp" desc, l.tenant limit 100';
  -- UUIDs of version 7 and ULIDs begin with milliseconds; in others these bits are hardly ever a time of ours.
  v_time timestamptz := to_timestamp(('x' || left(replace(p_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0);
begin
  if p_timestamp is not null then
    return query execute q || around || newest_first using p_id, p_timestamp, p_timestamp, p_tenant;
    return;
  end if;
  if v_time between now() - interval '10 years' and now() + interval '1 day' then
    return query execute q || around || newest_first
      using p_id, v_time - interval '10 minutes', v_time + interval '10 minutes', p_tenant;
    if found then return; end if;
  end if;
  return query execute q || newest_first using p_id, null::timestamptz, null::timestamptz, p_tenant;
end
$f$;
comment on function public.get_log is
  'One event by its id, with everything that is stored of it; several rows where several tenants or times have that id, newest '
  'first, at most 100. Without p_timestamp an id with a time inside (UUID of version 7, ULID) is looked for within ten minutes of '
  'that time, and only if it is not there everywhere, which takes longer. '
  'Example: select * from get_log(''01935b6e-7a60-7f3a-8000-000000000001'');';

create or replace function public.get_log_context(
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
  v_before integer := least(greatest(coalesce(p_before, 10), 0), 1000);
  v_after integer := least(greatest(coalesce(p_after, 10), 0), 1000);
  v_found integer;
  v_back interval;
  v_ahead interval;
  columns constant text := 'l.id, l."timestamp", l.tenant, l.level, l.service, l.host, l.message, l.correlation_id,
    l.user_id, l.trace_id, l.fields, l.error_details';
  same_place constant text := ' from public.application_logs l
    where l.service = $4 and l.host is not distinct from $5 and l.tenant = $3 and ';
  earlier constant text := same_place || 'l."timestamp" <= $2 and (l."timestamp", l.id) < ($2, $1) and l."timestamp" >= $2 - $6';
  later constant text := same_place || 'l."timestamp" >= $2 and (l."timestamp", l.id) > ($2, $1) and l."timestamp" <= $2 + $6';
begin
  select l."timestamp", l.tenant, l.service, l.host into e from public.get_log(p_id, p_timestamp, p_tenant) l limit 1;
  if not found then return; end if;
  -- Farther only if there are too few near: in the columnstore a whole day is sorted for the nearest.
  foreach v_back in array array[interval '5 minutes', interval '1 hour', interval '1 day'] loop
    execute 'select count(*) from (select 1' || earlier || ' limit $7) n' into v_found
      using p_id, e."timestamp", e.tenant, e.service, e.host, v_back, v_before;
    exit when v_found >= v_before;
  end loop;
  foreach v_ahead in array array[interval '5 minutes', interval '1 hour', interval '1 day'] loop
    execute 'select count(*) from (select 1' || later || ' limit $7) n' into v_found
      using p_id, e."timestamp", e.tenant, e.service, e.host, v_ahead, v_after;
    exit when v_found >= v_after;
  end loop;
  return query execute
    '(select (-row_number() over (order by b."timestamp" desc, b.id desc))::integer, b.* from (
        select ' || columns || earlier || ' order by l."timestamp" desc, l.id desc limit $8) b)
     union all (select 0, ' || columns || ' from public.application_logs l
        where l.id = $1 and l."timestamp" = $2 and l.tenant = $3)
     union all (select row_number() over (order by a."timestamp", a.id)::integer, a.* from (
        select ' || columns || replace(later, '$6', '$7') || ' order by l."timestamp", l.id limit $9) a)
     order by 1'
    using p_id, e."timestamp", e.tenant, e.service, e.host, v_back, v_ahead, v_before, v_after;
end
$f$;
comment on function public.get_log_context is
  'What the same service on the same host logged before (place < 0) and after (place > 0) an event (place 0), within a day, '
  'at most 1000 each. p_timestamp and p_tenant, if known, make the event certain; else it is the first row of get_log(p_id). '
  'Example: select * from get_log_context(''01935b6e-7a60-7f3a-8000-000000000001'', 5, 5);';

create function public.log_level(p_level text) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $f$
begin
  if upper(p_level) not in ('TRACE', 'DEBUG', 'INFO', 'WARN', 'ERROR', 'FATAL') then
    raise exception 'no event has the level %', left(p_level, 100)
      using errcode = '22023', hint = 'one of TRACE, DEBUG, INFO, WARN, ERROR and FATAL, in any case';
  end if;
  return upper(p_level);
end
$f$;
comment on function public.log_level is 'Used by the other functions: a level as it is stored; one that is none is an error.';

create or replace function public.search_logs(
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
    public.log_level(p_level), p_service, p_user_id, p_correlation_id, p_trace_id, p_tenant, p_tags, p_fields,
    v_start, p_end_time, least(greatest(coalesce(p_limit, 100), 1), 10000),
    v_before[1]::timestamptz, v_before[2]::uuid, v_before[3];
end
$f$;

create or replace function public.get_log_volume(
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
    using s.window_start, greatest(coalesce(p_bucket, s.width), s.width), p_service, public.log_level(p_level), p_tenant;
end
$f$;

insert into log_writer.rights (access, object, privileges)
select access, 'function public.' || name, 'execute'
from unnest(array['get_log', 'log_level']) as name cross join unnest(array['reader', 'ingest']) as access;
