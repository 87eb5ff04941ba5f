//! Cuts JSON objects and arrays into their parts, and says of each value what must be known before its text may be
//! copied as it stands. One walk (`cursor`) does both.

use super::cursor::Cursor;

/// The text is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Broken;

/// What sort of value a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// What was met while walking over a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// A backslash in a string.
    pub(super) escaped: bool,
    /// `\u0000` or half a surrogate pair: `jsonb` refuses both.
    pub(super) unsafe_text: bool,
    /// A number with more than 300 digits, written out: perhaps too much for a double or `numeric`.
    pub(super) wide_number: bool,
    /// Containers within one another; 0 for a scalar.
    pub(super) depth: usize,
}

/// One value: its text without blanks around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) text: &'a str,
    pub(super) kind: Kind,
    pub(super) findings: Findings,
}

/// One member of an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member<'a> {
    /// The name between its quotes, escapes as sent.
    pub(super) key: &'a str,
    /// Whether `key` has escapes.
    pub(super) key_escaped: bool,
    /// From the name's opening quote to the end of the value.
    pub(super) whole: &'a str,
    /// What was met in `whole`.
    pub(super) findings: Findings,
    pub(super) value: Value<'a>,
}

impl<'a> Value<'a> {
    /// Reads a text that is one value, blanks around it allowed.
    pub(super) fn read(text: &'a str) -> Result<Self, Broken> {
        let mut cursor = Cursor::new(text);
        cursor.skip_blanks();
        let value = cursor.value()?;
        cursor.end()?;
        Ok(value)
    }

    /// The text between the quotes, if this is a string.
    pub(super) fn inner(&self) -> Option<&'a str> {
        match self.kind {
            Kind::String => self.text.get(1..self.text.len().checked_sub(1)?),
            Kind::Null | Kind::Bool | Kind::Number | Kind::Array | Kind::Object => None,
        }
    }
}

/// The members of one object, in the order sent.
#[derive(Debug)]
pub(super) struct Members<'a> {
    parts: Parts<'a>,
}

impl<'a> Members<'a> {
    /// Starts at an object's text.
    pub(super) fn of(text: &'a str) -> Result<Self, Broken> {
        Ok(Self {
            parts: Parts::open(text, (b'{', b'}'), true)?,
        })
    }

    /// Starts at the object that a text begins with; anything may follow it.
    pub(super) fn of_first(text: &'a str) -> Result<Self, Broken> {
        Ok(Self {
            parts: Parts::open(text, (b'{', b'}'), false)?,
        })
    }

    /// Bytes passed so far.
    pub(super) fn at(&self) -> usize {
        self.parts.cursor.at()
    }

    /// The next member; `None` after the last.
    // Else each member is copied out of its `Result` just after it was written in smaller pieces, for which a processor waits.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Option<Member<'a>>, Broken> {
        if !self.parts.advance()? {
            return Ok(None);
        }
        let cursor = &mut self.parts.cursor;
        let start = cursor.at();
        let mut findings = Findings::default();
        let key = cursor.key(&mut findings)?;
        let key_escaped = findings.escaped;
        let value = cursor.value()?;
        findings.escaped |= value.findings.escaped;
        findings.unsafe_text |= value.findings.unsafe_text;
        findings.wide_number = value.findings.wide_number;
        findings.depth = value.findings.depth;
        Ok(Some(Member {
            key,
            key_escaped,
            whole: cursor.since(start)?,
            findings,
            value,
        }))
    }
}

/// The elements of one array, in the order sent.
#[derive(Debug)]
pub(super) struct Elements<'a> {
    parts: Parts<'a>,
}

impl<'a> Elements<'a> {
    /// Starts at an array's text.
    pub(super) fn of(text: &'a str) -> Result<Self, Broken> {
        Ok(Self {
            parts: Parts::open(text, (b'[', b']'), true)?,
        })
    }

    /// The next element; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Value<'a>>, Broken> {
        if self.parts.advance()? {
            self.parts.cursor.value().map(Some)
        } else {
            Ok(None)
        }
    }
}

/// What members and elements have in common: brackets and commas.
#[derive(Debug)]
struct Parts<'a> {
    cursor: Cursor<'a>,
    close: u8,
    started: bool,
    /// Whether nothing but blanks may follow.
    is_alone: bool,
}

impl<'a> Parts<'a> {
    fn open(text: &'a str, (open, close): (u8, u8), is_alone: bool) -> Result<Self, Broken> {
        let mut cursor = Cursor::new(text);
        cursor.skip_blanks();
        cursor.expect(open)?;
        Ok(Self {
            cursor,
            close,
            started: false,
            is_alone,
        })
    }

    /// Goes to the next part; false at the end.
    #[inline]
    fn advance(&mut self) -> Result<bool, Broken> {
        self.cursor.skip_blanks();
        if self.cursor.peek() == Some(self.close) {
            self.cursor.pass();
            if self.is_alone {
                self.cursor.end()?;
            }
            return Ok(false);
        }
        if self.started {
            self.cursor.expect(b',')?;
            self.cursor.skip_blanks();
        }
        self.started = true;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn findings(text: &str) -> Findings {
        Value::read(text).unwrap().findings
    }

    #[test]
    fn an_object_is_cut_into_its_members_as_sent() {
        let mut members = Members::of(" { \"a\" : 1 ,\n\"b.c\":{\"d\":[1,2]}, \"e\\n\":\"x\\\"y\"} ").unwrap();
        let mut seen = Vec::new();
        while let Some(member) = members.next().unwrap() {
            seen.push((member.key, member.value.text, member.whole, member.key_escaped));
        }
        assert_eq!(
            seen,
            [
                ("a", "1", "\"a\" : 1", false),
                ("b.c", "{\"d\":[1,2]}", "\"b.c\":{\"d\":[1,2]}", false),
                ("e\\n", "\"x\\\"y\"", "\"e\\n\":\"x\\\"y\"", true)
            ]
        );
    }

    #[test]
    fn hazards_are_found_wherever_they_stand() {
        assert!(findings(r#"{"a":["\u0000"]}"#).unsafe_text);
        assert!(findings(r#"{"\ud800":1}"#).unsafe_text);
        assert!(findings(r#""\udc00""#).unsafe_text);
        assert!(findings(r#""\ud83d\n""#).unsafe_text);
        assert!(!findings(r#""\ud83d\ude00 \u0001 \\u0000""#).unsafe_text);
        assert!(findings("[1e400]").wide_number);
        assert!(findings("-0.1E-999999999999999999999999").wide_number);
        assert!(!findings("[1e200,12345678901234567890]").wide_number);
        assert_eq!(findings("1").depth, 0);
        assert_eq!(findings(r#"{"a":[{}],"b":{}}"#).depth, 3);
    }

    #[test]
    fn a_hundred_thousand_brackets_are_counted_not_recursed_into() {
        let text = format!("{}{}", "[{\"a\":".repeat(50_000), "1") + &"}]".repeat(50_000);
        assert_eq!(findings(&text).depth, 100_000);
        assert_eq!(Value::read(&"[".repeat(100_000)).unwrap_err(), Broken);
    }

    #[test]
    fn broken_texts_are_refused() {
        for text in [
            "",
            "{",
            "}",
            "{]",
            "[}",
            "[1,]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "tru",
            "nul",
            "\"",
            "\"\u{1}\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "[1 2]",
            "1 2",
            "{\"a\":1}}",
            "[[1]",
            "[{\"a\":1]}",
        ] {
            assert!(Value::read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_accepts_exactly_what_serde_json_accepts(text in r#"[\[\]{}:,"\\ua0-9eE.\-+ntrsl \x01é]{0,24}"#) {
            let theirs = serde_json::from_str::<&RawValue>(&text);
            let ours = Value::read(&text);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok());
            if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
                prop_assert_eq!(ours.text, theirs.get());
            }
        }
    }
}
