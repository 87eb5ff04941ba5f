//! What can go wrong with Elasticsearch: [`SearchError`] for all requests but `_bulk`, [`BulkFailure`] for that.
//!
//! No text here holds a credential. The reason of a refusal stands in [`SearchError`] only, whose requests carry no
//! documents: Elasticsearch quotes them in its reasons.

use std::fmt::Write as _;

use serde::Deserialize;

/// Longest reason that is kept of an answer, in bytes.
pub(super) const REASON_BYTES_MAX: usize = 512;

/// A request other than `_bulk` that did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The section `[elasticsearch]` or a template file cannot be used.
    #[error("elasticsearch cannot be used as configured: {0}")]
    Settings(String),
    /// No node answered, or not in time.
    #[error("{request}: no answer from elasticsearch ({detail})")]
    Unanswered {
        /// Method and path.
        request: String,
        /// What the connection said.
        detail: String,
    },
    /// An error status.
    #[error("{request}: elasticsearch answered {status} {error_type}{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Refused {
        /// Method and path.
        request: String,
        /// HTTP status, or that of the one document concerned.
        status: u16,
        /// Elasticsearch's `error.type`; `unknown` if the answer was not Elasticsearch's.
        error_type: String,
        /// Elasticsearch's reason, cut; empty where it could quote a document.
        reason: String,
    },
    /// An answer that is otherwise whole, with an error in place of a document.
    #[error("{request}: elasticsearch withholds a document: {error_type}")]
    Withheld {
        /// Method and path.
        request: String,
        /// Elasticsearch's `error.type`.
        error_type: String,
    },
    /// A 2xx whose body is not what the API documents.
    #[error("{request}: the answer cannot be read: {detail}")]
    Unreadable {
        /// Method and path.
        request: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// What a caller does about a [`SearchError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchErrorKind {
    /// An operator has to change the configuration or a file.
    Settings,
    /// Passes by itself: no connection, overload.
    Unavailable,
    /// The index that was asked gives nothing now: a block, a shard that is away.
    Withheld,
    /// 401 or 403: an operator has to mend the credentials.
    Forbidden,
    /// 404 by Elasticsearch itself.
    Missing,
    /// Will be refused again.
    Refused,
    /// Not Elasticsearch's answer.
    Unreadable,
}

impl SearchError {
    /// The kind, by status and type.
    pub fn kind(&self) -> SearchErrorKind {
        match self {
            Self::Settings(_) => SearchErrorKind::Settings,
            Self::Unanswered { .. } => SearchErrorKind::Unavailable,
            Self::Unreadable { .. } => SearchErrorKind::Unreadable,
            Self::Withheld { error_type, .. } => match error_type.as_str() {
                "index_not_found_exception" => SearchErrorKind::Missing,
                "security_exception" => SearchErrorKind::Forbidden,
                _ => SearchErrorKind::Withheld,
            },
            Self::Refused { status, error_type, .. } => match *status {
                401 => SearchErrorKind::Forbidden,
                403 if error_type == "cluster_block_exception" => SearchErrorKind::Withheld,
                403 => SearchErrorKind::Forbidden,
                404 if error_type.ends_with("_not_found_exception") => SearchErrorKind::Missing,
                408 | 429 | 500..=599 => SearchErrorKind::Unavailable,
                _ => SearchErrorKind::Refused,
            },
        }
    }
}

/// A `_bulk` that brought no verdicts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BulkFailure {
    /// 413: nothing was indexed; to be sent in parts. The limit counts the bytes before compression.
    #[error("bulk refused: 413, too large")]
    TooLarge,
    /// 400 for the request as a whole: nothing was indexed; to be sent in halves until the culprit stands alone.
    #[error("bulk refused as a whole: {status} {error_type}")]
    WholeRequest {
        /// HTTP status.
        status: u16,
        /// Elasticsearch's `error.type`.
        error_type: String,
    },
    /// 408, 429, 5xx, or any status that is not about the documents: to be sent again later.
    #[error("bulk not taken now: {status}")]
    Busy {
        /// HTTP status.
        status: u16,
    },
    /// No node took a connection: nothing was sent.
    #[error("bulk not sent: {0}")]
    Unreachable(String),
    /// No answer, or none that can be read: the documents may have been indexed.
    #[error("bulk not answered: {0}")]
    Unanswered(String),
    /// 401, or 403 for want of a privilege: an operator has to mend the credentials.
    #[error("bulk forbidden: {status} {error_type}")]
    Forbidden {
        /// HTTP status.
        status: u16,
        /// Elasticsearch's `error.type`.
        error_type: String,
    },
    /// Another number of items than documents: which is whose cannot be known.
    #[error("bulk of {sent} documents answered with {answered} items")]
    Miscounted {
        /// Documents in the request.
        sent: usize,
        /// Items in the answer.
        answered: usize,
    },
    /// 403 by a block of the cluster (read-only): to be sent again when it is lifted.
    #[error("bulk blocked: the cluster is read-only")]
    Blocked,
}

impl BulkFailure {
    /// Whether what was sent may still be applied: whoever answered, if anybody did, cannot say.
    pub(crate) fn may_come_late(&self) -> bool {
        match self {
            Self::Unanswered(_) | Self::Miscounted { .. } => true,
            Self::Busy { status } => *status != 429,
            Self::TooLarge
            | Self::WholeRequest { .. }
            | Self::Unreachable(_)
            | Self::Forbidden { .. }
            | Self::Blocked => false,
        }
    }

    /// No verdicts, and nothing said of the documents: the connection broke, or the node.
    pub(crate) fn is_unexplained(&self) -> bool {
        matches!(
            self,
            Self::Unanswered(_) | Self::Miscounted { .. } | Self::Busy { status: 500..=599 }
        )
    }
}

/// The body of an answer with an error status.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// `error.type`; `None` if the body is not Elasticsearch's.
    pub(super) error_type: Option<String>,
    /// `error.reason` and the innermost cause's, cut.
    pub(super) reason: String,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: Cause,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Cause {
    Named {
        #[serde(rename = "type")]
        error_type: String,
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        caused_by: Option<Box<Cause>>,
    },
    Text(String),
}

/// Reads the body of an error status.
pub(super) fn read_refusal(body: &[u8]) -> Refusal {
    let Ok(ErrorBody { error }) = serde_json::from_slice(body) else {
        return Refusal::default();
    };
    match error {
        Cause::Text(reason) => Refusal {
            error_type: None,
            reason: cut(reason),
        },
        Cause::Named {
            error_type,
            reason,
            caused_by,
        } => {
            let mut text = reason.unwrap_or_default();
            let mut inner = caused_by;
            let mut innermost = None;
            while let Some(cause) = inner {
                match *cause {
                    Cause::Named { reason, caused_by, .. } => {
                        innermost = reason.or(innermost);
                        inner = caused_by;
                    }
                    Cause::Text(reason) => {
                        innermost = Some(reason);
                        inner = None;
                    }
                }
            }
            if let Some(cause) = innermost.filter(|cause| !text.contains(cause.as_str())) {
                let _infallible = write!(text, " ({cause})");
            }
            Refusal {
                error_type: Some(error_type),
                reason: cut(text),
            }
        }
    }
}

/// Cuts a text at [`REASON_BYTES_MAX`], between characters.
pub(super) fn cut(mut text: String) -> String {
    if text.len() > REASON_BYTES_MAX {
        text.truncate(text.floor_char_boundary(REASON_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_innermost_cause() {
        let body = br#"{"error":{"type":"illegal_argument_exception","reason":"outer","caused_by":{"type":"a","reason":"middle","caused_by":{"type":"b","reason":"inner"}}},"status":400}"#;
        let refusal = read_refusal(body);
        assert_eq!(refusal.error_type.as_deref(), Some("illegal_argument_exception"));
        assert_eq!(refusal.reason, "outer (inner)");
    }

    #[test]
    fn an_error_that_is_a_text_or_no_json_has_no_type() {
        let text = read_refusal(br#"{"error":"Content-Type header [text/plain] is not supported","status":406}"#);
        assert_eq!(text.error_type, None);
        assert!(text.reason.starts_with("Content-Type"));
        assert_eq!(read_refusal(b"<html>Bad gateway</html>"), Refusal::default());
    }

    #[test]
    fn a_reason_is_cut_between_characters() {
        let text = cut("\u{e4}".repeat(400));
        assert_eq!(text.len(), REASON_BYTES_MAX);
        assert_eq!(cut("x\u{1f600}".repeat(300)).len(), 511);
    }

    #[test]
    fn a_404_that_is_not_from_elasticsearch_is_not_absence() {
        let refused = |status, error_type: &str| SearchError::Refused {
            request: "GET x".to_owned(),
            status,
            error_type: error_type.to_owned(),
            reason: String::new(),
        };
        assert_eq!(refused(404, "unknown").kind(), SearchErrorKind::Refused);
        assert_eq!(
            refused(404, "index_not_found_exception").kind(),
            SearchErrorKind::Missing
        );
        assert_eq!(
            refused(403, "cluster_block_exception").kind(),
            SearchErrorKind::Withheld
        );
        assert_eq!(refused(403, "security_exception").kind(), SearchErrorKind::Forbidden);
    }
}
