-- Removes the letter $1; the letters that came of it ($2 stages, $3 identities) inherit its attempts and its first time.
-- By the primary key and the unique (stage, identity).
with gone as (
  delete from log_writer.dead_letters where id = $1
  returning attempts, first_at
)
update log_writer.dead_letters d
set attempts = d.attempts + gone.attempts, first_at = least(d.first_at, gone.first_at)
from gone, unnest($2::text[], $3::bytea[]) as n (stage, identity)
where d.stage = n.stage and d.identity = n.identity and d.id <> $1
