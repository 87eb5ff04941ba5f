-- annotate_log: what an analysis found is added to an event, under a right of its own, and shown in Elasticsearch too.
--
-- The function queues the event; the service turns the queue into outbox rows of the kind `replace`, since it alone knows
-- where documents go. Locks: none that matter, every object is new. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

create table log_writer.annotations (
  id bigint generated always as identity primary key,
  event_id uuid not null,
  event_time timestamptz not null,
  tenant text not null,
  annotated_at timestamptz not null default now()
);
comment on table log_writer.annotations is
  'Events whose ai_analysis was changed and whose document is still to be replaced; emptied by the service within seconds.';

create function log_writer.annotate(
  p_id uuid, p_timestamp timestamptz, p_analysis jsonb, p_tenant text, p_actor text, p_address inet
)
returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_analysis jsonb;
begin
  if jsonb_typeof(p_analysis) is distinct from 'object' then
    raise exception 'an analysis is a JSON object, not %', coalesce(jsonb_typeof(p_analysis), 'null') using errcode = '22023';
  end if;
  update public.application_logs l set ai_analysis = coalesce(l.ai_analysis, '{}') || p_analysis
  where l.id = p_id and l."timestamp" = p_timestamp and l.tenant = p_tenant
  returning l.ai_analysis into v_analysis;
  if not found then
    raise exception 'tenant % has no event % of %', p_tenant, p_id, p_timestamp
      using errcode = 'P0002', hint = 'id, timestamp and tenant are those of the row, to the microsecond';
  end if;
  if octet_length(v_analysis::text) > 65536 then
    raise exception 'the analysis of an event may have 64 KiB, and this would be %', octet_length(v_analysis::text)
      using errcode = '22023';
  end if;
  insert into log_writer.annotations (event_id, event_time, tenant) values (p_id, p_timestamp, p_tenant);
  perform log_writer.record_action('annotate', p_actor, p_address,
    jsonb_build_object('id', p_id, 'timestamp', p_timestamp, 'tenant', p_tenant), 1, 'done');
  return v_analysis;
end
$f$;
comment on function log_writer.annotate is 'annotate_log for the service, which says who asked it to.';

create function public.annotate_log(
  p_id uuid, p_timestamp timestamptz, p_analysis jsonb, p_tenant text default 'default'
)
returns jsonb
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $f$
  select log_writer.annotate(p_id, p_timestamp, p_analysis, p_tenant, 'role:' || session_user, null)
$f$;
comment on function public.annotate_log is
  'Adds the members of a JSON object to ai_analysis of one event, named by id, timestamp and tenant; what it has of the same '
  'name is replaced. Its document in Elasticsearch follows within seconds. Returns the whole analysis. Needs a right of its '
  'own. Example: select annotate_log(id, "timestamp", ''{"cause": "disk full"}'') from search_logs(p_level := ''ERROR'', p_limit := 1);';
revoke all on function public.annotate_log from public;

insert into log_writer.rights (access, object, privileges) values
  ('annotator', 'function public.annotate_log', 'execute'),
  ('ingest', 'function public.annotate_log', 'execute'),
  ('ingest', 'function log_writer.annotate', 'execute'),
  -- Rows that are to be deleted are locked first; that takes the right to update one column.
  ('ingest', 'table log_writer.annotations', 'select, delete, update (annotated_at)');
-- An annotator reads as well: it has to find what to annotate.
insert into log_writer.rights (access, object, privileges)
select 'annotator', object, privileges from log_writer.rights where access = 'reader';
