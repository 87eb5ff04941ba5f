select row_to_json(r)::text from public.service_dependencies(
  coalesce(($1 ->> 'window')::interval, interval '1 hour'), $1 ->> 'tenant') r
