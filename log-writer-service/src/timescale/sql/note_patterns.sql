-- Of a kind that is known only an earlier first time is new: events may come late.
insert into public.log_patterns as known (tenant, pattern, level, service, template, first_seen)
select n.tenant, n.pattern, n.level, n.service, n.template, n.first_seen
from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
  with ordinality as n (tenant, pattern, level, service, template, first_seen, place)
order by n.place
on conflict (tenant, pattern) do update set first_seen = excluded.first_seen
where excluded.first_seen < known.first_seen
