select row_to_json(r)::text from (
  select l.* from public.application_logs l
  where l.id = ($1 ->> 'id')::uuid and ($1 ->> 'timestamp' is null or l."timestamp" = ($1 ->> 'timestamp')::timestamptz)
    and ($1 ->> 'tenant' is null or l.tenant = $1 ->> 'tenant')
  order by l."timestamp" desc, l.tenant limit 100
) r
