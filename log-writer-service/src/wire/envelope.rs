//! What a sender puts around its events: `{"log":{…}}` around each, `{"data":[…]}` around all.

use super::scan::{skip_broken_value, skip_name, skip_space, skip_string, skip_value};

/// What `native_json` puts around an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Envelope<'a> {
    /// `{"log":{…}}`, with the inner object.
    Log(&'a str),
    /// `{"metric":{…}}`.
    Metric,
    /// `{"trace":{…}}`.
    Trace,
}

/// What the member of an envelope says it to be.
#[derive(Clone, Copy)]
enum Kind {
    Log,
    Metric,
    Trace,
}

/// Whether the object that `text` begins with may be in an envelope.
pub(super) fn may_be_enveloped(text: &str) -> bool {
    head(text).is_some()
}

/// Opens the valid JSON value `raw` if it is an object with just that one member, itself an object.
pub(super) fn open(raw: &str) -> Option<Envelope<'_>> {
    let (kind, inner_at) = head(raw)?;
    let text = raw.as_bytes();
    let inner_end = skip_value(text, inner_at).ok()?;
    if skip_space(text, inner_end) + 1 != text.len() {
        return None;
    }
    match kind {
        Kind::Log => Some(Envelope::Log(raw.get(inner_at..inner_end)?)),
        Kind::Metric => Some(Envelope::Metric),
        Kind::Trace => Some(Envelope::Trace),
    }
}

/// What an envelope's member is called, and where the object begins that it holds.
fn head(text: &str) -> Option<(Kind, usize)> {
    let text = text.as_bytes();
    let name_at = skip_space(text, 1);
    let rest = text.get(name_at..)?;
    // Nearly all events leave here.
    let kind = if text.first() != Some(&b'{') {
        return None;
    } else if rest.starts_with(b"\"log\"") {
        Kind::Log
    } else if rest.starts_with(b"\"metric\"") {
        Kind::Metric
    } else if rest.starts_with(b"\"trace\"") {
        Kind::Trace
    } else {
        return None;
    };
    let inner_at = skip_name(text, name_at).ok()?;
    (text.get(inner_at) == Some(&b'{')).then_some((kind, inner_at))
}

/// Members that show an object to be an event of its own, whatever arrays it carries.
const EVENT_MEMBERS: [&str; 17] = [
    "message",
    "msg",
    "log",
    "body",
    "short_message",
    "full_message",
    "event",
    "@timestamp",
    "timestamp",
    "time",
    "ts",
    "datetime",
    "level",
    "severity",
    "severity_text",
    "lvl",
    "log.level",
];

/// The array of events in a wrapper object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrappedList {
    /// Just after its opening bracket.
    pub(super) at: usize,
    /// Just after its closing bracket, if that can be told.
    pub(super) end: Option<usize>,
}

/// The array of events if the object at `at` wraps one: a member named in `wrappers`.
///
/// The other members belong to no event: they are what `payload_prefix` adds, see [`other_members`]. An object that has one of an event's own members is an event; so is one that has an array of numbers
/// among other members. The caller sees to it that nothing follows the object.
pub(super) fn find_wrapped_list(body: &str, at: usize, wrappers: &[String]) -> Option<(WrappedList, Option<usize>)> {
    let text = body.as_bytes();
    let mut found: Option<WrappedList> = None;
    let mut members = 0_usize;
    let mut at = skip_space(text, at + 1);
    let end = loop {
        let (Ok(name_end), Ok(value_at)) = (skip_string_at(text, at), skip_name(text, at)) else {
            break None;
        };
        let name = body.get(at + 1..name_end - 1)?;
        members += 1;
        let is_array = text.get(value_at) == Some(&b'[');
        let value_end = skip_value(text, value_at)
            .ok()
            .or_else(|| skip_broken_value(text, value_at));
        if found.is_none() && is_array && wrappers.iter().any(|wrapper| wrapper == name) {
            found = Some(WrappedList {
                at: value_at + 1,
                end: value_end,
            });
        } else if EVENT_MEMBERS.contains(&name) {
            return None;
        }
        let Some(value_end) = value_end else { break None };
        at = skip_space(text, value_end);
        match text.get(at) {
            Some(b',') => at = skip_space(text, at + 1),
            Some(b'}') => break Some(at + 1),
            _ => break None,
        }
    };
    let list = found?;
    let first = text.get(skip_space(text, list.at));
    let holds_events = matches!(first, None | Some(b'{' | b'"' | b']'));
    (members == 1 || holds_events).then_some((list, end))
}

/// The members of the wrapper object at `at` but its list, as one JSON object; `None` if there are none.
///
/// It is no longer than `bytes_max`, which is taken at once. What follows a syntax error is left out: it is a dead letter already.
pub(super) fn other_members(body: &str, at: usize, wrappers: &[String], bytes_max: usize) -> Option<String> {
    let text = body.as_bytes();
    let mut others = String::with_capacity(bytes_max);
    let mut has_list = false;
    let mut at = skip_space(text, at + 1);
    while let (Ok(name_end), Ok(value_at)) = (skip_string_at(text, at), skip_name(text, at)) {
        let name = body.get(at + 1..name_end - 1)?;
        let is_list = !has_list && text.get(value_at) == Some(&b'[') && wrappers.iter().any(|wrapper| wrapper == name);
        let value_end = skip_value(text, value_at);
        if is_list {
            has_list = true;
        } else if let Ok(value_end) = value_end {
            others.push(if others.is_empty() { '{' } else { ',' });
            others.push_str(body.get(at..value_end)?);
        }
        let Some(value_end) = value_end.ok().or_else(|| skip_broken_value(text, value_at)) else {
            break;
        };
        at = skip_space(text, value_end);
        if text.get(at) != Some(&b',') {
            break;
        }
        at = skip_space(text, at + 1);
    }
    if others.is_empty() {
        return None;
    }
    others.push('}');
    Some(others)
}

fn skip_string_at(text: &[u8], at: usize) -> Result<usize, super::scan::SyntaxError> {
    skip_name(text, at)?;
    skip_string(text, at)
}
