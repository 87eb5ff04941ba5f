-- Makes the chunk after the present one, if there is a present one and nobody made the next yet. Community only:
-- `_timescaledb_functions.create_chunk` is internal, and refused on Apache (0A000). Limits in microseconds since 1970.
with now_chunk as (
  select c.range_end, c.range_end - c.range_start as width
  from timescaledb_information.chunks c
  where c.hypertable_schema = 'public' and c.hypertable_name = 'application_logs'
    and c.range_start <= now() and now() < c.range_end
  limit 1
)
select (_timescaledb_functions.create_chunk(
  'public.application_logs',
  jsonb_build_object('timestamp', jsonb_build_array(
    (extract(epoch from n.range_end) * 1000000)::bigint,
    (extract(epoch from n.range_end + n.width) * 1000000)::bigint)))).created
from now_chunk n
where current_setting('timescaledb.license', true) = 'timescale'
  and not exists (
    select from timescaledb_information.chunks c
    where c.hypertable_schema = 'public' and c.hypertable_name = 'application_logs' and c.range_start = n.range_end)
