select row_to_json(r)::text from public.get_latency_stats(
  coalesce(($1 ->> 'window')::interval, interval '1 hour'), $1 ->> 'service', $1 ->> 'tenant') r
