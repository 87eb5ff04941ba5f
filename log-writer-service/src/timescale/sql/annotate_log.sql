select public.annotate_log(
  ($1 ->> 'id')::uuid, ($1 ->> 'timestamp')::timestamptz, $1 -> 'analysis', coalesce($1 ->> 'tenant', 'default'))
