-- Which tenant is not mixed into the ids of documents: the one that was `events.default_tenant` when the service first started.
--
-- Until now it was whatever the configuration said. Changed over stored events, it made other ids for them, and a repair or an
-- annotation second documents. From now on the first start notes it, and a later change is one for new events alone.
-- Locks: none, the object is new. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

create function log_writer.bare_tenant(p_configured text) returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
begin
  insert into log_writer.settings (name, value) values ('bare_tenant', p_configured) on conflict (name) do nothing;
  return (select value from log_writer.settings where name = 'bare_tenant');
end
$f$;
comment on function log_writer.bare_tenant is
  'The tenant that is not mixed into the ids of documents; the one that is told, if this is the first call.';
comment on table log_writer.settings is
  'What the owner''s configuration says that other roles must not change, written by every migrate; and bare_tenant, written once.';

insert into log_writer.rights (access, object, privileges) values
  ('ingest', 'function log_writer.bare_tenant', 'execute');
