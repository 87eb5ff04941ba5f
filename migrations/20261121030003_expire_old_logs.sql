-- What the service needs the owner's rights for once events and counts are older than they are kept.
--
-- Locks: none. Time: next to none. The same on both editions; drop_chunks is part of both.

set local lock_timeout = '5s';

do $m$
declare
  v_timescale name;
begin
  select n.nspname into v_timescale
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'timescaledb';

  -- Whole chunks only, none that delivery still has to read, and none whose counts may still change.
  execute format($outer$
    create function log_writer.drop_old_events(p_keep interval) returns bigint
    language plpgsql security definer
    set search_path = pg_catalog, %I, pg_temp
    set lock_timeout = '2s'
    as $f$
    declare
      v_before timestamptz := now() - p_keep;
      v_open timestamptz;
      v_uncounted timestamptz;
      v_dropped bigint;
    begin
      if p_keep < interval '16 days' then
        raise exception 'events must be kept for at least 16 days: late ones are counted for 14 (asked: %%)', p_keep
          using errcode = '22023';
      end if;
      -- One replica at a time is enough.
      if not pg_try_advisory_xact_lock(hashtext('log_writer.drop_old_events')) then return 0; end if;
      select min(first_time) into v_open from log_writer.outbox;
      if log_writer.timescale_edition() = 'apache' then
        select least(s.counted_until, (select min(first_time) from log_writer.stats_stale)) into v_uncounted
        from log_writer.stats_state s;
        if not isfinite(v_uncounted) then return 0; end if;
      end if;
      select count(*) into v_dropped
      from drop_chunks('public.application_logs', older_than => least(v_before, v_open, v_uncounted));
      return v_dropped;
    end
    $f$
  $outer$, v_timescale);
  comment on function log_writer.drop_old_events is
    'Drops chunks of application_logs whose events are all older than p_keep, but none that the outbox still points into, and none that is not counted yet.';

  execute format($outer$
    create function log_writer.drop_old_stats(p_keep_minutes interval, p_keep interval) returns void
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
        perform drop_chunks('public.log_pattern_stats_5m', older_than => now() - p_keep_minutes);
        perform drop_chunks('public.log_stats_1h', older_than => now() - p_keep);
        perform drop_chunks('public.log_stats_1d', older_than => now() - p_keep);
      else
        delete from log_writer.stats_1m where bucket < now() - p_keep_minutes;
        delete from log_writer.pattern_stats_5m where bucket < now() - p_keep_minutes;
        delete from log_writer.stats_1h where bucket < now() - p_keep;
        delete from log_writer.stats_1d where bucket < now() - p_keep;
      end if;
      delete from public.log_patterns t where t.noted_at < now() - p_keep and not exists (
        select from public.log_pattern_stats_5m s where s.tenant = t.tenant and s.pattern = t.pattern);
    end
    $f$
  $outer$, v_timescale);
  comment on function log_writer.drop_old_stats is
    'Drops counts per minute and per pattern older than p_keep_minutes, those per hour and day older than p_keep.';
end
$m$;
