-- A tenant's own people may ask SQL: a role for each, with functions in a schema of its own that know one tenant alone.
--
-- Row-level security is refused beside the columnstore and beside continuous aggregates, so the role gets no right on any
-- table or aggregate. The tenant stands as a literal in the functions: neither a setting nor a parameter changes it.
-- Locks: none, every object is new. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

create table log_writer.tenant_roles (
  role regrole primary key,
  tenant text not null,
  schema name not null,
  with_views boolean not null,
  migrations bigint not null
);
comment on table log_writer.tenant_roles is
  'Roles that see one tenant, by log_writer.grant_tenant; roles of the same tenant share its schemas.';
comment on column log_writer.tenant_roles.migrations is 'How many migrations there were when its schema was made.';

-- Everything in the schema is made anew: as the functions and tables in public are now.
create function log_writer.make_tenant_schema(p_schema name, p_tenant text, p_with_views boolean) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_function record;
  v_name text;
begin
  execute format('drop schema if exists %I cascade', p_schema);
  execute format('create schema %I', p_schema);
  execute format('comment on schema %I is %L', p_schema, 'What the roles of tenant ' || p_tenant || ' may ask.');
  for v_function in
    -- The functions that readers have and that can be told a tenant, but for the tenant the same.
    select p.oid, p.proname, p.provolatile, pg_get_function_result(p.oid) as result, obj_description(p.oid, 'pg_proc') as comment,
      string_agg(format('%I %s', a.name, a.type) || coalesce(' default ' || pg_get_function_arg_default(p.oid, a.place::integer), ''),
        ', ' order by a.place) filter (where a.name <> 'p_tenant') as parameters,
      string_agg(case a.name when 'p_tenant' then format('p_tenant := %L', p_tenant) else format('%1$I := %1$I', a.name) end,
        ', ' order by a.place) as arguments
    from pg_proc p
    cross join lateral (
      select p.proargnames[u.place] as name, format_type(u.type, null) as type, u.place
      from unnest(p.proargtypes::oid[]) with ordinality as u(type, place)) a
    where p.pronamespace = 'public'::regnamespace and 'p_tenant' = any(p.proargnames) and p.proretset
      and exists (select from log_writer.rights r where r.access = 'reader' and r.object = 'function public.' || p.proname)
    group by p.oid, p.proname
  loop
    execute format(
      'create function %1$I.%2$I(%3$s) returns %4$s language plpgsql stable security definer
       set search_path = pg_catalog, pg_temp
       as $body$
       #variable_conflict use_variable
       begin return query select * from public.%2$I(%5$s); end $body$',
      p_schema, v_function.proname, v_function.parameters, v_function.result, v_function.arguments);
    execute format('comment on function %I.%I is %L', p_schema, v_function.proname, v_function.comment);
  end loop;
  if p_with_views then
    foreach v_name in array array['application_logs', 'log_patterns', 'log_stats_1m', 'log_stats_1h', 'log_stats_1d', 'log_pattern_stats_5m']
    loop
      execute format('create view %1$I.%2$I with (security_barrier) as select * from public.%2$I where tenant = %3$L',
        p_schema, v_name, p_tenant);
    end loop;
  end if;
  execute format('revoke all on all routines in schema %I from public', p_schema);
end
$f$;
comment on function log_writer.make_tenant_schema is 'Internal: makes the schema of a tenant anew, without rights on it.';

create function log_writer.set_tenant_rights(p_schema name) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_of record;
begin
  for v_of in select t.role, t.schema, t.with_views from log_writer.tenant_roles t where t.schema = p_schema loop
    execute format('grant usage on schema %I to %s', v_of.schema, v_of.role);
    execute format('grant execute on all routines in schema %I to %s', v_of.schema, v_of.role);
    execute format('grant select on all tables in schema %I to %s', v_of.schema, v_of.role);
    if v_of.with_views then
      -- Counts call them with the rights of who asks; they calculate, and read nothing.
      execute format('grant execute on routine public.log_duration_ms, public.log_histogram_add, public.log_histogram_sum,
        public.log_histogram_quantile to %s', v_of.role);
    end if;
  end loop;
end
$f$;
comment on function log_writer.set_tenant_rights is 'Internal: lets the roles of a tenant use its schema.';

create function log_writer.grant_tenant(p_role name, p_tenant text, p_with_views boolean default false) returns name
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_role regrole := quote_ident(p_role);
  v_schema name;
begin
  -- What is made here belongs to who makes it, and runs with that one's rights.
  if not exists (select from pg_class c where c.oid = 'log_writer.tenant_roles'::regclass and c.relowner = quote_ident(current_user)::regrole) then
    raise exception 'only the owner of the tables of log-writer lets tenants in, not %', current_user using errcode = '42501';
  end if;
  if p_tenant is null or p_tenant = '' then
    raise exception 'a tenant has a name' using errcode = '22023';
  end if;
  -- Long names are told apart by their hash; schemas with and without views are two.
  v_schema := case when p_with_views then 'tenant_views_' else 'tenant_' end
    || case when octet_length(p_tenant) <= 40 then p_tenant else md5(p_tenant) end;
  if has_table_privilege(v_role, 'public.application_logs', 'select, insert, update, delete')
    or exists (select from log_writer.roles t where t.role = v_role) then
    raise exception 'role % may read events of all tenants', v_role
      using errcode = '22023', hint = 'give the tenant a role of its own, which is no member of another';
  end if;
  if exists (select from log_writer.tenant_roles t where t.role = v_role and (t.tenant, t.schema) <> (p_tenant, v_schema)) then
    raise exception 'role % sees a tenant already', v_role
      using errcode = '22023', hint = format('first: select log_writer.revoke_tenant(%L)', p_role);
  end if;
  -- Somebody else's schema of that name stays as it is.
  if to_regnamespace(quote_ident(v_schema)) is null then
    perform log_writer.make_tenant_schema(v_schema, p_tenant, p_with_views);
  elsif not exists (select from log_writer.tenant_roles t where (t.tenant, t.schema) = (p_tenant, v_schema)) then
    raise exception 'there is a schema % already, which is not of tenant %', v_schema, p_tenant using errcode = '42P06';
  end if;
  insert into log_writer.tenant_roles (role, tenant, schema, with_views, migrations)
  values (v_role, p_tenant, v_schema, p_with_views, (select count(*) from log_writer._sqlx_migrations))
  on conflict do nothing;
  perform log_writer.set_tenant_rights(v_schema);
  if not has_database_privilege(v_role, current_database(), 'connect') then
    execute format('grant connect on database %I to %s', current_database(), v_role);
  end if;
  perform log_writer.record_action('grant_tenant', 'role:' || session_user, null,
    jsonb_build_object('role', p_role, 'tenant', p_tenant, 'with_views', p_with_views), 1, 'done');
  return v_schema;
end
$f$;
comment on function log_writer.grant_tenant is
  'Lets a role ask about one tenant, by functions in a schema of their own, whose name it returns; after later migrations too. '
  'With p_with_views also by views: their plans (explain analyze) tell how many events of others a filter removed. '
  'Run by the owner. Example: select log_writer.grant_tenant(''acme_reader'', ''acme'');';

create function log_writer.revoke_tenant(p_role name) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_role regrole := quote_ident(p_role);
  v_schema name;
begin
  delete from log_writer.tenant_roles where role = v_role returning schema into v_schema;
  if not found then
    raise exception 'role % was given no tenant', v_role using errcode = '22023';
  end if;
  execute format('revoke all on all routines in schema %I from %s', v_schema, v_role);
  execute format('revoke all on all tables in schema %I from %s', v_schema, v_role);
  execute format('revoke all on schema %I from %s', v_schema, v_role);
  execute format('revoke all on routine public.log_duration_ms, public.log_histogram_add, public.log_histogram_sum,
    public.log_histogram_quantile from %s', v_role);
  execute format('revoke connect on database %I from %s', current_database(), v_role);
  if not exists (select from log_writer.tenant_roles t where t.schema = v_schema) then
    execute format('drop schema %I cascade', v_schema);
  end if;
  perform log_writer.record_action('revoke_tenant', 'role:' || session_user, null, jsonb_build_object('role', p_role), 1, 'done');
end
$f$;
comment on function log_writer.revoke_tenant is 'Takes back what log_writer.grant_tenant gave a role; its schema goes with the last role of it.';

-- For the migrator: tenants' functions and views are those of public after the last migration.
create function log_writer.remake_tenant_schemas() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_of record;
begin
  delete from log_writer.tenant_roles t where not exists (select from pg_roles r where r.oid = t.role);
  for v_of in
    select distinct t.schema, t.tenant, t.with_views from log_writer.tenant_roles t
    where t.migrations <> (select count(*) from log_writer._sqlx_migrations)
  loop
    perform log_writer.make_tenant_schema(v_of.schema, v_of.tenant, v_of.with_views);
    perform log_writer.set_tenant_rights(v_of.schema);
    update log_writer.tenant_roles set migrations = (select count(*) from log_writer._sqlx_migrations) where schema = v_of.schema;
  end loop;
end
$f$;
comment on function log_writer.remake_tenant_schemas is 'Called by the migrator at its end.';
