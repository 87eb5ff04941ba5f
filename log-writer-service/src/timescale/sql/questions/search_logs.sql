select row_to_json(r)::text from public.search_logs(
  p_query := $1 ->> 'query', p_level := $1 ->> 'level', p_service := $1 ->> 'service', p_user_id := $1 ->> 'user_id',
  p_correlation_id := $1 ->> 'correlation_id', p_trace_id := $1 ->> 'trace_id', p_tenant := $1 ->> 'tenant',
  p_tags := (select array_agg(t) from jsonb_array_elements_text($1 -> 'tags') t), p_fields := $1 -> 'fields',
  p_start_time := ($1 ->> 'start_time')::timestamptz, p_end_time := ($1 ->> 'end_time')::timestamptz,
  p_limit := ($1 ->> 'limit')::integer, p_before := $1 ->> 'before') r
