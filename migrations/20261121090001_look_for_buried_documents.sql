-- What a letter of the stage `index` must tell to be taken back by itself: which kind of work was refused, and when its
-- document is looked for next. A `_bulk` that nobody answered may be applied after its documents were refused.
--
-- Locks: access exclusive on log_writer.dead_letters for the columns (no rewrite: under 10 ms once it is granted), share for
-- the index, which is empty at first (one pass over the table: under a second for a million letters without what they keep).
-- The same on both editions.

set local lock_timeout = '5s';

alter table log_writer.dead_letters
  add column kind text check (kind in ('fresh', 'redrive', 'repair', 'replace')),
  add column look_at timestamptz;
comment on column log_writer.dead_letters.kind is
  'Stage index: of the outbox row that was refused. replace: the document that is there is older than the event, so its '
  'presence proves nothing. Null: of a version before; taken for replace.';
comment on column log_writer.dead_letters.look_at is
  'When its document is looked for next, since it may come after it was refused; null: not any more.';

create index dead_letters_look_at_idx on log_writer.dead_letters (look_at) where look_at is not null;
