-- A tenant's role that was dropped and not revoked leaves no trace that keeps the tenant from being given to another one.
--
-- Its row named a role that was gone, so giving rights to all roles of the schema failed; and once the migrator had removed the
-- row, the schema looked like somebody else's. Now the row goes first, and the schema with the last of them.
-- Locks: none that matter. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

create function log_writer.forget_vanished_roles() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_schema name;
begin
  for v_schema in
    select distinct t.schema from log_writer.tenant_roles t where not exists (select from pg_roles r where r.oid = t.role)
  loop
    delete from log_writer.tenant_roles t
    where t.schema = v_schema and not exists (select from pg_roles r where r.oid = t.role);
    if not exists (select from log_writer.tenant_roles t where t.schema = v_schema) then
      execute format('drop schema if exists %I cascade', v_schema);
    end if;
  end loop;
end
$f$;
comment on function log_writer.forget_vanished_roles is
  'Internal: forgets tenants'' roles that were dropped; their schema goes with the last of them.';

create or replace function log_writer.grant_tenant(p_role name, p_tenant text, p_with_views boolean default false) returns name
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
  perform log_writer.forget_vanished_roles();
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

create or replace function log_writer.remake_tenant_schemas() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_of record;
begin
  perform log_writer.forget_vanished_roles();
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

-- Schemas that earlier versions have left behind: of ours by owner and comment, and of no role.
do $m$
declare
  v_schema name;
begin
  for v_schema in
    select n.nspname from pg_namespace n
    where starts_with(n.nspname, 'tenant_') and n.nspowner = quote_ident(current_user)::regrole
      and obj_description(n.oid, 'pg_namespace') like 'What the roles of tenant % may ask.'
      and not exists (select from log_writer.tenant_roles t where t.schema = n.nspname)
  loop
    execute format('drop schema %I cascade', v_schema);
  end loop;
end
$m$;
