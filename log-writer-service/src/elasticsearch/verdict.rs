//! What an outcome means: the one table from Elasticsearch's status and error type to a [`Verdict`] or [`BulkFailure`].
//!
//! Pure. A verdict says what happened to one document; what to do about it is `delivery`'s. Reasons quote documents:
//! only [`Verdict::Reject`] has one, cut, for the dead letter and never for the log.

use std::sync::Arc;

use super::error::{BulkFailure, Refusal, cut};

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Written, into this index (of a stream: its backing index).
    Indexed {
        /// Name of the index.
        index: Arc<str>,
    },
    /// The id was there already.
    Duplicate {
        /// Name of the index.
        index: Arc<str>,
    },
    /// Not written now: overload, a block, a closed index. To be sent again.
    Retry {
        /// Status of the item.
        status: u16,
        /// Elasticsearch's `error.type`.
        error_type: String,
    },
    /// Will never be written as it is.
    Reject {
        /// Status of the item.
        status: u16,
        /// Elasticsearch's `error.type`.
        error_type: String,
        /// Elasticsearch's reason, at most 512 bytes; quotes the document.
        reason: String,
    },
    /// No template makes the target: to be sent again after `bootstrap`.
    MissingTemplate {
        /// Status of the item.
        status: u16,
        /// Elasticsearch's `error.type`.
        error_type: String,
    },
    /// The credentials may not write there.
    Forbidden {
        /// Status of the item.
        status: u16,
        /// Elasticsearch's `error.type`.
        error_type: String,
    },
}

/// One item of an answer.
#[derive(Debug, Default)]
pub(super) struct Outcome<'a> {
    pub(super) status: u16,
    /// Shared by all items that name it.
    pub(super) index: Arc<str>,
    pub(super) error_type: &'a str,
    pub(super) reason: &'a str,
    pub(super) failure_store: Option<&'a str>,
}

enum Class {
    Indexed,
    Duplicate,
    Retry,
    Reject,
    MissingTemplate,
    Forbidden,
}

/// The verdict for an item of a `create`.
pub(super) fn judge(outcome: Outcome<'_>) -> Verdict {
    // Stored under another id as a failed document: `errors` is false and the status 201 (8.19, 9.1).
    if outcome.failure_store == Some("used") {
        return Verdict::Reject {
            status: outcome.status,
            error_type: "failure_store_used".to_owned(),
            reason: cut(outcome.reason.to_owned()),
        };
    }
    let status = outcome.status;
    let error_type = || match outcome.error_type {
        "" => "unknown".to_owned(),
        name => name.to_owned(),
    };
    match classify(&outcome) {
        Class::Indexed => Verdict::Indexed { index: outcome.index },
        Class::Duplicate => Verdict::Duplicate { index: outcome.index },
        Class::Retry => Verdict::Retry {
            status,
            error_type: error_type(),
        },
        Class::Reject => Verdict::Reject {
            status,
            error_type: error_type(),
            reason: cut(outcome.reason.to_owned()),
        },
        Class::MissingTemplate => Verdict::MissingTemplate {
            status,
            error_type: error_type(),
        },
        Class::Forbidden => Verdict::Forbidden {
            status,
            error_type: error_type(),
        },
    }
}

/// The table.
fn classify(outcome: &Outcome<'_>) -> Class {
    match (outcome.status, outcome.error_type) {
        (200 | 201, _) => Class::Indexed,
        (409, "version_conflict_engine_exception") => Class::Duplicate,
        // Blocks are lifted by an operator or by Elasticsearch itself: read-only, write, flood stage, metadata.
        (_, "cluster_block_exception") => Class::Retry,
        (401 | 403, _) => Class::Forbidden,
        (404, "index_not_found_exception") => Class::MissingTemplate,
        // Closed by an operator who will open it; made by someone else in the same moment.
        (400, "index_closed_exception" | "resource_already_exists_exception") => Class::Retry,
        // The limit of shards a node: the index cannot be made until there is room.
        (400, "validation_exception") if is_shard_limit(outcome.reason) => Class::Retry,
        (400, _) => Class::Reject,
        // A single document over a limit, and the like.
        (402 | 405..=407 | 410..=428 | 430..=499, _) => Class::Reject,
        // 404 of a shard, 408, 409 of another type, 429, 5xx, and what no one has seen.
        _ => Class::Retry,
    }
}

fn is_shard_limit(reason: &str) -> bool {
    reason.contains("maximum") && reason.contains("shards open")
}

/// What a status other than 200 says of the whole request.
///
/// Only a 400 that Elasticsearch itself explains is taken for the documents' fault. A 404 or 405 of a wrong path or a
/// proxy, or a refused media type, would be the same for any document: sending halves would end in dead letters.
pub(super) fn judge_request(status: u16, refusal: Refusal) -> BulkFailure {
    let is_about_the_request = refusal.reason.contains("unrecognized parameter");
    match (status, refusal.error_type) {
        (413, _) => BulkFailure::TooLarge,
        (403, Some(name)) if name == "cluster_block_exception" => BulkFailure::Blocked,
        (401 | 403, name) => BulkFailure::Forbidden {
            status,
            error_type: name.unwrap_or_else(|| "unknown".to_owned()),
        },
        (400, Some(name)) if name == "media_type_header_exception" => BulkFailure::Busy { status },
        // A version that does not know `require_data_stream`.
        (400, Some(_)) if is_about_the_request => BulkFailure::Busy { status },
        (400, Some(error_type)) => BulkFailure::WholeRequest { status, error_type },
        _ => BulkFailure::Busy { status },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(status: u16, error_type: &str, reason: &str) -> &'static str {
        let outcome = Outcome {
            status,
            error_type,
            reason,
            ..Outcome::default()
        };
        match judge(outcome) {
            Verdict::Indexed { .. } => "indexed",
            Verdict::Duplicate { .. } => "duplicate",
            Verdict::Retry { .. } => "retry",
            Verdict::Reject { .. } => "reject",
            Verdict::MissingTemplate { .. } => "missing template",
            Verdict::Forbidden { .. } => "forbidden",
        }
    }

    #[test]
    fn every_known_outcome_of_an_item_has_its_verdict() {
        let shards = "Validation Failed: 1: this action would add [2] shards, but this cluster currently has \
                      [1000]/[1000] maximum normal shards open;";
        for (status, error_type, reason, expected) in [
            (201, "", "", "indexed"),
            (200, "", "", "indexed"),
            (409, "version_conflict_engine_exception", "", "duplicate"),
            (409, "something_else", "", "retry"),
            (429, "es_rejected_execution_exception", "", "retry"),
            (429, "circuit_breaking_exception", "", "retry"),
            (429, "cluster_block_exception", "", "retry"),
            (403, "cluster_block_exception", "", "retry"),
            (503, "unavailable_shards_exception", "", "retry"),
            (500, "node_closed_exception", "", "retry"),
            (502, "", "", "retry"),
            (408, "", "", "retry"),
            (404, "shard_not_found_exception", "", "retry"),
            (400, "index_closed_exception", "", "retry"),
            (400, "resource_already_exists_exception", "", "retry"),
            (400, "validation_exception", shards, "retry"),
            (
                400,
                "validation_exception",
                "Validation Failed: 1: something;",
                "reject",
            ),
            (400, "document_parsing_exception", "", "reject"),
            (400, "mapper_parsing_exception", "", "reject"),
            (400, "illegal_argument_exception", "", "reject"),
            (413, "", "", "reject"),
            (404, "index_not_found_exception", "", "missing template"),
            (403, "security_exception", "", "forbidden"),
            (401, "security_exception", "", "forbidden"),
        ] {
            assert_eq!(
                word(status, error_type, reason),
                expected,
                "{status} {error_type} {reason}"
            );
        }
    }

    #[test]
    fn a_201_from_the_failure_store_is_a_refusal() {
        let outcome = |failure_store| Outcome {
            status: 201,
            index: Arc::from(".fs-logs-app-default-2026.11.21-000002"),
            failure_store: Some(failure_store),
            ..Outcome::default()
        };
        assert!(matches!(judge(outcome("used")), Verdict::Reject { status: 201, .. }));
        assert!(matches!(judge(outcome("not_enabled")), Verdict::Indexed { .. }));
    }

    #[test]
    fn a_reason_is_cut() {
        let reason = "x".repeat(5000);
        let outcome = Outcome {
            status: 400,
            error_type: "document_parsing_exception",
            reason: &reason,
            ..Outcome::default()
        };
        assert!(matches!(judge(outcome), Verdict::Reject { reason, .. } if reason.len() == 512));
    }

    #[test]
    fn only_a_400_that_elasticsearch_explains_is_the_documents_fault() {
        let named = |name: &str| Some(name.to_owned());
        let cases = [
            (400, named("action_request_validation_exception"), "whole"),
            (400, None, "busy"),
            (400, named("media_type_header_exception"), "busy"),
            (404, named("index_not_found_exception"), "busy"),
            (406, None, "busy"),
            (302, None, "busy"),
            (408, None, "busy"),
            (429, named("es_rejected_execution_exception"), "busy"),
            (503, None, "busy"),
            (413, None, "too large"),
            (401, named("security_exception"), "forbidden"),
            (403, named("security_exception"), "forbidden"),
            (403, None, "forbidden"),
            (403, named("cluster_block_exception"), "blocked"),
        ];
        for (status, error_type, expected) in cases {
            let shown = format!("{status} {error_type:?}");
            let refusal = Refusal {
                error_type,
                reason: String::new(),
            };
            let word = match judge_request(status, refusal) {
                BulkFailure::TooLarge => "too large",
                BulkFailure::WholeRequest { .. } => "whole",
                BulkFailure::Busy { .. } => "busy",
                BulkFailure::Forbidden { .. } => "forbidden",
                BulkFailure::Blocked => "blocked",
                BulkFailure::Unreachable(_) | BulkFailure::Unanswered(_) | BulkFailure::Miscounted { .. } => "other",
            };
            assert_eq!(word, expected, "{shown}");
        }
    }

    #[test]
    fn a_parameter_that_the_version_does_not_know_is_not_the_documents_fault() {
        let body = br#"{"error":{"type":"illegal_argument_exception","reason":"request [/_bulk] contains unrecognized parameter: [require_data_stream]"},"status":400}"#;
        let failure = judge_request(400, super::super::error::read_refusal(body));
        assert_eq!(failure, BulkFailure::Busy { status: 400 });
    }
}
