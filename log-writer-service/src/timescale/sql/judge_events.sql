-- Where events stand, all at one moment: gone, outstanding, a dead letter of their document or of a change of it, or settled.
--
-- $1 tenant, $2 ids and $3 times. Index: the primary keys of application_logs and dead_letters (stage, identity).
with wanted as materialized (
  select w.place, w.id, w."timestamp", a.batch_id
  from unnest($2::uuid[], $3::timestamptz[]) with ordinality as w (id, "timestamp", place)
  left join lateral (
    select a.batch_id from public.application_logs a
    where a.id = w.id and a."timestamp" = w."timestamp" and a.tenant = $1
    limit 1
  ) a on true
),
listed as materialized (
  select n.id, n."timestamp"
  from log_writer.outbox o
  cross join lateral unnest(o.open_ids, o.open_times) as n (id, "timestamp")
  where o.open_ids is not null and $1 = any (o.tenants)
)
select case
  when w.batch_id is null then 'gone'
  when exists (select from log_writer.outbox o
               where o.batch_id = w.batch_id and o.open_ids is null and $1 = any (o.tenants)
                 and w."timestamp" between o.first_time and o.last_time)
    or exists (select from listed l where l.id = w.id and l."timestamp" = w."timestamp") then 'outstanding'
  when d.kind = 'replace' then 'refused_change'
  when d.id is not null then 'dead_letter'
  else 'settled'
end as standing
from wanted w
left join log_writer.dead_letters d
  on d.stage = 'index'
  and d.identity = int8send((extract(epoch from w."timestamp") * 1000000)::bigint) || uuid_send(w.id) || convert_to($1, 'UTF8')
order by w.place
