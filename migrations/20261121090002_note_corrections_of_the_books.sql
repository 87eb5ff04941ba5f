-- A repair that corrects the books says so in its row of the audit trail.
--
-- Locks: none that matter, every object is new. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

create function log_writer.record_correction(p_id bigint, p_events bigint) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $f$
begin
  update log_writer.audit
  set target = target || jsonb_build_object(
    'books_corrected', coalesce((target ->> 'books_corrected')::bigint, 0) + p_events)
  where id = p_id and outcome = 'running' and database_role = session_user;
  if not found then
    raise exception 'row % of the audit trail is not one of this role that has not ended', p_id using errcode = '42501';
  end if;
end
$f$;
comment on function log_writer.record_correction is
  'Adds to books_corrected of an action under way: events by which its transactions corrected log_writer.books.';

insert into log_writer.rights (access, object, privileges) values
  ('ingest', 'function log_writer.record_correction', 'execute');
