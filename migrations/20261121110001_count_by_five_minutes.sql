-- Counts without levels and durations, and the errors with their messages and users: what get_error_stats asks of hours is some thousand
-- narrow rows, instead of ten thousands of wide ones and every error itself.
--
-- log_stats_5m is made of log_stats_1m. log_errors_5m reads each error once, through their index, when they are counted.
-- Neither costs the writer anything: counting runs beside it, and there is no further index or trigger on application_logs.
-- Locks: none that matter, objects are new or functions; on Apache counting pauses meanwhile. Time: next to none; on Apache the
-- rows of log_stats_1m are summed once (17 s for three million on a busy machine).

set local lock_timeout = '5s';
-- Real-time aggregates on aggregates are meant so.
set local client_min_messages = error;

do $m$
declare
  v_sums constant text := $q$
    select time_bucket(interval '5 minutes', s.bucket) as bucket, s.tenant, s.service,
      sum(s.events)::bigint as events,
      sum(s.errors)::bigint as errors,
      min(s.first_seen) as first_seen,
      max(s.last_seen) as last_seen
    from $q$;
  -- Hashes of 64 bits, each once.
  v_errors constant text := $q$
    select time_bucket(interval '5 minutes', l."timestamp") as bucket, l.tenant, l.service,
      count(*) as errors,
      min(l."timestamp") as first_seen,
      max(l."timestamp") as last_seen,
      array_agg(distinct hashtextextended(l.message, 0)) as messages,
      array_agg(distinct hashtextextended(l.user_id, 0)) filter (where l.user_id is not null) as users
    from public.application_logs l
    where l.level in ('ERROR', 'FATAL')$q$;
  v_options constant text := ' with (timescaledb.continuous, timescaledb.materialized_only = false) as ';
  v_since timestamptz := '-infinity';
  v_timescale name;
begin
  if log_writer.timescale_edition() = 'community' then
    execute 'create materialized view public.log_stats_5m' || v_options || v_sums
      || 'public.log_stats_1m s group by 1, 2, 3 with no data';
    execute 'create materialized view public.log_errors_5m' || v_options || v_errors || ' group by 1, 2, 3 with no data';
    perform add_continuous_aggregate_policy('public.log_stats_5m', start_offset => interval '14 days',
      end_offset => interval '1 minute', schedule_interval => interval '1 minute');
    perform add_continuous_aggregate_policy('public.log_errors_5m', start_offset => interval '14 days',
      end_offset => interval '1 minute', schedule_interval => interval '1 minute');
    -- The policy counts 14 days back.
    if exists (select from public.application_logs) then v_since := now() - interval '13 days'; end if;
  else
    select n.nspname into v_timescale
    from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'timescaledb';
    -- Nobody counts while this runs.
    select time_bucket(interval '5 minutes', counted_until + interval '5 minutes') into v_since
    from log_writer.stats_state for update;

    execute 'create table log_writer.stats_5m as ' || v_sums || $q$log_writer.stats_1m s
      where s.bucket < (select time_bucket(interval '5 minutes', counted_until) from log_writer.stats_state) group by 1, 2, 3$q$;
    execute 'create table log_writer.errors_5m as ' || v_errors || ' group by 1, 2, 3 limit 0';
    alter table log_writer.stats_5m add primary key (bucket, tenant, service);
    alter table log_writer.errors_5m add primary key (bucket, tenant, service);

    execute $q$create view public.log_stats_5m as select * from log_writer.stats_5m
        where bucket < (select time_bucket(interval '5 minutes', counted_until) from log_writer.stats_state)
      union all select time_bucket(interval '5 minutes', l."timestamp") as bucket, l.tenant, l.service,
          count(*) as events,
          count(*) filter (where l.level in ('ERROR', 'FATAL')) as errors,
          min(l."timestamp") as first_seen,
          max(l."timestamp") as last_seen
        from public.application_logs l
        where l."timestamp" >= (select time_bucket(interval '5 minutes', counted_until) from log_writer.stats_state)
      group by 1, 2, 3$q$;
    execute $q$create view public.log_errors_5m as select * from log_writer.errors_5m
        where bucket < (select time_bucket(interval '5 minutes', counted_until) from log_writer.stats_state)
      union all $q$ || v_errors || $q$
        and l."timestamp" >= (select time_bucket(interval '5 minutes', counted_until) from log_writer.stats_state)
      group by 1, 2, 3$q$;

    alter function log_writer.recount_stats rename to recount_minutes;
    execute format($outer$
      create function log_writer.recount_stats(p_from timestamptz, p_to timestamptz, p_until timestamptz) returns void
      language plpgsql
      set search_path = pg_catalog, %3$I, pg_temp
      as $f$
      declare
        v_lower timestamptz := time_bucket(interval '5 minutes', p_from);
        v_upper timestamptz := time_bucket(interval '5 minutes', least(p_to + interval '4 minutes 59.999999 seconds', p_until));
      begin
        perform log_writer.recount_minutes(p_from, p_to, p_until);
        if v_lower >= v_upper then return; end if;
        delete from log_writer.stats_5m where bucket >= v_lower and bucket < v_upper;
        execute 'insert into log_writer.stats_5m ' || %1$L
          || 'log_writer.stats_1m s where s.bucket >= $1 and s.bucket < $2 group by 1, 2, 3' using v_lower, v_upper;
        delete from log_writer.errors_5m where bucket >= v_lower and bucket < v_upper;
        execute 'insert into log_writer.errors_5m ' || %2$L
          || ' and l."timestamp" >= $1 and l."timestamp" < $2 group by 1, 2, 3' using v_lower, v_upper;
      end
      $f$
      $outer$, v_sums, v_errors, v_timescale);
  end if;

  execute format($outer$
    create function public.log_errors_since() returns timestamptz
    language sql immutable
    set search_path = pg_catalog, pg_temp
    as $f$ select timestamptz %L $f$
    $outer$, v_since);
end
$m$;
comment on function public.log_errors_since is
  'Used by get_error_stats: from when on log_errors_5m is complete; before, events were there and it was not.';

insert into log_writer.rights (access, object, privileges)
select access, kind || ' public.' || name, case kind when 'table' then 'select' else 'execute' end
from (values ('table', 'log_stats_5m'), ('table', 'log_errors_5m'), ('function', 'log_errors_since'),
  ('function', 'log_counts_since'), ('function', 'log_rested_until')) as o(kind, name)
cross join unnest(array['reader', 'ingest']) as access;

create function public.log_rested_until() returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $f$
  select date_trunc('minute', now())
    - case when current_setting('timescaledb.license', true) = 'timescale' then interval '3 minutes' else interval '12 minutes' end
$f$;
comment on function public.log_rested_until is
  'Used by the other functions: minutes before this are counted by now, unless counting is late. What is newer is cheaper to '
  'count from the events themselves.';

-- Events from a minute until now, counted, as SQL.
create function public.log_counts_since(p_from timestamptz) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $f$
declare
  origin constant timestamptz := timestamptz '2000-01-01 00:00:00+00';
  counts constant text := 'select bucket, tenant, service, events, last_seen from public.log_stats_';
  v_rested timestamptz := greatest(public.log_rested_until(), p_from);
  v_first timestamptz := date_bin(interval '5 minutes', p_from + interval '4 minutes 59.999999 seconds', origin);
  v_last timestamptz := date_bin(interval '5 minutes', v_rested, origin);
  parts text[];
begin
  if v_last <= v_first then
    parts := array[format('%s1m where bucket >= %L and bucket < %L', counts, p_from, v_rested)];
  else
    parts := array[
      format('%s1m where bucket >= %L and bucket < %L', counts, p_from, v_first),
      format('%s5m where bucket >= %L and bucket < %L', counts, v_first, v_last),
      format('%s1m where bucket >= %L and bucket < %L', counts, v_last, v_rested)];
  end if;
  return '(' || array_to_string(parts, ' union all ') || format(
    ' union all select date_trunc(''minute'', l."timestamp"), l.tenant, l.service, count(*), max(l."timestamp")
      from public.application_logs l where l."timestamp" >= %L group by 1, 2, 3)', v_rested);
end
$f$;
comment on function public.log_counts_since is
  'Used by the other functions: SQL that counts events from a minute until now, by five minutes where it can.';

create or replace function public.get_error_stats(p_window interval default interval '1 hour', p_tenant text default null)
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
  five constant interval := interval '5 minutes';
  origin constant timestamptz := timestamptz '2000-01-01 00:00:00+00';
  s record := public.log_stats_source(p_window);
  v_is_short boolean := s.width = interval '1 minute';
  v_before timestamptz := s.window_start - p_window;
  -- Whole five minutes, and the one of them that the window begins in.
  v_from timestamptz := case when v_is_short then v_before else s.window_start end;
  v_first timestamptz := date_bin(five, v_from + interval '4 minutes 59.999999 seconds', origin);
  v_last timestamptz := date_bin(five, public.log_rested_until(), origin);
  v_cut timestamptz := date_bin(five, s.window_start, origin);
  counted constant text := ' union all select c.service, c.errors, c.first_seen, c.last_seen,
      case when c.bucket >= $1 then c.messages end, case when c.bucket >= $1 then c.users end, c.bucket < $1
    from public.log_errors_5m c where ($3 is null or c.tenant = $3) and c.bucket >= %L and c.bucket < %L%s';
  each constant text := ' union all select l.service, 1, l."timestamp", l."timestamp", array[hashtextextended(l.message, 0)],
      array[hashtextextended(l.user_id, 0)], l."timestamp" < $1
    from public.application_logs l
    where l.level in (''ERROR'', ''FATAL'') and ($3 is null or l.tenant = $3) and l."timestamp" >= %L and l."timestamp" < %L';
  v_errors text;
  v_counts text;
  v_workers text := current_setting('max_parallel_workers_per_gather');
begin
  -- Errors: whole five minutes are counted, those around them are read one by one.
  if v_last <= v_first or v_from < public.log_errors_since() then
    v_errors := format(each, v_from, 'infinity');
  else
    v_errors := format(counted, v_first, v_last,
        case when v_cut < s.window_start then format(' and c.bucket <> %L', v_cut) end)
      || format(each, v_last, 'infinity');
    if v_from < v_first then v_errors := v_errors || format(each, v_from, v_first); end if;
    if v_cut < s.window_start and v_cut between v_first and v_last - five then
      v_errors := v_errors || format(each, v_cut, v_cut + five);
    end if;
  end if;
  if v_is_short then
    -- Starting workers takes longer than the answer.
    perform set_config('max_parallel_workers_per_gather', '0', true);
    v_counts := format(
      'select t.service, t.total, e.errors, e.errors_before, e.first_seen, e.last_seen
       from (select c.service, sum(c.events)::bigint as total from %s c where $3 is null or c.tenant = $3 group by 1) t
       join (select c.service, sum(c.errors) filter (where not c.is_before)::bigint as errors,
          sum(c.errors) filter (where c.is_before)::bigint as errors_before,
          min(c.first_seen) filter (where not c.is_before) as first_seen, max(c.last_seen) filter (where not c.is_before) as last_seen
        from errors c group by 1) e on e.service = t.service', public.log_counts_since(s.window_start));
  else
    v_counts := format(
      'select c.service,
         sum(c.events) filter (where c.bucket >= $1)::bigint as total,
         sum(c.errors) filter (where c.bucket >= $1)::bigint as errors,
         sum(c.errors) filter (where c.bucket < $1)::bigint as errors_before,
         min(c.first_seen) filter (where c.bucket >= $1 and c.errors > 0) as first_seen,
         max(c.last_seen) filter (where c.bucket >= $1 and c.errors > 0) as last_seen
       from %s c
       where c.bucket >= $2 and ($3 is null or c.tenant = $3)
       group by 1', s.name);
  end if;
  return query execute format(
    'with errors (service, errors, first_seen, last_seen, messages, users, is_before) as materialized (%s),
     counted as (%s),
     hashes as (
       select e.service, array_agg(e.message) filter (where e.message is not null) as messages,
         array_agg(e.user_id) filter (where e.user_id is not null) as users
       from (select c.service, unnest(c.messages) as message, unnest(c.users) as user_id from errors c where not c.is_before) e
       group by 1
     ), patterns as (
       select p.service, p.tenant, p.pattern, sum(p.events)::bigint as events,
         row_number() over (partition by p.service order by sum(p.events) desc, p.pattern) as place
       from public.log_pattern_stats_5m p
       where p.bucket >= $1 and p.level in (''ERROR'', ''FATAL'') and ($3 is null or p.tenant = $3)
       group by 1, 2, 3
     )
     select c.service, c.errors, c.total, c.errors::double precision / c.total,
       (select count(distinct m) from unnest(h.messages) m), (select count(distinct u) from unnest(h.users) u),
       c.first_seen, c.last_seen,
       coalesce(c.errors_before, 0), c.errors::double precision / nullif(c.errors_before, 0) - 1, t.template, p.events
     from counted c
     left join hashes h on h.service = c.service
     left join patterns p on p.service = c.service and p.place = 1
     left join public.log_patterns t on t.tenant = p.tenant and t.pattern = p.pattern
     where c.errors > 0
     order by c.errors desc, c.service', substr(v_errors, length(' union all ') + 1), v_counts)
    using s.window_start, v_before, p_tenant;
  perform set_config('max_parallel_workers_per_gather', v_workers, true);
end
$f$;

create or replace function public.silent_services(
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
       (sum(c.events) / (extract(epoch from $2) / 3600))::double precision
     from %s c
     where c.bucket >= $1 and ($4 is null or c.tenant = $4)
     group by 1
     having max(c.last_seen) < now() - $3
     order by 2 desc, 1',
    case s.width when interval '1 minute' then public.log_counts_since(s.window_start) else s.name end)
    using s.window_start, p_known, p_window, p_tenant;
end
$f$;

do $m$
declare
  v_timescale name;
begin
  select n.nspname into v_timescale
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'timescaledb';
  execute format($outer$
    create or replace function log_writer.drop_old_stats(p_keep_minutes interval, p_keep interval) returns void
    language plpgsql security definer
    set search_path = pg_catalog, %I, pg_temp
    set lock_timeout = '2s'
    as $f$
    begin
      if least(p_keep_minutes, p_keep) < interval '16 days' then
        raise exception 'counts must be kept for at least 16 days: those of late events still change (asked: %% and %%)',
          p_keep_minutes, p_keep using errcode = '22023';
      end if;
      if not pg_try_advisory_xact_lock(hashtext('log_writer.drop_old_stats')) then return; end if;
      if log_writer.timescale_edition() = 'community' then
        perform drop_chunks('public.log_stats_1m', older_than => now() - p_keep_minutes);
        perform drop_chunks('public.log_stats_5m', older_than => now() - p_keep_minutes);
        perform drop_chunks('public.log_errors_5m', older_than => now() - p_keep_minutes);
        perform drop_chunks('public.log_pattern_stats_5m', older_than => now() - p_keep_minutes);
        perform drop_chunks('public.log_stats_1h', older_than => now() - p_keep);
        perform drop_chunks('public.log_stats_1d', older_than => now() - p_keep);
      else
        delete from log_writer.stats_1m where bucket < now() - p_keep_minutes;
        delete from log_writer.stats_5m where bucket < now() - p_keep_minutes;
        delete from log_writer.errors_5m where bucket < now() - p_keep_minutes;
        delete from log_writer.pattern_stats_5m where bucket < now() - p_keep_minutes;
        delete from log_writer.stats_1h where bucket < now() - p_keep;
        delete from log_writer.stats_1d where bucket < now() - p_keep;
      end if;
      delete from public.log_patterns t where t.noted_at < now() - p_keep and not exists (
        select from public.log_pattern_stats_5m s where s.tenant = t.tenant and s.pattern = t.pattern);
    end
    $f$
  $outer$, v_timescale);
  -- Tenants' views: one more.
  execute replace(pg_get_functiondef('log_writer.make_tenant_schema'::regproc), '''log_stats_1h''', '''log_stats_5m'', ''log_stats_1h''');
end
$m$;
