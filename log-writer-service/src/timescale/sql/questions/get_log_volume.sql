select row_to_json(r)::text from public.get_log_volume(
  coalesce(($1 ->> 'window')::interval, interval '1 hour'), ($1 ->> 'bucket')::interval, $1 ->> 'service', $1 ->> 'level',
  $1 ->> 'tenant') r
