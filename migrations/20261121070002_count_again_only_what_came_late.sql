-- Counts of the Apache edition: where nothing came late, nothing is counted again.
--
-- `greatest(null, v_oldest)` is v_oldest, so every call counted the oldest ten minutes again: work for nothing while all of
-- their events were there, and wrong counts once a restore had brought back a part of them.
-- Locks: none. Time: next to none. The same on both editions; Community counts by its own jobs.

set local lock_timeout = '5s';

create or replace function log_writer.refresh_stats(p_most interval default interval '10 minutes') returns boolean
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
  select min(first_time) into v_first from log_writer.stats_stale where first_time < v_until;
  if v_first is not null then
    v_first := greatest(date_trunc('minute', v_first), v_oldest);
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
