select row_to_json(r)::text from public.detect_anomalies(
  coalesce(($1 ->> 'window')::interval, interval '1 hour'), coalesce(($1 ->> 'threshold')::double precision, 3.5),
  coalesce(($1 ->> 'days')::integer, 7), $1 ->> 'tenant') r
