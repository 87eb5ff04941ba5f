-- Letters of the stage `index` that wait, of these events. By the unique (stage, identity); identity as in
-- keep_index_refusals.sql.
select d.id
from unnest($1::uuid[], $2::timestamptz[], $3::text[]) as n (id, "timestamp", tenant)
join log_writer.dead_letters d
  on d.stage = 'index'
  and d.identity = int8send((extract(epoch from n."timestamp") * 1000000)::bigint) || uuid_send(n.id) || convert_to(n.tenant, 'UTF8')
where d.redriven_at is null
order by d.id
