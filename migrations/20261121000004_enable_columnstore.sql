-- Chunks older than a day go to the columnstore, where the edition has one: they take much less of the disk.
--
-- No segmentby: late rows go in and batches are read back faster than with one, at the same size. The sparse indexes
-- are named because those derived from the btrees would make batch_id a bloom.
-- Locks: access exclusive on the still empty table. Time: next to none. Apache: nothing (0A000 if tried).

set local lock_timeout = '5s';
-- It warns that the key's columns are in no segment: meant so, see above.
set local client_min_messages = error;

do $m$
begin
  if log_writer.timescale_edition() = 'community' then
    alter table public.application_logs set (
      timescaledb.enable_columnstore,
      timescaledb.segmentby = '',
      timescaledb.orderby = '"timestamp" desc',
      timescaledb.sparse_index =
        'minmax(batch_id),bloom(id),bloom(service),bloom(correlation_id),bloom(user_id),bloom(trace_id)'
    );
    call add_columnstore_policy('public.application_logs', after => interval '1 day', if_not_exists => true);
  end if;
end
$m$;
