select row_to_json(r)::text from public.top_error_patterns(
  coalesce(($1 ->> 'window')::interval, interval '1 hour'), ($1 ->> 'limit')::integer, $1 ->> 'service', $1 ->> 'tenant') r
