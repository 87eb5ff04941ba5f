select row_to_json(r)::text from public.get_log_context(
  ($1 ->> 'id')::uuid, ($1 ->> 'before')::integer, ($1 ->> 'after')::integer, ($1 ->> 'timestamp')::timestamptz,
  $1 ->> 'tenant') r
