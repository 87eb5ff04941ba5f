-- Removes the letters of redriven events that are settled: indexed, there already, or gone from the table. A letter that
-- was refused again meanwhile waits, and stays. By the unique (stage, identity); identity as in keep_index_refusals.sql.
delete from log_writer.dead_letters d
using unnest($1::uuid[], $2::timestamptz[]) as n (id, "timestamp")
where d.stage = 'index' and d.redriven_at is not null
  and d.identity = int8send((extract(epoch from n."timestamp") * 1000000)::bigint) || uuid_send(n.id) || convert_to($3, 'UTF8')
