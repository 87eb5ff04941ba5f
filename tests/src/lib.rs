//! Support for the suites: real stores, the real binary, faults on demand, and what must hold after each test.
//!
//! In the order a test meets them: [`stack`] (a database and a data stream of its own) and [`roles`]
//! (a database whose service is not its owner), [`fake_elasticsearch`] and
//! [`proxy`] (faults), [`service`] (the binary as a child process), [`client`] (bytes as they are sent),
//! [`flood`] (many large bodies at once), [`recordings`] (a real Vector's requests) and [`expectation`] (what must be stored of them), [`conditions`]
//! (waiting), [`traffic`] (the others meanwhile), then [`rows`], [`search`] and [`invariants`] (what both stores hold). [`conservation`] puts all of it together,
//! [`backlog`] what is left to do after an outage, [`mod@bench`] how fast it is, [`process`] what that costs.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "support of tests: a broken expectation is a failed test, tasks end with it"
)]

pub mod backlog;
pub mod bench;
pub mod client;
pub mod conditions;
pub mod conservation;
pub mod expectation;
pub mod fake_elasticsearch;
pub mod flood;
pub mod invariants;
pub mod process;
pub mod proxy;
pub mod recordings;
pub mod roles;
pub mod rows;
pub mod search;
pub mod service;
pub mod stack;
pub mod traffic;
#[cfg(feature = "vector-programs")]
pub mod vector_programs;
