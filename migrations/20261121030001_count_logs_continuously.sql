-- Counts per minute, hour and day, and per message pattern: what dashboards and agents ask costs no scan of the events.
--
-- Community: continuous aggregates, real-time. Apache: tables of the same columns that log_writer.refresh_stats() fills,
-- and views that add what is newer. The same names, columns and answers on both.
-- Locks: access exclusive on application_logs for the new column (no rewrite), share for the new index: writers wait
-- while it is built (about a second for two million rows). Time of the rest: next to none, nothing is aggregated here.

set local lock_timeout = '5s';
-- Real-time aggregates on aggregates, and a key without segment, are meant so.
set local client_min_messages = error;

alter table public.application_logs add column pattern bigint;
comment on column public.application_logs.pattern is
  'Hash of the message with its numbers, ids and quoted texts masked, for WARN, ERROR and FATAL; text in log_patterns.';

-- A tenth of the rows: errors of the last hours are read through it (get_error_stats).
create index application_logs_errors_timestamp_idx
  on public.application_logs ("timestamp" desc) where level in ('ERROR', 'FATAL');

create table public.log_patterns (
  tenant text not null,
  pattern bigint not null,
  level text not null,
  service text not null,
  template text not null,
  first_seen timestamptz not null,
  noted_at timestamptz not null default now(),
  primary key (tenant, pattern)
);
create index log_patterns_first_seen_idx on public.log_patterns (first_seen desc);
comment on table public.log_patterns is
  'Each kind of message of WARN and above, once per tenant: numbers, ids, hex, quoted texts and paths are masked. '
  'How often: log_pattern_stats_5m; top_error_patterns() and new_error_patterns() join both.';
comment on column public.log_patterns.pattern is 'application_logs.pattern.';
comment on column public.log_patterns.level is 'Of the first event.';
comment on column public.log_patterns.service is 'Of the first event.';
comment on column public.log_patterns.template is 'The message with <num>, <id>, <hex>, <str>, <path> in place of what differs.';
comment on column public.log_patterns.first_seen is 'Time of the first event that was stored.';

create function public.log_duration_ms(performance_metrics jsonb) returns double precision
language sql immutable parallel safe
as $f$
  select case
    when pg_catalog.jsonb_typeof(performance_metrics operator(pg_catalog.->) 'duration_ms') operator(pg_catalog.=) 'number' then
      case when (performance_metrics operator(pg_catalog.->) 'duration_ms')::pg_catalog.numeric between 0 and 1e12
        then (performance_metrics operator(pg_catalog.->) 'duration_ms')::pg_catalog.numeric::pg_catalog.float8 end
    when pg_catalog.jsonb_typeof(performance_metrics operator(pg_catalog.->) 'response_time_ms') operator(pg_catalog.=) 'number' then
      case when (performance_metrics operator(pg_catalog.->) 'response_time_ms')::pg_catalog.numeric between 0 and 1e12
        then (performance_metrics operator(pg_catalog.->) 'response_time_ms')::pg_catalog.numeric::pg_catalog.float8 end
  end
$f$;
comment on function public.log_duration_ms is
  'Milliseconds from performance_metrics: duration_ms, else response_time_ms; null if neither is a number from 0 to 1e12.';

-- Histograms: 128 buckets from 0.1 ms to 10,000 s, each 15.5 % wider than the one before, and one beyond each end.
create function public.log_histogram_add(total bigint[], more bigint[]) returns bigint[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $f$
  select case
    when total is null then more
    when more is null then total
    else array(select a + b from unnest(total, more) with ordinality as both_of(a, b, place) order by place)
  end
$f$;
comment on function public.log_histogram_add is 'Adds two duration histograms bucket by bucket.';

create aggregate public.log_histogram_sum(bigint[]) (
  sfunc = public.log_histogram_add, stype = bigint[], combinefunc = public.log_histogram_add, parallel = safe
);
comment on aggregate public.log_histogram_sum(bigint[]) is 'Sum of duration histograms (log_stats_1m and the others).';

create function public.log_histogram_quantile(histogram bigint[], fraction double precision) returns double precision
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $f$
  select case place when 1 then 0.1 when 130 then 1e7 else round((10 ^ (-1 + (place - 1.5) / 16))::numeric, 3)::float8 end
  from (
    select place, sum(n) over (order by place) as so_far, sum(n) over () as total
    from unnest(histogram) with ordinality as buckets(n, place)
  ) as counted
  where so_far >= fraction * total and total > 0
  order by place
  limit 1
$f$;
comment on function public.log_histogram_quantile is
  'Duration in ms below which a fraction (0.95 for p95) of a histogram lies, within 7.5 % or 0.1 ms, up to 10,000 s.';

do $m$
declare
  -- What is counted, per minute, of the events themselves.
  v_minutes constant text := $q$
    select time_bucket(interval '1 minute', l."timestamp") as bucket, l.tenant, l.service, l.level,
      count(*) as events,
      count(*) filter (where l.level in ('ERROR', 'FATAL')) as errors,
      count(distinct l.user_id) as users,
      count(public.log_duration_ms(l.performance_metrics)) as durations,
      sum(public.log_duration_ms(l.performance_metrics)) as duration_sum,
      max(public.log_duration_ms(l.performance_metrics)) as duration_max,
      (percentile_cont(array[0.5, 0.95, 0.99]) within group (order by public.log_duration_ms(l.performance_metrics)))[1] as duration_p50,
      (percentile_cont(array[0.5, 0.95, 0.99]) within group (order by public.log_duration_ms(l.performance_metrics)))[2] as duration_p95,
      (percentile_cont(array[0.5, 0.95, 0.99]) within group (order by public.log_duration_ms(l.performance_metrics)))[3] as duration_p99,
      histogram(log(greatest(public.log_duration_ms(l.performance_metrics), 0.05)), -1.0, 7.0, 128)
        filter (where public.log_duration_ms(l.performance_metrics) is not null)::bigint[] as duration_histogram,
      min(l."timestamp") as first_seen,
      max(l."timestamp") as last_seen
    from public.application_logs l$q$;
  -- The same of smaller buckets: sums, and percentiles from the summed histograms.
  v_sums constant text := $q$
    s.tenant, s.service, s.level,
      sum(s.events)::bigint as events,
      sum(s.errors)::bigint as errors,
      sum(s.durations)::bigint as durations,
      sum(s.duration_sum) as duration_sum,
      max(s.duration_max) as duration_max,
      public.log_histogram_quantile(public.log_histogram_sum(s.duration_histogram), 0.5) as duration_p50,
      public.log_histogram_quantile(public.log_histogram_sum(s.duration_histogram), 0.95) as duration_p95,
      public.log_histogram_quantile(public.log_histogram_sum(s.duration_histogram), 0.99) as duration_p99,
      public.log_histogram_sum(s.duration_histogram) as duration_histogram,
      min(s.first_seen) as first_seen,
      max(s.last_seen) as last_seen$q$;
  v_patterns constant text := $q$
    select time_bucket(interval '5 minutes', l."timestamp") as bucket, l.tenant, l.service, l.level, l.pattern,
      count(*) as events,
      min(l."timestamp") as first_seen,
      max(l."timestamp") as last_seen
    from public.application_logs l$q$;
  v_options constant text := ' with (timescaledb.continuous, timescaledb.materialized_only = false) as ';
  v_timescale name;
begin
  if log_writer.timescale_edition() = 'community' then
    execute 'create materialized view public.log_stats_1m' || v_options || v_minutes || ' group by 1, 2, 3, 4 with no data';
    execute 'create materialized view public.log_stats_1h' || v_options
      || $q$select time_bucket(interval '1 hour', s.bucket) as bucket,$q$ || v_sums
      || ' from public.log_stats_1m s group by 1, 2, 3, 4 with no data';
    execute 'create materialized view public.log_stats_1d' || v_options
      || $q$select time_bucket(interval '1 day', s.bucket) as bucket,$q$ || v_sums
      || ' from public.log_stats_1h s group by 1, 2, 3, 4 with no data';
    execute 'create materialized view public.log_pattern_stats_5m' || v_options || v_patterns
      || ' where l.pattern is not null group by 1, 2, 3, 4, 5 with no data';
    -- Two weeks back: farther than late events are accepted, nearer than events are kept. Only what changed is counted again.
    perform add_continuous_aggregate_policy('public.log_stats_1m', start_offset => interval '14 days',
      end_offset => interval '1 minute', schedule_interval => interval '1 minute');
    perform add_continuous_aggregate_policy('public.log_stats_1h', start_offset => interval '14 days',
      end_offset => interval '1 hour', schedule_interval => interval '5 minutes');
    perform add_continuous_aggregate_policy('public.log_stats_1d', start_offset => interval '15 days',
      end_offset => interval '1 day', schedule_interval => interval '30 minutes');
    perform add_continuous_aggregate_policy('public.log_pattern_stats_5m', start_offset => interval '14 days',
      end_offset => interval '5 minutes', schedule_interval => interval '1 minute');
    return;
  end if;

  select n.nspname into v_timescale
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'timescaledb';
  -- Apache. The columns come from the queries themselves.
  execute 'create table log_writer.stats_1m as ' || v_minutes || ' group by 1, 2, 3, 4 limit 0';
  execute 'create table log_writer.stats_1h as select s.bucket,' || v_sums
    || ' from log_writer.stats_1m s group by 1, 2, 3, 4 limit 0';
  create table log_writer.stats_1d (like log_writer.stats_1h);
  execute 'create table log_writer.pattern_stats_5m as ' || v_patterns || ' group by 1, 2, 3, 4, 5 limit 0';
  alter table log_writer.stats_1m add primary key (bucket, tenant, service, level);
  alter table log_writer.stats_1h add primary key (bucket, tenant, service, level);
  alter table log_writer.stats_1d add primary key (bucket, tenant, service, level);
  alter table log_writer.pattern_stats_5m add primary key (bucket, tenant, service, level, pattern);

  create table log_writer.stats_state (
    one boolean primary key default true check (one),
    counted_until timestamptz not null
  );
  insert into log_writer.stats_state values (true, '-infinity');
  comment on table log_writer.stats_state is
    'Apache edition: up to where events are counted in log_writer.stats_1m; newer ones are counted when somebody asks.';
  create table log_writer.stats_stale (first_time timestamptz not null, last_time timestamptz not null);
  comment on table log_writer.stats_stale is
    'Apache edition: times of events that came late, counted again by log_writer.refresh_stats().';

  execute 'create view public.log_stats_1m as select * from log_writer.stats_1m
      where bucket < (select counted_until from log_writer.stats_state)
    union all ' || v_minutes || $q$ where l."timestamp" >= (select counted_until from log_writer.stats_state)
    group by 1, 2, 3, 4$q$;
  execute $q$create view public.log_stats_1h as select * from log_writer.stats_1h
      where bucket < (select date_trunc('hour', counted_until, 'UTC') from log_writer.stats_state)
    union all select time_bucket(interval '1 hour', s.bucket) as bucket,$q$ || v_sums || $q$ from public.log_stats_1m s
      where s.bucket >= (select date_trunc('hour', counted_until, 'UTC') from log_writer.stats_state)
    group by 1, 2, 3, 4$q$;
  execute $q$create view public.log_stats_1d as select * from log_writer.stats_1d
      where bucket < (select date_trunc('day', counted_until, 'UTC') from log_writer.stats_state)
    union all select time_bucket(interval '1 day', s.bucket) as bucket,$q$ || v_sums || $q$ from public.log_stats_1h s
      where s.bucket >= (select date_trunc('day', counted_until, 'UTC') from log_writer.stats_state)
    group by 1, 2, 3, 4$q$;
  execute $q$create view public.log_pattern_stats_5m as select * from log_writer.pattern_stats_5m
      where bucket < (select time_bucket(interval '5 minutes', counted_until) from log_writer.stats_state)
    union all $q$ || v_patterns || $q$
      where l.pattern is not null
        and l."timestamp" >= (select time_bucket(interval '5 minutes', counted_until) from log_writer.stats_state)
    group by 1, 2, 3, 4, 5$q$;

  -- Counts the minutes of [p_from, p_to) again, and the larger buckets that they are part of and that have ended.
  execute format($outer$
    create function log_writer.recount_stats(p_from timestamptz, p_to timestamptz, p_until timestamptz) returns void
    language plpgsql
    set search_path = pg_catalog, %4$I, pg_temp
    as $f$
    declare
      v_from timestamptz := time_bucket(interval '1 minute', p_from);
      v_to timestamptz := least(time_bucket(interval '1 minute', p_to + interval '59.999999 seconds'), p_until);
      v_lower timestamptz;
      v_upper timestamptz;
    begin
      if v_from >= v_to then return; end if;
      delete from log_writer.stats_1m where bucket >= v_from and bucket < v_to;
      execute 'insert into log_writer.stats_1m ' || %1$L
        || ' where l."timestamp" >= $1 and l."timestamp" < $2 group by 1, 2, 3, 4' using v_from, v_to;

      v_lower := time_bucket(interval '5 minutes', v_from);
      v_upper := time_bucket(interval '5 minutes', least(v_to + interval '4 minutes', p_until));
      delete from log_writer.pattern_stats_5m where bucket >= v_lower and bucket < v_upper;
      execute 'insert into log_writer.pattern_stats_5m ' || %2$L
        || ' where l.pattern is not null and l."timestamp" >= $1 and l."timestamp" < $2 group by 1, 2, 3, 4, 5'
        using v_lower, v_upper;

      v_lower := time_bucket(interval '1 hour', v_from);
      v_upper := time_bucket(interval '1 hour', least(v_to + interval '59 minutes', p_until));
      delete from log_writer.stats_1h where bucket >= v_lower and bucket < v_upper;
      execute 'insert into log_writer.stats_1h select time_bucket(interval ''1 hour'', s.bucket),' || %3$L
        || ' from log_writer.stats_1m s where s.bucket >= $1 and s.bucket < $2 group by 1, 2, 3, 4'
        using v_lower, v_upper;

      v_lower := time_bucket(interval '1 day', v_from);
      v_upper := time_bucket(interval '1 day', least(v_to + interval '23 hours 59 minutes', p_until));
      delete from log_writer.stats_1d where bucket >= v_lower and bucket < v_upper;
      execute 'insert into log_writer.stats_1d select time_bucket(interval ''1 day'', s.bucket),' || %3$L
        || ' from log_writer.stats_1h s where s.bucket >= $1 and s.bucket < $2 group by 1, 2, 3, 4'
        using v_lower, v_upper;
    end
    $f$
    $outer$, v_minutes, v_patterns, v_sums, v_timescale);
end
$m$;

-- Apache: counts what has come to rest, and what came late. The service calls it every minute; on Community policies do it.
-- At most p_most of time at one go, so that one call after a long pause stays short; true: there is more to do.
create function log_writer.refresh_stats(p_most interval default interval '10 minutes') returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_from timestamptz;
  v_until timestamptz;
  -- Ten minutes behind: events that are up to nine minutes old may still be on their way without being noted as late.
  v_rested timestamptz := date_trunc('minute', now()) - interval '10 minutes';
  v_oldest timestamptz;
  v_first timestamptz;
  v_last timestamptz;
begin
  if log_writer.timescale_edition() = 'community' then return false; end if;
  select counted_until into v_from from log_writer.stats_state for update skip locked;
  if not found then return false; end if;
  select date_trunc('minute', "timestamp") into v_oldest from public.application_logs order by "timestamp" limit 1;
  if v_oldest is null then return false; end if;
  v_until := least(greatest(v_from, v_oldest) + p_most, v_rested);
  if v_until > v_from then
    perform log_writer.recount_stats(greatest(v_from, v_oldest), v_until, v_until);
    update log_writer.stats_state set counted_until = v_until;
  else
    v_until := v_from;
  end if;
  -- Never before the oldest event that is kept: what was counted of dropped ones must stay.
  delete from log_writer.stats_stale where last_time < v_oldest;
  select greatest(date_trunc('minute', min(first_time)), v_oldest) into v_first
  from log_writer.stats_stale where first_time < v_until;
  if v_first is not null then
    -- What is later than p_most of it stays for the next call.
    with gone as (
      delete from log_writer.stats_stale where first_time < least(v_first + p_most, v_until) returning last_time),
    later as (
      insert into log_writer.stats_stale select v_first + p_most, last_time from gone where last_time >= v_first + p_most)
    select least(max(last_time) + interval '1 microsecond', v_first + p_most) into v_last from gone;
    perform log_writer.recount_stats(v_first, v_last, v_until);
  end if;
  return v_until < v_rested or exists (select from log_writer.stats_stale where first_time < v_until);
end
$f$;
comment on function log_writer.refresh_stats is
  'Apache edition: brings log_stats_1m, 1h, 1d and log_pattern_stats_5m up to date. True: more is left to do.';

-- The writer calls it, in its own transaction, with spans of events older than a minute. Community finds them by itself.
create function log_writer.note_late_events(p_first timestamptz[], p_last timestamptz[]) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
begin
  if log_writer.timescale_edition() = 'apache' then
    insert into log_writer.stats_stale select * from unnest(p_first, p_last);
  end if;
end
$f$;
