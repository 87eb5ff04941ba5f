-- One number for the batch, and every digest that is new, in hexadecimal: in one row, since a row for each of a hundred
-- requests costs both sides more. Inserted in the order given, which is sorted.
with batch as materialized (
  select nextval('log_writer.batch_ids') as id
),
noted as (
  insert into log_writer.requests (digest, batch_id, received)
  select decode(n.digest, 'hex'), batch.id, n.received
  from batch, unnest($1::text[], $2::integer[]) with ordinality as n (digest, received, place)
  order by n.place
  on conflict do nothing
  returning digest
)
select
  batch.id as batch_id,
  (select string_agg(encode(digest, 'hex'), ',') from noted) as new_digests,
  (extract(epoch from now()) * 1000000)::bigint as now_micros
from batch
