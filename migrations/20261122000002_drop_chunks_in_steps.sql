-- Retention drops twenty chunks in one transaction, and the service calls again. Each takes a dozen exclusive locks until
-- the end: where retention was shortened, or held up for weeks, all of them at once filled the server's table of locks,
-- or did not end in time, and then none was dropped.
--
-- Locks: none that matter, a function is replaced. Time: next to none. The same on both editions.
-- Replicas of the version before drop twenty in each round.

set local lock_timeout = '5s';

do $m$
declare
  v_timescale name;
begin
  select n.nspname into v_timescale
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'timescaledb';

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
      for v_chunk in select * from log_writer.expired_chunks(p_keep) limit 20 loop
        perform drop_chunks('public.application_logs', older_than => v_chunk.range_end, newer_than => v_chunk.range_start);
        v_dropped := v_dropped + 1;
      end loop;
      return v_dropped;
    end
    $f$
  $outer$, v_timescale);
  comment on function log_writer.drop_old_events is
    'Drops the oldest chunks of application_logs, twenty at most, whose events are all older than p_keep, but none that the '
    'outbox still points into, none that is not counted yet, and none that is held; how many.';
end
$m$;
