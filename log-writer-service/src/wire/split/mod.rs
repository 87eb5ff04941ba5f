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
    piece::{BadReason, Enough, Piece, Pieces, Taker},
    room::Room,
    scan::{skip_space, skip_value},
    stream::{TopArray, skip_separators, split_array, split_stream},
    text::split_lines,
};

/// What of the configuration shapes the cutting.
#[derive(Debug, Clone, Copy)]
pub struct SplitSettings<'s> {
    /// Names of an object member that holds the array of events.
    pub wrappers: &'s [String],
    /// Pieces at most; what is beyond becomes one [`BadReason::TooManyEvents`].
    pub events_max: usize,
}

/// A decompressed body and how its events stand in it.
#[derive(Debug)]
pub struct Framing<'a, 's> {
    body: &'a str,
    shape: Shape,
    settings: SplitSettings<'s>,
}

/// How events stand in a body.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// There are none.
    Empty,
    Lines,
    /// In the list of the wrapper object at this place.
    Wrapped(usize, WrappedList),
    /// As values from this place on.
    Values(usize, TopArray),
}

impl<'a, 's> Framing<'a, 's> {
    /// Finds out how a body is to be cut; reads no further than its first value where that is an object or array of objects.
    ///
    /// # Errors
    /// If the body was announced as JSON and nothing in it is.
    pub fn of(body: &'a str, content_type: Option<&str>, settings: SplitSettings<'s>) -> Result<Self, Undecodable> {
        let body = body.strip_prefix('\u{feff}').unwrap_or(body);
        let text = body.as_bytes();
        let at = skip_separators(text, 0);
        let declared = ContentType::of(content_type);
        let is_json = || match declared {
            ContentType::Json | ContentType::JsonLines => true,
            ContentType::Text => false,
            ContentType::Protobuf | ContentType::Avro | ContentType::Unknown => looks_like_json(text, at),
        };
        let is_lines = declared == ContentType::JsonLines;
        let shape = match text.get(at) {
            None => Shape::Empty,
            Some(_) if !is_json() => Shape::Lines,
            Some(b'{') => match wrapped_list(body, at, declared, settings.wrappers) {
                Some(list) => Shape::Wrapped(at, list),
                None => Shape::Values(at, TopArray::Event),
            },
            Some(b'[') if !is_lines || is_one_list_of_objects(text, at) => Shape::Values(at, TopArray::Events),
            Some(_) => Shape::Values(at, TopArray::Event),
        };
        let framing = Self { body, shape, settings };
        match (shape, text.get(at)) {
            (Shape::Values(..), Some(first)) if !matches!(first, b'{' | b'[') && !framing.has_event() => {
                Err(Undecodable::not_json())
            }
            _ => Ok(framing),
        }
    }

    /// What stands around the events of a body that is one wrapper object: its other members, as one JSON object.
    ///
    /// `None` for any other body, for a wrapper with nothing else in it, and where there is no room for them.
    pub fn around(&self, room: &mut Room<'_>) -> Option<String> {
        let Shape::Wrapped(at, list) = self.shape else {
            return None;
        };
        let bytes = self.body.len() - (list.end.unwrap_or(self.body.len()) - list.at);
        if !room(bytes) {
            return None;
        }
        other_members(self.body, at, self.settings.wrappers, bytes)
    }

    /// Cuts the body into events and what is none, and hands them on in their order; they borrow from it.
    ///
    /// Linear in the length of the body.
    pub fn split(&self, taker: &mut impl Taker<'a>) {
        let mut pieces = Pieces::new(self.body, self.settings.events_max, taker);
        // No error: the rest has become the last piece, or is not wanted.
        let _enough: Result<(), Enough> = match self.shape {
            Shape::Empty => Ok(()),
            Shape::Lines => split_lines(&mut pieces),
            Shape::Wrapped(_, list) => split_wrapped(&mut pieces, list),
            Shape::Values(at, top_array) => split_stream(&mut pieces, at, top_array),
        };
    }

    /// Whether anything in the body is an event.
    fn has_event(&self) -> bool {
        #[derive(Default)]
        struct Search {
            is_found: bool,
        }

        impl<'a> Taker<'a> for Search {
            fn read_object(&mut self, _text: &'a str) -> Result<Option<usize>, Enough> {
                Ok(None)
            }

            fn take_piece(&mut self, piece: Piece<'a>) -> Result<(), Enough> {
                self.is_found = matches!(piece, Piece::Event(_));
                if self.is_found { Err(Enough) } else { Ok(()) }
            }
        }

        let mut search = Search::default();
        self.split(&mut search);
        search.is_found
    }
}

/// The list of a body that is one wrapper object; other objects after it: each is an event.
fn wrapped_list(body: &str, at: usize, declared: ContentType, wrappers: &[String]) -> Option<WrappedList> {
    match find_wrapped_list(body, at, wrappers)? {
        (_, Some(end)) if skip_separators(body.as_bytes(), end) < body.len() => None,
        (_, None) if declared == ContentType::JsonLines => None,
        (list, _) => Some(list),
    }
}

fn split_wrapped(pieces: &mut Pieces<'_, '_>, list: WrappedList) -> Result<(), Enough> {
    let text = pieces.body().as_bytes();
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
