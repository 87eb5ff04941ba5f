-- Claims neighbouring rows of one target, newest first.
--
-- Targets take turns: $6 if it has rows, else the next by name after $7. By the newest row one with a backlog and live
-- traffic would have every turn.
--
-- Index: outbox_claim_idx (target, batch_id, id, next_attempt_at): one step for each target (loose scan), then from its
-- end; rows that wait are passed over inside the index. The order is by batch and not by id alone, because for that
-- the planner takes the primary key and reads its way through all other targets. `as materialized` keeps the limits.
--
-- `chosen` takes the targets in the order of `heads` and stops at the first with a row that nobody has locked: a claim at
-- the same moment, which locks a whole target, does not hide the others, and none is locked in passing.
with recursive targets as (
  (select o.target from log_writer.outbox o order by o.target limit 1)
  union all
  select (select o.target from log_writer.outbox o where o.target > t.target order by o.target limit 1)
  from targets t
  where t.target is not null
),
heads as materialized (
  select t.target
  from targets t
  where t.target is not null and t.target <> all ($5::text[])
  order by t.target <> $6::text, t.target <= $7::text, t.target
),
chosen as materialized (
  select h.target
  from heads h
  cross join lateral (
    select o.id from log_writer.outbox o
    where o.target = h.target and o.next_attempt_at <= now()
    order by o.batch_id desc, o.id desc limit 1
    for update skip locked
  ) unlocked
  limit 1
),
free as materialized (
  select o.id, o.batch_id, o.events, o.bytes, o.claimed_by
  from log_writer.outbox o
  where o.target = (select target from chosen) and o.next_attempt_at <= now()
  order by o.batch_id desc, o.id desc limit 256
  for update skip locked
),
counted as (
  select
    id,
    claimed_by is distinct from $1 and claimed_by is not null as taken_over,
    row_number() over neighbours as place,
    sum(events) over neighbours as events,
    sum(bytes) over neighbours as bytes
  from free
  window neighbours as (order by batch_id desc, id desc)
),
claimed as (
  update log_writer.outbox o
  set claimed_by = $1, claimed_until = now() + $2, next_attempt_at = now() + $2, attempts = o.attempts + 1,
    -- One that claimed it before has neither settled nor released it.
    awaits_bulk = o.awaits_bulk or o.claimed_by is not null
  from counted c
  where o.id = c.id and (c.place = 1 or (c.events <= $3 and c.bytes <= $4))
  -- By name: a column that a later version adds would make every prepared plan fail once.
  returning o.id, o.batch_id, o.target, o.tenants, o.first_time, o.last_time, o.events, o.bytes, o.kind, o.open_ids,
    o.open_times, o.attempts, o.awaits_bulk, c.taken_over
)
select *, (select count(*) from free) as claimable from claimed order by batch_id desc, id desc
