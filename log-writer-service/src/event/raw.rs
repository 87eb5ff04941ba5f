//! One event as `wire` cut it out of a body, before anything is known of its meaning.

use std::borrow::Cow;

/// One event of a body, not yet interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawEvent<'a> {
    /// The text of one JSON object, syntactically valid, white space and escapes as the sender wrote them.
    Object(&'a str),
    /// A line of text, without its line end.
    Text(Cow<'a, str>),
    /// Any other JSON value (string with its quotes and escapes, number, boolean, null, array) as the sender wrote it.
    Value(&'a str),
}

impl RawEvent<'_> {
    /// Its text as it came.
    pub fn text(&self) -> &str {
        match self {
            Self::Object(text) | Self::Value(text) => text,
            Self::Text(text) => text,
        }
    }
}
