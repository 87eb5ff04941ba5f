//! The copy of the events in Elasticsearch: the only module that knows its HTTP API.
//!
//! Promises: every document sent gets exactly one [`Verdict`] or the whole request one [`BulkFailure`]; nothing that
//! is not ours is changed; secrets and document texts stand in no error that is logged.
//!
//! In reading order: [`Targets`] names where an event goes, [`DocumentWriter`] makes its document, [`BulkBody`]
//! gathers documents, [`Client`] sends them, `bulk_response` and `verdict` judge the answer, `lookup` finds and repairs
//! copies, [`bootstrap`] applies policy and templates. What to do about a verdict is `delivery`'s.

mod bootstrap;
mod bulk_request;
mod bulk_response;
mod census;
mod client;
mod compare;
mod document;
mod document_id;
mod error;
mod json;
mod lookup;
mod node;
mod objects;
mod promoted;
mod search;
mod shape;
mod simulate;
mod target;
#[cfg(test)]
mod test_settings;
mod verdict;

pub use bootstrap::{BootstrapMode, BootstrapReport, ObjectReport, ObjectState, bootstrap};
pub use bulk_request::BulkBody;
#[cfg(any(test, feature = "targets"))]
pub(crate) use bulk_response::read_answer;
pub use census::{FoundDocument, Range, SummedBucket};
pub use client::{Client, ClusterInfo};
pub use document::DocumentWriter;
pub use document_id::{DocumentId, document_id};
pub use error::{BulkFailure, SearchError, SearchErrorKind};
pub use lookup::{StoredCopy, Version};
pub use objects::ObjectKind;
pub use search::FoundEvent;
pub use simulate::Simulated;
pub(crate) use target::RequestTargets;
pub use target::Targets;
pub use verdict::Verdict;
