-- Who may do what: the service commits with the role `ingest`, people and programs read with the role `reader`.
--
-- Roles belong to a server and databases are many, so no role is made here: `log_writer.grant_access(role, access)`, run by
-- the owner, gives a role what stands in `log_writer.rights`, and remembers it. The migrator gives it again after
-- every later migration (`log_writer.apply_rights`), which only has to add its objects to `log_writer.rights`.
-- Locks: none that matter, every object is new. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

create table log_writer.rights (
  access text not null,
  object text not null,
  privileges text not null,
  primary key (access, object)
);
comment on table log_writer.rights is 'What each kind of access may do; written as in GRANT privileges ON object. Changed by migrations alone.';

-- Objects of later migrations may be named here too: rights are given when all migrations are applied.
insert into log_writer.rights (access, object, privileges) values
  ('ingest', 'schema log_writer', 'usage'),
  ('ingest', 'table public.application_logs', 'select, insert'),
  ('ingest', 'table public.log_patterns', 'select, insert, update (first_seen)'),
  -- Rows that are to be deleted are locked first; that takes the right to update one column.
  ('ingest', 'table log_writer.requests', 'select, insert, delete, update (noted_at)'),
  ('ingest', 'table log_writer.outbox', 'select, insert, update, delete'),
  ('ingest', 'table log_writer.dead_letters', 'select, insert, update, delete'),
  ('ingest', 'table log_writer.books', 'select, insert, update, delete'),
  ('ingest', 'table log_writer._sqlx_migrations', 'select'),
  ('ingest', 'sequence log_writer.batch_ids', 'usage'),
  ('ingest', 'function log_writer.make_next_chunk', 'execute'),
  ('ingest', 'function log_writer.note_late_events', 'execute'),
  ('ingest', 'function log_writer.refresh_stats', 'execute'),
  ('ingest', 'function log_writer.drop_old_events', 'execute'),
  ('ingest', 'function log_writer.drop_old_stats', 'execute');
insert into log_writer.rights (access, object, privileges)
select 'reader', 'table public.' || name, 'select'
from unnest(array['application_logs', 'log_patterns', 'log_stats_1m', 'log_stats_1h', 'log_stats_1d', 'log_pattern_stats_5m']) name
union all
select 'reader', 'function public.' || name, 'execute'
from unnest(array['search_logs', 'get_error_stats', 'get_log_volume', 'get_latency_stats', 'get_log_context', 'trace_logs',
  'top_error_patterns', 'new_error_patterns', 'service_dependencies', 'detect_anomalies', 'silent_services',
  'log_stats_source', 'log_duration_ms', 'log_histogram_add', 'log_histogram_sum', 'log_histogram_quantile']) name;
-- The service answers questions over HTTP, by its own role where no reader is configured.
insert into log_writer.rights (access, object, privileges)
select 'ingest', object, privileges from log_writer.rights where access = 'reader' on conflict do nothing;

create table log_writer.roles (
  role regrole not null,
  access text not null,
  migrations bigint,
  primary key (role, access)
);
comment on table log_writer.roles is 'Roles that were given access by log_writer.grant_access.';
comment on column log_writer.roles.migrations is 'How many migrations there were when its rights were given.';

-- Needs the table's owner; Community only: `_timescaledb_functions.create_chunk` is internal, and refused on Apache (0A000).
create function log_writer.make_next_chunk() returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_end timestamptz;
  v_width interval;
  v_made boolean;
begin
  if log_writer.timescale_edition() <> 'community' then
    return false;
  end if;
  select c.range_end, c.range_end - c.range_start into v_end, v_width
  from timescaledb_information.chunks c
  where c.hypertable_schema = 'public' and c.hypertable_name = 'application_logs'
    and c.range_start <= now() and now() < c.range_end
  limit 1;
  if v_end is null or exists (
    select from timescaledb_information.chunks c
    where c.hypertable_schema = 'public' and c.hypertable_name = 'application_logs' and c.range_start = v_end) then
    return false;
  end if;
  -- Limits in microseconds since 1970.
  select n.created into v_made
  from _timescaledb_functions.create_chunk(
    'public.application_logs',
    jsonb_build_object('timestamp', jsonb_build_array(
      (extract(epoch from v_end) * 1000000)::bigint,
      (extract(epoch from v_end + v_width) * 1000000)::bigint))) n;
  return v_made;
end
$f$;
comment on function log_writer.make_next_chunk is
  'Makes the chunk after the present one, if there is a present one and nobody made the next yet; whether it did.';

-- Exactly what the role's kinds of access give it, and nothing that earlier versions gave.
create function log_writer.set_rights(p_role regrole) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_right record;
begin
  execute format('revoke all on all tables in schema log_writer from %s', p_role);
  execute format('revoke all on all sequences in schema log_writer from %s', p_role);
  execute format('revoke all on all routines in schema log_writer from %s', p_role);
  for v_right in
    select r.object, string_agg(r.privileges, ', ') filter (where t.role is not null) as privileges
    from log_writer.rights r
    left join log_writer.roles t on t.role = p_role and t.access = r.access
    group by r.object
  loop
    execute format('revoke all on %s from %s', v_right.object, p_role);
    if v_right.privileges is not null then
      execute format('grant %s on %s to %s', v_right.privileges, v_right.object, p_role);
    end if;
  end loop;
  update log_writer.roles set migrations = (select count(*) from log_writer._sqlx_migrations) where role = p_role;
end
$f$;
comment on function log_writer.set_rights is 'Internal: gives a role what log_writer.roles and log_writer.rights say, and takes the rest.';

create function log_writer.grant_access(p_role name, p_access text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_role regrole := quote_ident(p_role);
begin
  if not exists (select from log_writer.rights where access = p_access) then
    raise exception 'there is no access "%"', p_access
      using errcode = '22023',
            hint = (select 'it is one of: ' || string_agg(distinct access, ', ') from log_writer.rights);
  end if;
  if exists (select from pg_class c where c.oid = 'log_writer.roles'::regclass and c.relowner = v_role) then
    raise exception 'role % owns the tables of log-writer and may do everything already', v_role using errcode = '22023';
  end if;
  insert into log_writer.roles (role, access) values (v_role, p_access) on conflict do nothing;
  perform log_writer.set_rights(v_role);
  -- Only where they are missing: the database and the schema may belong to somebody else.
  if not has_database_privilege(v_role, current_database(), 'connect') then
    execute format('grant connect on database %I to %s', current_database(), v_role);
  end if;
  if not has_schema_privilege(v_role, 'public', 'usage') then
    execute format('grant usage on schema public to %s', v_role);
  end if;
  -- Batches with events that are there already go through a temporary table.
  if p_access = 'ingest' and not has_database_privilege(v_role, current_database(), 'temporary') then
    execute format('grant temporary on database %I to %s', current_database(), v_role);
  end if;
  if not has_database_privilege(v_role, current_database(), 'connect')
    or not has_schema_privilege(v_role, 'public', 'usage')
    or p_access = 'ingest' and not has_database_privilege(v_role, current_database(), 'temporary') then
    raise exception 'role % still lacks rights on database % or schema public, which % cannot give',
      v_role, current_database(), current_user
      using errcode = '42501',
            hint = format('as their owner: grant connect, temporary on database %I to %s; grant usage on schema public to %s',
                          current_database(), v_role, v_role);
  end if;
  perform log_writer.record_action(
    'grant_access', 'role:' || session_user, null, jsonb_build_object('role', p_role, 'access', p_access), 1, 'done');
end
$f$;
comment on function log_writer.grant_access is
  'Gives a role the access `ingest` (the service), `reader` (people and programs) or `auditor` (who reads the audit trail), '
  'here and after every later migration. '
  'Run by the owner. Example: select log_writer.grant_access(''log_writer_ingest'', ''ingest'');';

create function log_writer.revoke_access(p_role name) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_role regrole := quote_ident(p_role);
begin
  delete from log_writer.roles where role = v_role;
  if not found then
    raise exception 'role % was given no access', v_role using errcode = '22023';
  end if;
  perform log_writer.set_rights(v_role);
  execute format('revoke connect, temporary on database %I from %s', current_database(), v_role);
  execute format('revoke usage on schema public from %s', v_role);
  perform log_writer.record_action(
    'revoke_access', 'role:' || session_user, null, jsonb_build_object('role', p_role), 1, 'done');
end
$f$;
comment on function log_writer.revoke_access is
  'Takes back everything that log_writer.grant_access gave a role; what it may do in other databases stays.';

create function log_writer.apply_rights() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_routine regprocedure;
  v_role regrole;
begin
  -- PostgreSQL lets everyone execute a new function.
  for v_routine in
    select p.oid from pg_proc p
    where (p.pronamespace = 'log_writer'::regnamespace
           or format('function %s.%I', p.pronamespace::regnamespace, p.proname) in (select object from log_writer.rights))
      and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)
  loop
    execute format('revoke all on routine %s from public', v_routine);
  end loop;
  delete from log_writer.roles t where not exists (select from pg_roles r where r.oid = t.role);
  for v_role in
    select distinct t.role from log_writer.roles t
    where t.migrations is distinct from (select count(*) from log_writer._sqlx_migrations)
  loop
    perform log_writer.set_rights(v_role);
  end loop;
end
$f$;
comment on function log_writer.apply_rights is
  'Called by the migrator at its end: nobody executes our functions but who was given access, and who was has it on new objects.';
