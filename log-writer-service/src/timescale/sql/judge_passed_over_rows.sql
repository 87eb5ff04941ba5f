-- Compares each row that was passed over with the one under its key. `limit 1` keeps the look-up an index scan by the
-- whole key: joined plainly, the planner, who knows nothing of the temporary table, may read every chunk.
update pg_temp.log_writer_staging s
set outcome = case when same.found then 'duplicate' else 'conflict' end,
    derived_id = case
      -- An id that was derived already and yet is taken by other content: one more step, as repeatable as the first.
      when s.derived_id = s.id then md5(s.id::text || s.level || s.service || s.message)::uuid
      else s.derived_id
    end
from (
  select p.ordinal, coalesce(l.level = p.level and l.service = p.service and l.message = p.message, false) as found
  from pg_temp.log_writer_staging p
  left join lateral (
    select a.level, a.service, a.message
    from public.application_logs a
    where a.id = p.id and a."timestamp" = p."timestamp" and a.tenant = p.tenant
    limit 1
  ) l on true
  where p.outcome is null
) same
where s.ordinal = same.ordinal
