-- The documents of letters $1 were looked for: the next look is as long after this one as the refusal is before it, $2 at
-- least, and none follows once the refusal is an hour ago. By the primary key.
with looked as materialized (
  select d.id from log_writer.dead_letters d
  where d.id = any ($1) and d.redriven_at is null
  order by d.id
  for update
)
update log_writer.dead_letters d
set look_at = case when d.last_at > now() - interval '1 hour' then now() + greatest(now() - d.last_at, $2) end
from looked
where d.id = looked.id
