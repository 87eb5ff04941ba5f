-- Events may be archived before they are dropped, and what was brought back from an archive is held for a while.
--
-- `drop_old_events` keeps its name and parameter: replicas of the version before go on with it, and respect holds too.
-- Locks: none that matter, every object is new or a function. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

create table log_writer.holds (
  from_time timestamptz not null,
  to_time timestamptz not null,
  until timestamptz not null,
  reason text not null,
  primary key (from_time, to_time),
  check (from_time < to_time)
);
comment on table log_writer.holds is
  'Times whose events are not dropped before `until`, however old they are: what a restore brought back. 4,000 rows at most.';

do $m$
declare
  v_timescale name;
begin
  select n.nspname into v_timescale
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'timescaledb';

  -- What retention may drop: whole chunks, none that delivery still has to read, none whose counts may still change, none
  -- that is held.
  create function log_writer.expired_chunks(p_keep interval)
  returns table (range_start timestamptz, range_end timestamptz)
  language plpgsql stable security definer
  set search_path = pg_catalog, pg_temp
  as $f$
  declare
    v_open timestamptz;
    v_uncounted timestamptz;
  begin
    if p_keep < interval '16 days' then
      raise exception 'events must be kept for at least 16 days: late ones are counted for 14 (asked: %)', p_keep
        using errcode = '22023';
    end if;
    select min(first_time) into v_open from log_writer.outbox;
    if log_writer.timescale_edition() = 'apache' then
      select least(s.counted_until, (select min(first_time) from log_writer.stats_stale)) into v_uncounted
      from log_writer.stats_state s;
      if not isfinite(v_uncounted) then return; end if;
    end if;
    return query
      select c.range_start, c.range_end
      from timescaledb_information.chunks c
      where c.hypertable_schema = 'public' and c.hypertable_name = 'application_logs'
        and c.range_end <= least(now() - p_keep, v_open, v_uncounted)
        and not exists (
          select from log_writer.holds h
          where h.until > now() and h.from_time < c.range_end and h.to_time > c.range_start)
      order by c.range_start;
  end
  $f$;
  comment on function log_writer.expired_chunks is
    'Chunks of application_logs that may be dropped if events are kept for p_keep, the oldest first.';

  execute format($outer$
    create or replace function log_writer.drop_old_events(p_keep interval) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, %I, pg_temp
    set lock_timeout = '2s'
    as $f$
    declare
      v_chunk record;
      v_dropped bigint := 0;
    begin
      -- One replica at a time is enough.
      if not pg_try_advisory_xact_lock(hashtext('log_writer.drop_old_events')) then return 0; end if;
      for v_chunk in select * from log_writer.expired_chunks(p_keep) loop
        perform drop_chunks('public.application_logs', older_than => v_chunk.range_end, newer_than => v_chunk.range_start);
        v_dropped := v_dropped + 1;
      end loop;
      return v_dropped;
    end
    $f$
  $outer$, v_timescale);
  comment on function log_writer.drop_old_events is
    'Drops chunks of application_logs whose events are all older than p_keep, but none that the outbox still points into, '
    'none that is not counted yet, and none that is held.';

  -- p_spans: what the archive holds, [{"from", "to", "events", "fingerprint"}]; they cover the chunk together.
  execute format($outer$
    create function log_writer.drop_archived_chunk(
      p_keep interval, p_from timestamptz, p_to timestamptz, p_spans jsonb) returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, %I, pg_temp
    set lock_timeout = '2s'
    as $f$
    declare
      v_chunk regclass;
      v_span record;
      v_covered timestamptz := p_from;
      v_events bigint;
      v_fingerprint numeric;
    begin
      perform pg_advisory_xact_lock(hashtext('log_writer.drop_old_events'));
      if not exists (
        select from log_writer.expired_chunks(p_keep) c where c.range_start = p_from and c.range_end = p_to) then
        return false;
      end if;
      select format('%%I.%%I', c.chunk_schema, c.chunk_name) into v_chunk
      from timescaledb_information.chunks c
      where c.hypertable_schema = 'public' and c.hypertable_name = 'application_logs'
        and c.range_start = p_from and c.range_end = p_to;
      -- Readers go on, nobody adds or changes an event between the count and the drop.
      execute format('lock table %%s in share mode', v_chunk);
      for v_span in
        select * from jsonb_to_recordset(p_spans) s ("from" timestamptz, "to" timestamptz, events bigint, fingerprint numeric)
        order by s."from"
      loop
        exit when v_span."from" <> v_covered or v_span."to" <= v_span."from";
        select coalesce(sum(s.events), 0), coalesce(sum(s.fingerprint), 0) into v_events, v_fingerprint
        from log_writer.archive_state(v_span."from", v_span."to") s;
        exit when v_events <> v_span.events or v_fingerprint <> v_span.fingerprint;
        v_covered := v_span."to";
      end loop;
      if v_covered <> p_to then return false; end if;
      perform drop_chunks('public.application_logs', older_than => p_to, newer_than => p_from);
      return true;
    end
    $f$
  $outer$, v_timescale);
  comment on function log_writer.drop_archived_chunk is
    'Drops one chunk that may be dropped, if its events are still exactly those that were archived; whether it did.';
end
$m$;

-- Everything of an event that an archive keeps: all columns but batch_id, which a restore gives anew.
create function log_writer.archive_state(p_from timestamptz, p_to timestamptz)
returns table (tenant text, events bigint, fingerprint numeric)
language sql stable security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $f$
  select l.tenant, count(*), sum(hashtextextended(row(l.id, l."timestamp", l.ingested_at, l.tenant, l.level, l.service,
    l.host, l.message, l.correlation_id, l.user_id, l.trace_id, l.span_id, l.tags, l.fields, l.error_details,
    l.performance_metrics, l.ai_analysis, l.pattern)::text, 0)::numeric)
  from public.application_logs l
  where l."timestamp" >= p_from and l."timestamp" < p_to
  group by l.tenant
$f$;
comment on function log_writer.archive_state is
  'Number and fingerprint of each tenant''s events within a time; equal fingerprints mean equal events, whatever their order.';

create function log_writer.hold_events(p_from timestamptz, p_to timestamptz, p_keep interval, p_reason text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
begin
  if p_keep < interval '0' or p_keep > interval '366 days' then
    raise exception 'events are held for at most 366 days (asked: %)', p_keep using errcode = '22023';
  end if;
  -- After whatever is being dropped now: what is added after this stays.
  perform pg_advisory_xact_lock(hashtext('log_writer.drop_old_events'));
  delete from log_writer.holds h where h.until <= now();
  if (select count(*) from log_writer.holds) >= 4000 then
    raise exception 'there are 4000 holds already; wait until some have ended' using errcode = '54000';
  end if;
  insert into log_writer.holds (from_time, to_time, until, reason) values (p_from, p_to, now() + p_keep, left(p_reason, 200))
  on conflict (from_time, to_time) do update
  set until = greatest(holds.until, excluded.until), reason = excluded.reason;
end
$f$;
comment on function log_writer.hold_events is
  'Keeps the events of a time from being dropped for p_keep from now on; a longer hold of the same time stays.';

insert into log_writer.rights (access, object, privileges) values
  ('ingest', 'table log_writer.holds', 'select'),
  ('ingest', 'function log_writer.expired_chunks', 'execute'),
  ('ingest', 'function log_writer.archive_state', 'execute'),
  ('ingest', 'function log_writer.drop_archived_chunk', 'execute'),
  ('ingest', 'function log_writer.hold_events', 'execute');
