select row_to_json(r)::text from public.silent_services(
  coalesce(($1 ->> 'window')::interval, interval '5 minutes'), coalesce(($1 ->> 'known')::interval, interval '1 day'),
  $1 ->> 'tenant') r
