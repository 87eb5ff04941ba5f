select row_to_json(r)::text from (
  select p.proname as name, pg_get_function_identity_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result,
    obj_description(p.oid, 'pg_proc') as about
  from pg_proc p
  where p.pronamespace = 'public'::regnamespace and p.prokind = 'f' and $1 is not null
    and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
  order by 1
) r
