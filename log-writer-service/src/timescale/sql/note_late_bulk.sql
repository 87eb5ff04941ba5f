-- Late bulk $1 was looked for: the next look is as long after this one as the settling is before it, $2 at least, and none
-- follows once the settling is an hour ago. By the primary key.
with ended as (
  delete from log_writer.late_bulks l where l.id = $1 and l.settled_at <= now() - interval '1 hour'
)
update log_writer.late_bulks l set look_at = now() + greatest(now() - l.settled_at, $2)
where l.id = $1 and l.settled_at > now() - interval '1 hour'
