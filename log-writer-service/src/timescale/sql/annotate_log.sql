select log_writer.annotate(
  ($1 ->> 'id')::uuid, ($1 ->> 'timestamp')::timestamptz, $1 -> 'analysis', $1 ->> 'tenant',
  $2, $3::text::inet)
