-- Events of [$1, $2) at $3 a second, evenly; what is the n-th event depends on chance, its request on its time.
with named as (
  select array['gateway', 'orders', 'api', 'auth', 'payment', 'catalog', 'search', 'cart', 'users', 'stock', 'mail', 'reports'] as services
), drawn as (
  select n, $1 + n * interval '1 second' / $3 as at, random() as l, random() as s, random() as t, random() as r, random() as u,
    random() as d, (random() * 10000)::integer as k,
    to_hex((extract(epoch from $1) * 10)::bigint + n / 16) as request
  from generate_series(0, (extract(epoch from $2::timestamptz - $1::timestamptz) * $3)::bigint - 1) n
), leveled as (
  select *, case when l < 0.15 then 'DEBUG' when l < 0.90 then 'INFO' when l < 0.96 then 'WARN' when l < 0.998 then 'ERROR' else 'FATAL' end as level,
    services[1 + floor(12 * s * s)::integer] as service
  from drawn, named
), worded as (
  -- 480 kinds of messages of WARN and above, some much more frequent than others.
  select *, case when l >= 0.90 then format('%s: %s of step %s', service,
    (array['connection refused by upstream', 'deadline exceeded while waiting for the lock', 'request rejected', 'cannot write the answer',
      'retry budget exhausted'])[1 + floor(5 * r)::integer], chr(97 + floor(8 * u * u)::integer)) end as kind
  from leveled
)
insert into application_logs (id, "timestamp", ingested_at, batch_id, tenant, level, service, host, message, pattern,
  correlation_id, user_id, trace_id, span_id, tags, fields, performance_metrics)
select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text || r::text), 1, 3)
    || '8' || substr(md5(u::text || d::text), 1, 15))::uuid,
  at, at, (extract(epoch from at))::bigint, case when t < 0.85 then 'default' when t < 0.95 then 'acme' else 'globex' end,
  level, service, service || '-' || k % 4,
  coalesce(kind || ', id ' || k, format('handled request %s of customer %s in region %s, %s items', request, k, k % 7, k % 90)),
  hashtextextended(kind, 0),
  case when r < 0.3 then 'req-' || request end,
  case when u < 0.2 then 'user-' || k end,
  case when d < 0.2 then lpad(request, 32, '0') end,
  case when d < 0.2 then substr(md5(n::text), 1, 16) end,
  case when t < 0.1 then array['performance', 'checked'] end,
  jsonb_build_object('region', k % 7, 'path', '/v1/items/' || k, 'version', '1.4.2'),
  case when k % 10 < 3 then jsonb_build_object('duration_ms', round((5 * exp(3 * d))::numeric, 2)) end
from worded
