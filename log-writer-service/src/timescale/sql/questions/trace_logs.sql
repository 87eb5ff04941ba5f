select row_to_json(r)::text from public.trace_logs(
  $1 ->> 'id', ($1 ->> 'start_time')::timestamptz, ($1 ->> 'end_time')::timestamptz, $1 ->> 'tenant',
  ($1 ->> 'limit')::integer) r
