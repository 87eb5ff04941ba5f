//! The column `fields`: every member that is no column, copied as sent, and our notes on what was changed.

use std::{borrow::Cow, sync::LazyLock};

use memchr::memmem::Finder;

use super::{
    aliases::NOTES,
    jsonb::write_json,
    scan::{Findings, Member, Members, Value},
    text::{unescape, write_string},
};

static FIND_NOTES: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NOTES));

/// A member as it is kept: its text with the name, and what was met in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept<'a> {
    /// The name between its quotes, escapes as sent.
    pub(super) key: &'a str,
    pub(super) whole: &'a str,
    pub(super) findings: Findings,
}

impl<'a> From<&Member<'a>> for Kept<'a> {
    fn from(member: &Member<'a>) -> Self {
        Self {
            key: member.key,
            whole: member.whole,
            findings: member.findings,
        }
    }
}

/// What is noted under `_log_writer`.
#[derive(Debug, Default)]
pub(super) struct Notes<'a> {
    /// The time as sent, where another one is stored.
    pub(super) timestamp: Option<Value<'a>>,
    /// Nanoseconds below the microsecond.
    pub(super) nanos: u16,
    /// The level as sent, where it is unknown.
    pub(super) level: Option<Value<'a>>,
    /// Columns that hold a part of their text only.
    pub(super) cut: Vec<&'static str>,
    /// A NUL or lone surrogate was replaced, here or in a column.
    pub(super) sanitized: bool,
    /// A `_log_writer` that the sender had.
    pub(super) received: Option<Value<'a>>,
}

/// The text of `fields`, growing.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    out: String,
    /// Bytes to begin with.
    expected: usize,
    depth_max: usize,
    sanitized: bool,
    /// The sender's own `fields` object, merged at the end.
    sent: Option<(Kept<'a>, &'a str)>,
    /// The same, where it can be stored as it stands and nothing else is in `out`.
    plain: Option<&'a str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(expected: usize, depth_max: usize) -> Self {
        Self {
            out: String::new(),
            expected,
            depth_max,
            sanitized: false,
            sent: None,
            plain: None,
        }
    }

    /// Keeps a member under its own name.
    pub(super) fn keep(&mut self, member: Kept<'_>) {
        self.separate();
        self.sanitized |= write_json(&mut self.out, member.whole, member.findings, self.depth_max);
    }

    /// Keeps JSON text that can be stored as it is, under a name with escapes as sent.
    pub(super) fn keep_text(&mut self, key: &str, json: &str) {
        self.separate();
        write_string(&mut self.out, &unescape(key, true).text);
        self.out.push(':');
        self.out.push_str(json);
    }

    /// Takes the sender's `fields` for merging; false if it has one already.
    pub(super) fn merge_later(&mut self, member: &Member<'a>) -> bool {
        let free = self.sent.is_none();
        if free {
            self.sent = Some((Kept::from(member), member.value.text));
        }
        free
    }

    fn separate(&mut self) {
        if let Some(open) = self.plain.take().and_then(|object| object.strip_suffix('}')) {
            self.out.push_str(open);
        }
        if self.out.is_empty() {
            self.out.reserve(self.expected);
            self.out.push('{');
        } else {
            self.out.push(',');
        }
    }

    /// Merges the sender's `fields`: its members become members, unless one of them has a name that is taken.
    fn merge(&mut self) {
        let Some((member, object)) = self.sent.take() else {
            return;
        };
        if self.out.is_empty() && self.is_plain(&member, object) {
            self.plain = Some(object);
            return;
        }
        if self.collides(object) {
            self.keep(member);
            return;
        }
        let Ok(mut members) = Members::of(object) else {
            return;
        };
        while let Ok(Some(member)) = members.next() {
            self.keep(Kept::from(&member));
        }
    }

    /// Whether an object that is not empty can be stored as it stands: all names are free, if ours is not among them.
    fn is_plain(&self, member: &Kept<'_>, object: &str) -> bool {
        let Findings {
            escaped,
            unsafe_text,
            wide_number,
            depth,
        } = member.findings;
        let named = object
            .get(1..)
            .is_some_and(|inside| inside.trim_ascii_start().starts_with('"'));
        // Without escapes no name is ours but as it is written.
        named
            && !(escaped || unsafe_text || wide_number || depth > self.depth_max)
            && FIND_NOTES.find(object.as_bytes()).is_none()
    }

    /// Sorted and searched, since a sender may send a million names.
    fn collides(&mut self, object: &str) -> bool {
        let mut taken = Vec::with_capacity(8);
        taken.push(Cow::Borrowed(NOTES));
        self.out.push('}');
        add_names(&mut taken, &self.out);
        taken.sort_unstable();
        let mut sent = Vec::with_capacity(8);
        add_names(&mut sent, object);
        let collides = sent.iter().any(|name| taken.binary_search(name).is_ok());
        drop(taken);
        self.out.pop();
        collides
    }

    /// Ends the object; an empty text if there is nothing in it.
    pub(super) fn finish(mut self, notes: &Notes<'_>, wrapper: Option<&str>) -> Cow<'a, str> {
        self.merge();
        self.write_notes(notes, wrapper);
        if let Some(object) = self.plain {
            return Cow::Borrowed(object);
        }
        if !self.out.is_empty() {
            self.out.push('}');
        }
        Cow::Owned(self.out)
    }

    fn write_notes(&mut self, notes: &Notes<'_>, wrapper: Option<&str>) {
        let mut out = String::new();
        let mut sanitized = self.sanitized | notes.sanitized;
        let wrapper = wrapper.and_then(|text| Value::read(text).ok());
        for (name, value) in [
            ("timestamp", &notes.timestamp),
            ("level", &notes.level),
            ("received", &notes.received),
            ("wrapper", &wrapper),
        ] {
            if let Some(value) = value {
                name_note(&mut out, name);
                sanitized |= write_json(&mut out, value.text, value.findings, self.depth_max);
            }
        }
        if notes.nanos != 0 {
            name_note(&mut out, "nanos");
            out.push_str(&notes.nanos.to_string());
        }
        if !notes.cut.is_empty() {
            name_note(&mut out, "cut");
            out.push_str("[\"");
            out.push_str(&notes.cut.join("\",\""));
            out.push_str("\"]");
        }
        if sanitized {
            name_note(&mut out, "sanitized");
            out.push_str("true");
        }
        if out.is_empty() {
            return;
        }
        self.separate();
        self.out.push('"');
        self.out.push_str(NOTES);
        self.out.push_str("\":");
        self.out.push_str(&out);
        self.out.push('}');
    }
}

fn name_note(out: &mut String, name: &str) {
    out.push(if out.is_empty() { '{' } else { ',' });
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
}

/// Adds the names of an object's members; none for what is no object, as a still empty `fields` is not.
fn add_names<'a>(names: &mut Vec<Cow<'a, str>>, object: &'a str) {
    let Ok(mut members) = Members::of(object) else {
        return;
    };
    while let Ok(Some(member)) = members.next() {
        names.push(unescape(member.key, member.key_escaped).text);
    }
}
