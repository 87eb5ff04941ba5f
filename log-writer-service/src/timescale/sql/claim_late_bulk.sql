-- Claims the late bulk that is longest due to be looked for, for the time $1: another process passes it over meanwhile, and
-- takes it up if this one dies. By late_bulks_look_at_idx.
with due as materialized (
  select l.id from log_writer.late_bulks l
  where l.look_at <= now()
  order by l.look_at limit 1
  for update skip locked
)
update log_writer.late_bulks l set look_at = now() + $1
from due
where l.id = due.id
returning l.id, l.target
