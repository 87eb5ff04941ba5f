select row_to_json(r)::text from public.get_log(
  ($1 ->> 'id')::uuid, ($1 ->> 'timestamp')::timestamptz, $1 ->> 'tenant') r
