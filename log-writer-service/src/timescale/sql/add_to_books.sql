-- Adds to the row of one worker; by its primary key, nobody else writes that row.
insert into log_writer.books as b (worker, received, committed, duplicates, dead_lettered, mirrored, unmirrored, indexed, index_dead_lettered, expired, requeued)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
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
