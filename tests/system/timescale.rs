//! The store against a real TimescaleDB, given by `TEST_DATABASE_URL`; each test in a database of its own.
#![expect(
    clippy::disallowed_methods,
    reason = "suites are given their servers by the environment"
)]
#![expect(
    clippy::expect_used,
    reason = "what the helpers of a test expect is part of the test"
)]

mod timescale_archive;
mod timescale_audit;
mod timescale_columnar;
mod timescale_commit;
mod timescale_database;
mod timescale_document;
mod timescale_duplicates;
mod timescale_encoding;
mod timescale_faults;
mod timescale_housekeeping;
mod timescale_late_bulks;
mod timescale_letters;
mod timescale_letters_kept;
mod timescale_migrations;
mod timescale_outbox;
mod timescale_plans;
mod timescale_poison;
mod timescale_questions;
mod timescale_roles;
mod timescale_search;
mod timescale_stats;
mod timescale_stats_kept;
mod timescale_tenants;
mod timescale_vanished;
