-- Tenants' views: one of log_errors_5m too, which was made later than the others and forgotten.
--
-- The migrator makes tenants' schemas anew at its end, so who has views has this one then.
-- Locks: none. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

do $m$
begin
  execute replace(pg_get_functiondef('log_writer.make_tenant_schema'::regproc), $$'log_stats_5m',$$, $$'log_stats_5m', 'log_errors_5m',$$);
end
$m$;
