-- Outbox rows of one batch; $3 attempts are counted already.
insert into log_writer.outbox
  (batch_id, target, tenants, first_time, last_time, events, bytes, open_ids, open_times, attempts)
select
  $1, n.target, n.tenants,
  'epoch'::timestamptz + n.first_micros * interval '1 microsecond',
  'epoch'::timestamptz + n.last_micros * interval '1 microsecond',
  n.events, n.bytes, n.open_ids,
  (select array_agg('epoch'::timestamptz + t.micros * interval '1 microsecond' order by t.place)
   from unnest(n.open_micros) with ordinality as t (micros, place)),
  $3
from jsonb_to_recordset($2) as n (
  target text, tenants text[], first_micros bigint, last_micros bigint, events bigint, bytes bigint,
  open_ids uuid[], open_micros bigint[])
