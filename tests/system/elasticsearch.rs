//! The module `elasticsearch` against a real Elasticsearch: templates, documents, verdicts, look-ups, credentials.
//!
//! The server is given by `TEST_ELASTICSEARCH_URL`, the secured one by `TEST_ELASTICSEARCH_SECURE_URL`,
//! `TEST_ELASTICSEARCH_SECURE_CA` (a file) and `TEST_ELASTICSEARCH_SECURE_PASSWORD` (of the user `elastic`). Each test
//! has a dataset of its own and removes what it made.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

#[path = "elasticsearch/bootstrap.rs"]
mod bootstrap;
#[path = "elasticsearch/copies.rs"]
mod copies;
#[path = "elasticsearch/documents.rs"]
mod documents;
#[path = "elasticsearch/node.rs"]
mod node;
#[path = "elasticsearch/security.rs"]
mod security;
