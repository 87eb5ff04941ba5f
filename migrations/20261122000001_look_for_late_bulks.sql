-- A `_bulk` that nobody answered may be applied after another has brought the same documents. If the stream rolls over in
-- between they stand in two indices then, and no outbox row tells of it. So an outbox row remembers that such a bulk may come,
-- and when it is settled the ids of its documents are kept here, to be looked for again.
--
-- Locks: access exclusive on log_writer.outbox for the column (no rewrite: under 10 ms once it is granted), and until the end
-- on those of its rows that were ever claimed: a second for a million. The same on both editions.
-- Replicas of the version before note nothing: what they leave unanswered while they still run is looked for only if it was
-- there before this migration, or if they never settled it.

set local lock_timeout = '5s';

alter table log_writer.outbox add column awaits_bulk boolean not null default false;
comment on column log_writer.outbox.awaits_bulk is
  'Whether a bulk of an earlier claim may still come: it was not answered, or that claim ended without being settled.';
update log_writer.outbox set awaits_bulk = true where attempts > 0;

create table log_writer.late_bulks (
  id bigint generated always as identity primary key,
  target text not null,
  document_ids text[] not null,
  settled_at timestamptz not null default now(),
  look_at timestamptz not null default now()
);
create index late_bulks_look_at_idx on log_writer.late_bulks (look_at);
comment on table log_writer.late_bulks is
  'Documents that were settled though a bulk of an earlier claim might still bring second copies; until their last look.';
comment on column log_writer.late_bulks.target is 'Data stream or index.';
comment on column log_writer.late_bulks.document_ids is 'Ids in Elasticsearch.';
comment on column log_writer.late_bulks.look_at is 'When they are looked for next.';

insert into log_writer.rights (access, object, privileges) values
  ('ingest', 'table log_writer.late_bulks', 'select, insert, update, delete');
