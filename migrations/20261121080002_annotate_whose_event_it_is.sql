-- annotate_log without a tenant took `default`, whatever the tenants are called. Now it is the event's own.
--
-- Locks: none that matter, functions are replaced. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

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
  select array_agg(l.tenant order by l.tenant) into v_tenants
  from public.application_logs l
  where l.id = p_id and l."timestamp" = p_timestamp and (p_tenant is null or l.tenant = p_tenant);
  if cardinality(v_tenants) > 1 then
    raise exception 'several tenants have an event % of %', p_id, p_timestamp
      using errcode = '22023', hint = 'give the tenant';
  end if;
  v_tenant := v_tenants[1];
  update public.application_logs l set ai_analysis = coalesce(l.ai_analysis, '{}') || p_analysis
  where l.id = p_id and l."timestamp" = p_timestamp and l.tenant = v_tenant
  returning l.ai_analysis into v_analysis;
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

create or replace function public.annotate_log(
  p_id uuid, p_timestamp timestamptz, p_analysis jsonb, p_tenant text default null
)
returns jsonb
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $f$
  select log_writer.annotate(p_id, p_timestamp, p_analysis, p_tenant, 'role:' || session_user, null)
$f$;
comment on function public.annotate_log is
  'Adds the members of a JSON object to ai_analysis of one event, named by id and timestamp, and by tenant where several have '
  'such an event; what it has of the same name is replaced. Its document in Elasticsearch follows within seconds. Returns the '
  'whole analysis. Needs a right of its own. '
  'Example: select annotate_log(id, "timestamp", ''{"cause": "disk full"}'') from search_logs(p_level := ''ERROR'', p_limit := 1);';
