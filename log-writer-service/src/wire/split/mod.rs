//! Decides what shape a body has and cuts it into pieces.
//!
//! | content type | body | events |
//! | --- | --- | --- |
//! | JSON, or none | begins with `[` | the elements of the array, and of arrays after it |
//! | JSON, NDJSON, or none | begins with `{` | the values, separated by white space, `,`, `;`, NUL, another single character, or nothing |
//! | NDJSON | begins with `[` | as above: a line that is an array is one event; but one array of objects alone is a list |
//! | JSON, NDJSON | begins with another value | as above |
//! | JSON, NDJSON, or none | is one wrapper object | the elements of its array |
//! | `text/*`, or none and no JSON | any | the lines |
//!
//! An object in an envelope of `native_json` is taken out of it. A body that was announced as JSON, begins with
//! neither `{` nor `[`, and holds no event at all, is undecodable.

use super::{
    binary::Undecodable,
    content_type::ContentType,
    envelope::{WrappedList, find_wrapped_list, other_members},
    piece::{BadReason, Full, Piece, Pieces},
    room::Room,
    scan::{skip_space, skip_value},
    stream::{TopArray, skip_separators, split_array, split_stream},
    text::split_lines,
};

/// What of the configuration shapes the cutting.
#[derive(Debug, Clone, Copy)]
pub struct SplitSettings<'a> {
    /// Names of an object member that holds the array of events.
    pub wrappers: &'a [String],
    /// Pieces at most; what is beyond becomes one [`BadReason::TooManyEvents`].
    pub events_max: usize,
}

/// Why a body was not cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitError {
    /// It is none of the formats that are read here.
    Undecodable(Undecodable),
    /// The room for the list of events was refused.
    NoRoom,
}

/// Cuts a decompressed body into events and what is none, in their order.
///
/// Linear in the length of the body; borrows from it.
///
/// # Errors
/// If the body was announced as JSON and nothing in it is, or if there is no room for the list.
pub fn split<'a>(
    body: &'a str,
    content_type: Option<&str>,
    settings: &SplitSettings<'_>,
    room: &mut Room<'_>,
) -> Result<Vec<Piece<'a>>, SplitError> {
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    let text = body.as_bytes();
    let at = skip_separators(text, 0);
    let Some(first) = text.get(at) else {
        return Ok(Vec::new());
    };
    let declared = ContentType::of(content_type);
    let is_json = match declared {
        ContentType::Json | ContentType::JsonLines => true,
        ContentType::Text => false,
        ContentType::Protobuf | ContentType::Avro | ContentType::Unknown => looks_like_json(text, at),
    };
    let mut pieces = Pieces::new(body, settings.events_max, room);
    // Full is no error: the rest has become the last piece.
    let _full: Result<(), Full> = if is_json {
        split_json(&mut pieces, at, declared, settings.wrappers)
    } else {
        split_lines(&mut pieces)
    };
    let pieces = pieces.into_list().ok_or(SplitError::NoRoom)?;
    let is_event = |piece: &Piece<'_>| matches!(piece, Piece::Event(_));
    if is_json && !matches!(first, b'{' | b'[') && !pieces.iter().any(is_event) {
        return Err(SplitError::Undecodable(Undecodable::not_json()));
    }
    Ok(pieces)
}

/// What stands around the events of a body that is one wrapper object: its other members, as one JSON object.
///
/// `None` for any other body, and for a wrapper with nothing else in it. Reads no further than the first object.
pub fn around(body: &str, content_type: Option<&str>, settings: &SplitSettings<'_>) -> Option<String> {
    let body = body.strip_prefix('\u{feff}').unwrap_or(body);
    let text = body.as_bytes();
    let at = skip_separators(text, 0);
    let declared = ContentType::of(content_type);
    if text.get(at) != Some(&b'{') || declared == ContentType::Text {
        return None;
    }
    wrapped_list(body, at, declared, settings.wrappers)?;
    other_members(body, at, settings.wrappers)
}

/// The list of a body that is one wrapper object; other objects after it: each is an event.
fn wrapped_list(body: &str, at: usize, declared: ContentType, wrappers: &[String]) -> Option<WrappedList> {
    match find_wrapped_list(body, at, wrappers)? {
        (_, Some(end)) if skip_separators(body.as_bytes(), end) < body.len() => None,
        (_, None) if declared == ContentType::JsonLines => None,
        (list, _) => Some(list),
    }
}

fn split_json(pieces: &mut Pieces<'_, '_>, at: usize, declared: ContentType, wrappers: &[String]) -> Result<(), Full> {
    let text = pieces.body().as_bytes();
    match text.get(at) {
        Some(b'{') => match wrapped_list(pieces.body(), at, declared, wrappers) {
            Some(list) => {
                let end = split_array(pieces, list.at)?;
                // An unclosed wrapper with nothing after its list has lost nothing.
                let tail = skip_separators(text, end);
                let is_known = list.end.is_some_and(|list_end| end >= list_end);
                if is_known || tail >= text.len() {
                    Ok(())
                } else {
                    pieces.push_bad(tail, text.len(), BadReason::RestAfterError)
                }
            }
            None => split_stream(pieces, at, TopArray::Event),
        },
        Some(b'[') if declared != ContentType::JsonLines || is_one_list_of_objects(text, at) => {
            split_stream(pieces, at, TopArray::Events)
        }
        _ => split_stream(pieces, at, TopArray::Event),
    }
}

/// Whether undeclared text is JSON; `[` and `{` begin lines of logs, too.
fn looks_like_json(text: &[u8], at: usize) -> bool {
    let inner_at = skip_space(text, at + 1);
    match (text.get(at), text.get(inner_at)) {
        (Some(b'{'), None | Some(b'"' | b'}')) => true,
        (Some(b'['), Some(b'{')) => looks_like_json(text, inner_at),
        // `["a"]` is an array, `[12] disk full` is text.
        (Some(b'['), _) => skip_value(text, at).is_ok_and(|end| {
            let next = text.get(skip_separators(text, end));
            matches!(next, None | Some(b'{' | b'['))
        }),
        _ => false,
    }
}

/// Whether the body from `at` on is one array, of objects: a list sent as NDJSON by mistake.
fn is_one_list_of_objects(text: &[u8], at: usize) -> bool {
    text.get(skip_space(text, at + 1)) == Some(&b'{')
        && skip_value(text, at).is_ok_and(|end| skip_separators(text, end) == text.len())
}

#[cfg(test)]
mod tests;
