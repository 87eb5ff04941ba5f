-- Who did what to stored events and to the set-up, and when: one row for each action of a person or a program.
--
-- Nobody but the owner writes the table. The service and its commands call two functions, which take time and role from the
-- database itself: they can add rows, and counts to rows of theirs that have not ended, and can change or remove nothing.
-- Locks: none that matter, every object is new. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

create table log_writer.audit (
  id bigint generated always as identity primary key,
  at timestamptz not null default clock_timestamp(),
  action text not null,
  actor text not null,
  database_role name not null default session_user,
  source_address inet,
  target jsonb not null,
  affected bigint not null default 0 check (affected >= 0),
  outcome text not null check (outcome in ('running', 'done', 'failed')),
  ended_at timestamptz
);
create index audit_at_idx on log_writer.audit (at);
comment on table log_writer.audit is
  'One row for each action, written in the transaction that acts or, where there are several, begun before the first of them.';
comment on column log_writer.audit.actor is
  'os:USER@HOST for commands, token:NAME for requests, role:NAME for SQL; the first two are what the service says.';
comment on column log_writer.audit.database_role is 'The role that was logged in; the database''s own knowledge.';
comment on column log_writer.audit.source_address is 'Of the request; else of the connection to PostgreSQL, null by socket.';
comment on column log_writer.audit.target is 'Filters or names. Never what a body or a secret holds.';
comment on column log_writer.audit.affected is 'Counted in the same transactions as what they did.';
comment on column log_writer.audit.outcome is 'running: under way, or killed; what was done until then is counted.';

create function log_writer.record_action(
  p_action text, p_actor text, p_address inet, p_target jsonb, p_affected bigint, p_outcome text
) returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_id bigint;
begin
  insert into log_writer.audit (action, actor, source_address, target, affected, outcome, ended_at)
  values (p_action, p_actor, coalesce(p_address, inet_client_addr()), p_target, p_affected, p_outcome,
          case when p_outcome <> 'running' then clock_timestamp() end)
  returning id into v_id;
  return v_id;
end
$f$;
comment on function log_writer.record_action is 'Adds a row to the audit trail; its number.';

create function log_writer.record_progress(p_id bigint, p_affected bigint, p_outcome text) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
begin
  if p_affected < 0 then
    raise exception 'an audited action cannot have affected % rows', p_affected using errcode = '22023';
  end if;
  update log_writer.audit
  set affected = affected + p_affected, outcome = p_outcome,
      ended_at = case when p_outcome <> 'running' then clock_timestamp() end
  where id = p_id and outcome = 'running' and database_role = session_user;
  if not found then
    raise exception 'row % of the audit trail is not one of this role that has not ended', p_id using errcode = '42501';
  end if;
end
$f$;
comment on function log_writer.record_progress is
  'Counts what an action under way did; part of the transaction that does it. Ends it with the outcome done or failed.';

create table log_writer.settings (
  name text primary key,
  value text not null
);
comment on table log_writer.settings is 'What the owner''s configuration says that other roles must not change; written by every migrate.';

create function log_writer.purge_audit() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
declare
  v_keep interval := (select value::interval from log_writer.settings where name = 'audit_retention');
  v_gone bigint;
begin
  delete from log_writer.audit where id in (
    select a.id from log_writer.audit a where a.at < now() - v_keep order by a.at limit 10000 for update skip locked);
  get diagnostics v_gone = row_count;
  return v_gone;
end
$f$;
comment on function log_writer.purge_audit is
  'Deletes rows of the audit trail older than database.audit_retention was at the last migrate; how many, 10,000 at most.';

insert into log_writer.rights (access, object, privileges) values
  ('ingest', 'function log_writer.record_action', 'execute'),
  ('ingest', 'function log_writer.record_progress', 'execute'),
  ('ingest', 'function log_writer.purge_audit', 'execute'),
  ('auditor', 'schema log_writer', 'usage'),
  ('auditor', 'table log_writer.audit', 'select');
