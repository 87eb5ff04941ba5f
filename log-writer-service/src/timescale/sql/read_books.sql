-- The sums over all workers.
select
  coalesce(sum(received), 0)::bigint as received,
  coalesce(sum(committed), 0)::bigint as committed,
  coalesce(sum(duplicates), 0)::bigint as duplicates,
  coalesce(sum(dead_lettered), 0)::bigint as dead_lettered,
  coalesce(sum(mirrored), 0)::bigint as mirrored,
  coalesce(sum(unmirrored), 0)::bigint as unmirrored,
  coalesce(sum(indexed), 0)::bigint as indexed,
  coalesce(sum(index_dead_lettered), 0)::bigint as index_dead_lettered,
  coalesce(sum(expired), 0)::bigint as expired,
  coalesce(sum(requeued), 0)::bigint as requeued
from log_writer.books
