-- The storage profile: `row`, as before, or `columnar`, where events go straight into the columnstore.
--
-- TimescaleDB compresses a COPY on its way in only where nothing has to be unique, so a columnar table has no key of its
-- events. Which of the two it is stands in the database, not in a configuration, and changes only while there are no events.
-- Locks: none that matter, functions are made or replaced. Time: next to none. The same on both editions; `columnar` is refused
-- on Apache.

set local lock_timeout = '5s';

create function log_writer.storage_profile() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $f$
  select coalesce((select s.value from log_writer.settings s where s.name = 'storage_profile'), 'row')
$f$;
comment on function log_writer.storage_profile is 'How application_logs stores events: row or columnar.';

insert into log_writer.rights (access, object, privileges) values
  ('ingest', 'function log_writer.storage_profile', 'execute');

do $m$
declare
  v_timescale name;
begin
  select n.nspname into v_timescale
  from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'timescaledb';

  -- No right to it is given to anybody: it is the owner's.
  execute format($outer$
    create function log_writer.set_storage_profile(p_profile text) returns boolean
    language plpgsql
    set search_path = pg_catalog, %I, pg_temp
    as $f$
    declare
      v_present text;
      v_version text;
    begin
      if p_profile not in ('row', 'columnar') then
        raise exception 'there is no storage profile %%: it is row or columnar', p_profile using errcode = '22023';
      end if;
      perform pg_advisory_xact_lock(hashtext('log_writer.set_storage_profile'));
      v_present := log_writer.storage_profile();
      if v_present = p_profile then return false; end if;
      if p_profile = 'columnar' then
        select e.extversion into v_version from pg_extension e where e.extname = 'timescaledb';
        if log_writer.timescale_edition() <> 'community' then
          raise exception 'storage.profile = columnar needs the Community edition of TimescaleDB; this is the Apache edition'
            using errcode = '0A000', hint = 'set storage.profile = row, or use a server with the Community edition';
        end if;
        -- Since then chunks written to directly are compacted by the columnstore policy, and read in order of time.
        if string_to_array(substring(v_version from '^[0-9]+\.[0-9]+'), '.')::int[] < array[2, 29] then
          raise exception 'storage.profile = columnar needs TimescaleDB 2.29 or newer; this is %%', v_version
            using errcode = '0A000', hint = 'set storage.profile = row, or update the extension';
        end if;
      end if;
      -- Nobody adds an event between the look and the change.
      lock table public.application_logs in access exclusive mode;
      if exists (select from public.application_logs) then
        raise exception 'the storage profile of this database is %%, storage.profile says %%, and it changes only while there are no events',
            v_present, p_profile
          using errcode = '0A000',
                hint = format('set storage.profile = %%s, or name an empty database', v_present);
      end if;
      -- Empty ones, of the other kind.
      perform drop_chunks('public.application_logs', older_than => 'infinity'::timestamptz);
      if p_profile = 'columnar' then
        alter table public.application_logs drop constraint application_logs_pkey;
        -- What is not in the columnstore yet is found by it; what is there costs it nothing.
        create index application_logs_id_idx on public.application_logs (id, "timestamp", tenant);
      else
        drop index public.application_logs_id_idx;
        alter table public.application_logs
          add constraint application_logs_pkey primary key (id, "timestamp", tenant);
      end if;
      insert into log_writer.settings (name, value) values ('storage_profile', p_profile)
      on conflict (name) do update set value = excluded.value;
      perform log_writer.record_action('set_storage_profile', 'role:' || session_user, null,
        jsonb_build_object('from', v_present, 'to', p_profile), 1, 'done');
      return true;
    end
    $f$
  $outer$, v_timescale);
  comment on function log_writer.set_storage_profile is
    'Makes application_logs store events by rows or by columns, while it has none; whether it had to be changed. For the owner.';
end
$m$;

-- As before, but in a columnar table the chunk is made with its columnstore, as one that is written to directly: the first
-- COPY would do both, and all others wait for its end. TimescaleDB takes ten rows at least for that.
create or replace function log_writer.make_chunk(
  p_time timestamptz, p_wait_ms bigint, out range_start timestamptz, out range_end timestamptz)
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_id constant uuid := gen_random_uuid();
  v_rows integer := 1;
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
    if log_writer.storage_profile() = 'columnar' then
      perform set_config('timescaledb.enable_direct_compress_insert', 'on', true),
        set_config('timescaledb.enable_direct_compress_auto_segmentby', 'off', true);
      v_rows := 10;
    end if;
    insert into public.application_logs (id, "timestamp", ingested_at, batch_id, tenant, level, service, message)
    select v_id, p_time, now(), 0, '', 'INFO', 'log-writer', 'makes a chunk' from generate_series(1, v_rows);
    delete from public.application_logs where id = v_id and "timestamp" = p_time;
  end loop;
end
$f$;

-- As before, but an event that is stored twice, as it can be in a columnar table, is one event: both rows are changed.
create or replace function log_writer.annotate(
  p_id uuid, p_timestamp timestamptz, p_analysis jsonb, p_tenant text, p_actor text, p_address inet
)
returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_tenants text[];
  v_tenant text;
  v_analysis jsonb;
begin
  if jsonb_typeof(p_analysis) is distinct from 'object' then
    raise exception 'an analysis is a JSON object, not %', coalesce(jsonb_typeof(p_analysis), 'null') using errcode = '22023';
  end if;
  select array_agg(distinct l.tenant) into v_tenants
  from public.application_logs l
  where l.id = p_id and l."timestamp" = p_timestamp and (p_tenant is null or l.tenant = p_tenant);
  if cardinality(v_tenants) > 1 then
    raise exception 'several tenants have an event % of %', p_id, p_timestamp
      using errcode = '22023', hint = 'give the tenant';
  end if;
  v_tenant := v_tenants[1];
  with changed as (
    update public.application_logs l set ai_analysis = coalesce(l.ai_analysis, '{}') || p_analysis
    where l.id = p_id and l."timestamp" = p_timestamp and l.tenant = v_tenant
    returning l.ai_analysis
  )
  select c.ai_analysis into v_analysis from changed c limit 1;
  if not found then
    raise exception '% has no event % of %', coalesce('tenant ' || p_tenant, 'the table'), p_id, p_timestamp
      using errcode = 'P0002', hint = 'id, timestamp and tenant are those of the row, to the microsecond';
  end if;
  if octet_length(v_analysis::text) > 65536 then
    raise exception 'the analysis of an event may have 64 KiB, and this would be %', octet_length(v_analysis::text)
      using errcode = '22023';
  end if;
  insert into log_writer.annotations (event_id, event_time, tenant) values (p_id, p_timestamp, v_tenant);
  perform log_writer.record_action('annotate', p_actor, p_address,
    jsonb_build_object('id', p_id, 'timestamp', p_timestamp, 'tenant', v_tenant), 1, 'done');
  return v_analysis;
end
$f$;
