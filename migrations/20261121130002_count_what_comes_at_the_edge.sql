-- Community: what comes as late as it may be (events.accept_past, at most 14 days) is counted.
--
-- The jobs looked back 14 days (15 for days) and count whole buckets alone: an event that old when it was committed was older
-- when they came to it, and the hour or day that it belongs to began before. Now they look back a day more, and still not
-- before what must be kept (16 days). A job that looks farther back already stays as it is.
-- Locks: none that matter. Time: next to none. Apache: nothing, where what came late is noted.

set local lock_timeout = '5s';

do $m$
begin
  if log_writer.timescale_edition() = 'community' then
    perform alter_job(j.job_id, config => jsonb_set(j.config, '{start_offset}', to_jsonb(w.back::text)))
    from timescaledb_information.jobs j
    join (values ('log_stats_1m', interval '15 days'), ('log_stats_5m', '15 days'), ('log_errors_5m', '15 days'),
      ('log_pattern_stats_5m', '15 days'), ('log_stats_1h', '15 days'), ('log_stats_1d', '16 days')) w(name, back)
      on (j.hypertable_schema, j.hypertable_name) = ('public', w.name)
    where j.proc_name = 'policy_refresh_continuous_aggregate' and (j.config ->> 'start_offset')::interval < w.back;
  end if;
end
$m$;
