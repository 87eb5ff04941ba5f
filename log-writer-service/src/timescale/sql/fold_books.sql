-- Moves the books of idle workers into the row '(folded)'. One statement: the sums never change.
with idle as (
  delete from log_writer.books
  where updated_at < now() - $1::text::interval and worker <> '(folded)'
  returning *
),
folded as (
  insert into log_writer.books as b (worker, received, committed, duplicates, dead_lettered, mirrored, unmirrored, indexed, index_dead_lettered, expired, requeued)
  select '(folded)', sum(received), sum(committed), sum(duplicates), sum(dead_lettered), sum(mirrored), sum(unmirrored), sum(indexed), sum(index_dead_lettered), sum(expired), sum(requeued)
  from idle
  having count(*) > 0
  on conflict (worker) do update set
    received = b.received + excluded.received,
    committed = b.committed + excluded.committed,
    duplicates = b.duplicates + excluded.duplicates,
    dead_lettered = b.dead_lettered + excluded.dead_lettered,
    mirrored = b.mirrored + excluded.mirrored,
    unmirrored = b.unmirrored + excluded.unmirrored,
    indexed = b.indexed + excluded.indexed,
    index_dead_lettered = b.index_dead_lettered + excluded.index_dead_lettered,
    expired = b.expired + excluded.expired,
    requeued = b.requeued + excluded.requeued,
    updated_at = now()
)
select count(*) from idle
