-- Claims letters whose document is due to be looked for, $2 at most, for the time $1: another process passes them over
-- meanwhile, and takes them up if this one dies. By dead_letters_look_at_idx.
with due as materialized (
  select d.id from log_writer.dead_letters d
  where d.look_at <= now() and d.stage = 'index' and d.redriven_at is null
  order by d.look_at limit $2
  for update skip locked
)
update log_writer.dead_letters d set look_at = now() + $1
from due
where d.id = due.id
returning d.id, d.event_id, d.event_time, d.tenant, d.target
