select row_to_json(r)::text from public.new_error_patterns(
  coalesce(($1 ->> 'window')::interval, interval '1 hour'), ($1 ->> 'limit')::integer, $1 ->> 'tenant') r
