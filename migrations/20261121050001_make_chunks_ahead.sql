-- Chunks are made ahead of the transactions that need them.
--
-- Making one holds a lock until the transaction ends, and whoever needs a new chunk meanwhile waits for it. A batch whose
-- client is frozen in mid-COPY would keep everybody waiting. TimescaleDB's own create_chunk is refused on the Apache
-- edition (0A000); a row that comes and goes in one transaction makes a chunk on both. Nobody ever sees it.
--
-- Locks: none. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

-- What the owner's rights are needed for: the service may not delete events.
create function log_writer.make_chunk(p_time timestamptz, p_wait_ms bigint, out range_start timestamptz, out range_end timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_id constant uuid := gen_random_uuid();
begin
  for v_attempt in 1..2 loop
    select c.range_start, c.range_end into range_start, range_end
    from timescaledb_information.chunks c
    where c.hypertable_schema = 'public' and c.hypertable_name = 'application_logs'
      and c.range_start <= p_time and p_time < c.range_end
    limit 1;
    if found then return; end if;
    -- Another maker is waited for no longer than this.
    perform set_config('lock_timeout', p_wait_ms::text, true);
    insert into public.application_logs (id, "timestamp", ingested_at, batch_id, tenant, level, service, message)
    values (v_id, p_time, now(), 0, '', 'INFO', 'log-writer', 'makes a chunk');
    delete from public.application_logs where id = v_id and "timestamp" = p_time;
  end loop;
end
$f$;
comment on function log_writer.make_chunk is
  'Makes the chunk of application_logs that p_time falls into, unless it is there; its bounds. Call it in a transaction of its own.';

-- As before, but on both editions.
create or replace function log_writer.make_next_chunk() returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_end timestamptz;
begin
  select c.range_end into v_end
  from timescaledb_information.chunks c
  where c.hypertable_schema = 'public' and c.hypertable_name = 'application_logs'
    and c.range_start <= now() and now() < c.range_end
  limit 1;
  if v_end is null or exists (
    select from timescaledb_information.chunks c
    where c.hypertable_schema = 'public' and c.hypertable_name = 'application_logs' and c.range_start = v_end) then
    return false;
  end if;
  perform log_writer.make_chunk(v_end, 1000);
  return true;
end
$f$;

insert into log_writer.rights (access, object, privileges) values
  ('ingest', 'function log_writer.make_chunk', 'execute');
