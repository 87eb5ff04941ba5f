-- What the service keeps for itself: known requests, what is still to be delivered, dead letters, books.
--
-- Locks: none that matter, every object is new. Time: next to none. The same on both editions.

set local lock_timeout = '5s';

comment on schema log_writer is 'Internal to log-writer-service: resends, delivery, dead letters, books, migrations.';

-- One for each transaction that commits events. Gaps are normal: a rollback does not give a number back.
create sequence log_writer.batch_ids as bigint;

create table log_writer.requests (
  digest bytea primary key,
  batch_id bigint not null,
  received integer not null,
  noted_at timestamptz not null default now()
);
create index requests_noted_at_idx on log_writer.requests (noted_at);
comment on table log_writer.requests is
  'Digests of committed requests: a resend of the same bytes is known before anything is copied. Purged after hours.';
comment on column log_writer.requests.received is 'Events of the request; a resend reports them all as duplicates.';

create table log_writer.outbox (
  id bigint generated always as identity primary key,
  batch_id bigint not null,
  target text not null,
  tenants text[] not null,
  first_time timestamptz not null,
  last_time timestamptz not null,
  events bigint not null check (events >= 0),
  bytes bigint not null,
  kind text not null default 'fresh' check (kind in ('fresh', 'redrive', 'repair', 'replace')),
  open_ids uuid[],
  open_times timestamptz[],
  attempts integer not null default 0,
  enqueued_at timestamptz not null default now(),
  next_attempt_at timestamptz not null default now(),
  claimed_by uuid,
  claimed_until timestamptz,
  check (cardinality(open_ids) = cardinality(open_times))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 5000);
-- The time stands last so that rows that wait are passed over inside the index, without a look at the table.
create index outbox_claim_idx on log_writer.outbox (target, batch_id, id, next_attempt_at);
create index outbox_claimed_by_idx on log_writer.outbox (claimed_by) where claimed_by is not null;
comment on table log_writer.outbox is
  'What of each batch is not yet settled in Elasticsearch: pointers into application_logs, one per batch, chunk and target.';
comment on column log_writer.outbox.target is 'Data stream or index, fixed at commit.';
comment on column log_writer.outbox.tenants is 'Tenants of its events: with batch_id and the times they name exactly these rows.';
comment on column log_writer.outbox.events is 'Events not yet settled; log_writer.books counts on it.';
comment on column log_writer.outbox.open_ids is 'The events not yet settled; null: all of the row. open_times in the same order.';
comment on column log_writer.outbox.attempts is 'How often it was claimed; from the second on Elasticsearch is asked first.';
comment on column log_writer.outbox.next_attempt_at is 'When it may be claimed (again); a claim sets it to its own end.';

create table log_writer.dead_letters (
  id bigint generated always as identity primary key,
  stage text not null check (stage in ('decode', 'store', 'index')),
  identity bytea not null,
  reason text not null,
  detail text not null,
  attempts integer not null default 1,
  first_at timestamptz not null default now(),
  last_at timestamptz not null default now(),
  tenant text,
  source_address inet,
  content_type text,
  content_encoding text,
  path text,
  events bigint not null default 1,
  raw bytea,
  raw_bytes bigint not null default 0,
  position integer,
  batch_id bigint,
  event_id uuid,
  event_time timestamptz,
  target text,
  unique (stage, identity)
);
create index dead_letters_last_at_idx on log_writer.dead_letters (last_at desc);
comment on table log_writer.dead_letters is
  'Events that could not be decoded, stored or indexed, each with the reason; the same one again raises attempts.';
comment on column log_writer.dead_letters.stage is
  'decode: never became an event; store: PostgreSQL refused it; index: stands in application_logs, Elasticsearch refused it.';
comment on column log_writer.dead_letters.identity is
  'decode and store: request digest and position; index: time, id and tenant of the event.';
comment on column log_writer.dead_letters.reason is 'Short kind in snake_case, or Elasticsearch''s error type.';
comment on column log_writer.dead_letters.raw is 'As received, cut at database.dead_letter_bytes_max; null where the event stands in application_logs.';
comment on column log_writer.dead_letters.raw_bytes is 'Length before the cut.';
comment on column log_writer.dead_letters.position is 'Of the event in its request, from 0; null: the whole request.';

create table log_writer.books (
  worker text primary key,
  received bigint not null default 0,
  committed bigint not null default 0,
  duplicates bigint not null default 0,
  dead_lettered bigint not null default 0,
  mirrored bigint not null default 0,
  unmirrored bigint not null default 0,
  indexed bigint not null default 0,
  index_dead_lettered bigint not null default 0,
  expired bigint not null default 0,
  requeued bigint not null default 0,
  updated_at timestamptz not null default now()
) with (fillfactor = 50);
comment on table log_writer.books is
  'Counts of events, one row per worker, added to in the same transactions as what they count; only the sums mean something. '
  'received = committed + duplicates + dead_lettered; committed = mirrored + unmirrored; '
  'mirrored = indexed + index_dead_lettered + expired + sum(outbox.events).';
