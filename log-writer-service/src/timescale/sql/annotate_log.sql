select log_writer.annotate(
  ($1 ->> 'id')::uuid, ($1 ->> 'timestamp')::timestamptz, $1 -> 'analysis', coalesce($1 ->> 'tenant', 'default'),
  $2, $3::text::inet)
