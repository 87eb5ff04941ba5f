select row_to_json(r)::text from (
  select c.relname as name, obj_description(c.oid, 'pg_class') as about,
    (select json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
       'about', col_description(c.oid, a.attnum)) order by a.attnum)
     from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
  from pg_class c
  where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') and $1 is not null
    and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')
  order by 1
) r
