//! The walk over JSON text: checks its syntax and notes what may hurt a store.
//!
//! It never recurses and looks at no byte twice, so neither broken text nor a hundred thousand brackets hurt.

use super::{
    plain::plain_run,
    scan::{Broken, Findings, Kind, Value},
};

/// A place in a JSON text.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Bytes passed so far.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Passes one byte, which must be ASCII.
    pub(super) fn pass(&mut self) {
        self.at += 1;
    }

    #[inline]
    pub(super) fn skip_blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Broken> {
        if self.peek() != Some(byte) {
            return Err(Broken);
        }
        self.at += 1;
        Ok(())
    }

    /// Nothing but blanks may follow.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        self.skip_blanks();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(Broken)
        }
    }

    #[inline]
    pub(super) fn since(&self, start: usize) -> Result<&'a str, Broken> {
        self.text.get(start..self.at).ok_or(Broken)
    }

    /// A member's name, its colon and the blanks before the value.
    #[inline]
    pub(super) fn key(&mut self, findings: &mut Findings) -> Result<&'a str, Broken> {
        let key = self.string(findings)?;
        self.skip_blanks();
        self.expect(b':')?;
        self.skip_blanks();
        Ok(key)
    }

    /// A string; the text between its quotes.
    pub(super) fn string(&mut self, findings: &mut Findings) -> Result<&'a str, Broken> {
        self.expect(b'"')?;
        let start = self.at;
        let bytes = self.text.as_bytes();
        loop {
            let end = self.at + plain_run(bytes.get(self.at..).ok_or(Broken)?);
            self.at = end;
            match bytes.get(end) {
                Some(b'"') => {
                    self.at = end + 1;
                    return self.text.get(start..end).ok_or(Broken);
                }
                Some(b'\\') => self.escape(findings)?,
                _ => return Err(Broken),
            }
        }
    }

    fn escape(&mut self, findings: &mut Findings) -> Result<(), Broken> {
        findings.escaped = true;
        let bytes = self.text.as_bytes();
        match bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = hex_unit(bytes.get(self.at + 2..)).ok_or(Broken)?;
                self.at += 6;
                match unit {
                    0 | 0xDC00..=0xDFFF => findings.unsafe_text = true,
                    0xD800..=0xDBFF => match low_surrogate(bytes.get(self.at..)) {
                        Some(_) => self.at += 6,
                        None => findings.unsafe_text = true,
                    },
                    _ => {}
                }
            }
            _ => return Err(Broken),
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// A number's text.
    pub(super) fn number(&mut self, findings: &mut Findings) -> Result<&'a str, Broken> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let mut size = self.digits();
        if size == 0 || (leading_zero && size > 1) {
            return Err(Broken);
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            let fraction = self.digits();
            if fraction == 0 {
                return Err(Broken);
            }
            size += fraction;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            let exponent = self.at;
            if self.digits() == 0 {
                return Err(Broken);
            }
            size = size.saturating_add(self.since(exponent)?.parse().unwrap_or(usize::MAX));
        }
        findings.wide_number |= size > 300;
        self.since(start)
    }

    fn literal(&mut self, word: &str) -> Result<(), Broken> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(Broken);
        }
        self.at += word.len();
        Ok(())
    }

    /// One value, from its first byte to its last.
    #[inline(always)]
    pub(super) fn value(&mut self) -> Result<Value<'a>, Broken> {
        let start = self.at;
        let kind = match self.peek().ok_or(Broken)? {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            b'"' => Kind::String,
            b't' | b'f' => Kind::Bool,
            b'n' => Kind::Null,
            _ => Kind::Number,
        };
        let mut findings = Findings::default();
        match kind {
            Kind::Object | Kind::Array => self.container(&mut findings)?,
            Kind::Null | Kind::Bool | Kind::Number | Kind::String => self.scalar(&mut findings)?,
        }
        Ok(Value {
            text: self.since(start)?,
            kind,
            findings,
        })
    }

    fn scalar(&mut self, findings: &mut Findings) -> Result<(), Broken> {
        match self.peek().ok_or(Broken)? {
            b'"' => self.string(findings).map(drop),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            _ => self.number(findings).map(drop),
        }
    }

    /// A container with all that is in it, whatever its depth.
    fn container(&mut self, findings: &mut Findings) -> Result<(), Broken> {
        let mut nesting = Nesting::default();
        loop {
            // A value begins here.
            let opened = match self.peek().ok_or(Broken)? {
                b'{' => Some(true),
                b'[' => Some(false),
                _ => None,
            };
            if let Some(object) = opened {
                self.at += 1;
                nesting.push(object);
                findings.depth = findings.depth.max(nesting.depth);
                self.skip_blanks();
                if self.peek() != Some(if object { b'}' } else { b']' }) {
                    if object {
                        self.key(findings)?;
                    }
                    continue;
                }
            } else {
                self.scalar(findings)?;
            }
            // A value ended here (or an empty container is about to).
            loop {
                self.skip_blanks();
                match (self.peek().ok_or(Broken)?, nesting.in_object()) {
                    (b'}', true) | (b']', false) => {
                        self.at += 1;
                        nesting.pop();
                        if nesting.depth == 0 {
                            return Ok(());
                        }
                    }
                    (b',', object) => {
                        self.at += 1;
                        self.skip_blanks();
                        if object {
                            self.key(findings)?;
                        }
                        break;
                    }
                    _ => return Err(Broken),
                }
            }
        }
    }
}

/// Which containers are open: one bit each, on the heap only beyond 64.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    top: u64,
    below: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.below.push(self.top);
        }
        self.top = (self.top << 1) | u64::from(object);
        self.depth += 1;
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.top >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.top = self.below.pop().unwrap_or_default();
        }
    }

    fn in_object(&self) -> bool {
        self.top & 1 == 1
    }
}

/// The UTF-16 unit in four hexadecimal digits at the start.
pub(super) fn hex_unit(bytes: Option<&[u8]>) -> Option<u32> {
    let digits = bytes?.first_chunk::<4>()?;
    digits.iter().try_fold(0, |unit, digit| {
        char::from(*digit).to_digit(16).map(|value| unit * 16 + value)
    })
}

/// The second half of a surrogate pair, if `\uDC00`-`\uDFFF` stands at the start.
pub(super) fn low_surrogate(bytes: Option<&[u8]>) -> Option<u32> {
    let digits = bytes?.strip_prefix(b"\\u")?;
    hex_unit(Some(digits)).filter(|unit| (0xDC00..=0xDFFF).contains(unit))
}
