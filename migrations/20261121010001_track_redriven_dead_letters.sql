-- Which dead letters were put back into the outbox: a refusal then raises their attempts, a success removes them.
--
-- Locks: access exclusive on log_writer.dead_letters for the column (no rewrite: under 10 ms once it is granted), share
-- for the index (writers of dead letters wait; a second for a million letters). The same on both editions.

set local lock_timeout = '5s';

alter table log_writer.dead_letters add column redriven_at timestamptz;
comment on column log_writer.dead_letters.redriven_at is
  'Set while the event is in the outbox again (stage index); null: the letter waits for somebody.';

-- What waits, by stage: the alarm and /metrics count it often. Its keys repeat: about 8 bytes a letter.
create index dead_letters_waiting_idx on log_writer.dead_letters (stage) where redriven_at is null;
