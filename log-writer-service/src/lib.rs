//! Log writer: batches of log events come in over HTTP, are committed to TimescaleDB, answered, and mirrored to
//! Elasticsearch.
//!
//! The modules in the order of an event's way (docs/ARCHITECTURE.md): [`http`] takes the request, [`wire`] cuts it into raw
//! events, [`event`] normalises them, [`ingest`] groups requests and commits them through [`timescale`], [`delivery`] reads
//! them back and hands them to [`elasticsearch`]. [`archive`] keeps as files what retention drops. [`ask`] answers questions about what is stored, [`verify`] compares both
//! stores. [`app`] puts the parts together.

pub mod app;
pub mod archive;
pub mod ask;
pub mod auth;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod elasticsearch;
pub mod event;
pub mod failpoint;
pub mod http;
pub mod ingest;
pub mod memory;
pub mod shutdown;
#[cfg(any(test, feature = "targets"))]
pub mod targets;
pub mod telemetry;
pub mod timescale;
pub mod verify;
pub mod wire;
