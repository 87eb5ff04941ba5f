-- The oldest annotated events, taken off the queue.
delete from log_writer.annotations a where a.id in (
  select t.id from log_writer.annotations t order by t.id limit $1 for update skip locked)
returning a.event_id, a.event_time, a.tenant
