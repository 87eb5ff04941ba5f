-- Events of a tenant by time and id, after a known one, without the batches that stand in the outbox as a whole and
-- without dead letters. What stands in the outbox by id is among them: the caller judges what it misses.
-- $1 tenant, $2 from, $3 until, $4 and $5 time and id after which to begin, $6 at most so many.
-- Index: application_logs_timestamp_idx, and dead_letters (stage, identity); the caller asks for a minute at a time.
with open_batches as materialized (
  select distinct batch_id from log_writer.outbox where open_ids is null
)
select a.id, a."timestamp"
from public.application_logs a
where a.tenant = $1 and a."timestamp" >= $2 and a."timestamp" < $3 and (a."timestamp", a.id) > ($4, $5)
  and not exists (select from open_batches o where o.batch_id = a.batch_id)
  and not exists (select from log_writer.dead_letters d
                  where d.stage = 'index' and d.identity =
                    int8send((extract(epoch from a."timestamp") * 1000000)::bigint) || uuid_send(a.id) || convert_to(a.tenant, 'UTF8'))
order by a."timestamp", a.id
limit $6
