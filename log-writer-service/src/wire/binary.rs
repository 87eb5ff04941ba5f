//! Bodies that are no text, or text in another charset: Vector's `native`, Avro, Protocol Buffers and what `charset` finds have to
//! be refused by name.

use std::fmt;

use super::{charset::is_other_text, content_type::ContentType};

/// The whole body is in a format that is not read here, or in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Undecodable {
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Native,
    Avro,
    Protobuf,
    OtherCharset,
    NotJson,
}

impl Undecodable {
    pub(super) fn not_json() -> Self {
        Self {
            format: Format::NotJson,
        }
    }

    /// `native`, `avro`, `protobuf`, `unsupported_charset` or `not_json`; stable, for dead letters and metrics.
    pub fn name(&self) -> &'static str {
        match self.format {
            Format::Native => "native",
            Format::Avro => "avro",
            Format::Protobuf => "protobuf",
            Format::OtherCharset => "unsupported_charset",
            Format::NotJson => "not_json",
        }
    }
}

impl fmt::Display for Undecodable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            Format::OtherCharset => formatter
                .write_str("text is read in UTF-8 alone, and this is in another charset; set the sender's to UTF-8"),
            Format::NotJson => formatter.write_str("the content type says JSON, but nothing in the body is"),
            Format::Native | Format::Avro | Format::Protobuf => write!(
                formatter,
                "bodies in `{}` are not read; set `encoding.codec` of the sink to `json`",
                self.name()
            ),
        }
    }
}

impl std::error::Error for Undecodable {}

/// The format of a decompressed body that is not read here: a binary one, by its content type or by its framing, or text in
/// another charset; `None` for text in UTF-8.
///
/// Vector sends `native`, `avro` and `protobuf` without a content type, each message after its length (four bytes,
/// big-endian). Such framing must fit to the last byte; of text it cannot, since the first byte would have to be NUL.
pub fn is_binary(content_type: Option<&str>, body: &[u8]) -> Option<Undecodable> {
    if body.is_empty() {
        return None;
    }
    let format = match ContentType::of(content_type) {
        ContentType::Protobuf if !is_json_text(body) => Some(Format::Protobuf),
        ContentType::Avro if !is_json_text(body) => Some(Format::Avro),
        ContentType::Protobuf | ContentType::Avro | ContentType::Text => None,
        ContentType::Json | ContentType::JsonLines | ContentType::Unknown => undeclared(body),
    };
    let other_charset = || is_other_text(content_type, body).then_some(Format::OtherCharset);
    let format = format.or_else(other_charset)?;
    Some(Undecodable { format })
}

/// JSON under a content type that lies: neither format has messages that look so.
fn is_json_text(body: &[u8]) -> bool {
    let start = body.trim_ascii_start();
    let is_object = |text: &[u8]| match text {
        [b'{', rest @ ..] => matches!(rest.trim_ascii_start().first(), Some(b'"' | b'}')),
        _ => false,
    };
    let is_json = match start {
        [b'[', rest @ ..] => is_object(rest.trim_ascii_start()),
        _ => is_object(start),
    };
    is_json && std::str::from_utf8(body).is_ok()
}

fn undeclared(body: &[u8]) -> Option<Format> {
    if body.starts_with(b"Obj\x01") {
        return Some(Format::Avro);
    }
    let mut formats = Frames { rest: body }.map(|frame| frame.map(message_format));
    let first = formats.next()??;
    // One frame that is no Protocol Buffers message makes the body Avro, which has no marks of its own.
    let mut format = first;
    for next in formats {
        if next? != first {
            format = Format::Avro;
        }
    }
    Some(format)
}

/// Length-delimited messages; `None` where the framing does not fit.
struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = self.rest.split_first_chunk::<4>().and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            rest.split_at_checked(length).filter(|_| length > 0)
        });
        self.rest = message.map_or(&[], |(_, rest)| rest);
        Some(message.map(|(message, _)| message))
    }
}

fn message_format(message: &[u8]) -> Format {
    // `EventArray { logs | metrics | traces = 1 | 2 | 3 }`, each `{ repeated event = 1 }`, and Vector sends one event.
    let is_native = whole_field(message, 1..=3)
        .and_then(|array| whole_field(array, 1..=1))
        .is_some();
    if is_native {
        Format::Native
    } else if is_protobuf(message) {
        Format::Protobuf
    } else {
        Format::Avro
    }
}

/// The content of the one length-delimited field that `message` consists of.
fn whole_field(message: &[u8], numbers: std::ops::RangeInclusive<u64>) -> Option<&[u8]> {
    let (tag, rest) = take_varint(message)?;
    let (length, rest) = take_varint(rest)?;
    let is_whole = usize::try_from(length).ok()? == rest.len();
    (is_whole && tag & 7 == 2 && numbers.contains(&(tag >> 3))).then_some(rest)
}

fn is_protobuf(mut message: &[u8]) -> bool {
    while !message.is_empty() {
        match skip_field(message) {
            Some(rest) => message = rest,
            None => return false,
        }
    }
    true
}

fn skip_field(message: &[u8]) -> Option<&[u8]> {
    let (tag, rest) = take_varint(message)?;
    if tag >> 3 == 0 {
        return None;
    }
    match tag & 7 {
        0 => take_varint(rest).map(|(_, rest)| rest),
        1 => rest.get(8..),
        2 => take_varint(rest).and_then(|(length, rest)| rest.get(usize::try_from(length).ok()?..)),
        5 => rest.get(4..),
        _ => None,
    }
}

fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        number |= u64::from(byte & 0x7f).checked_shl(u32::try_from(7 * index).ok()?)?;
        if byte & 0x80 == 0 {
            return bytes.get(index + 1..).map(|rest| (number, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_binary;

    fn framed(messages: &[&[u8]]) -> Vec<u8> {
        let frame = |message: &&[u8]| {
            let length = u32::try_from(message.len()).unwrap().to_be_bytes();
            [&length[..], message].concat()
        };
        messages.iter().flat_map(frame).collect()
    }

    fn name(content_type: Option<&str>, body: &[u8]) -> Option<&'static str> {
        is_binary(content_type, body).map(|refused| refused.name())
    }

    #[test]
    fn length_delimited_messages_are_named() {
        // LogArray { Log { fields { "a": … } } }, as Vector nests it.
        let native: &[u8] = &[0x0a, 0x07, 0x0a, 0x05, 0x0a, 0x03, 0x0a, 0x01, b'a'];
        let protobuf: &[u8] = &[0x08, 0x2a, 0x12, 0x03, b'a', b'b', b'c'];
        let avro: &[u8] = &[0x06, b'f', b'o', b'o', 0x0f];
        assert_eq!(name(None, &framed(&[native, native])), Some("native"));
        assert_eq!(name(None, &framed(&[protobuf])), Some("protobuf"));
        assert_eq!(name(None, &framed(&[avro, protobuf])), Some("avro"));
        assert_eq!(name(None, b"Obj\x01\x04"), Some("avro"));
        // A byte too few or too many is no such framing.
        assert_eq!(name(None, &framed(&[native])[..10]), None);
        assert_eq!(name(None, &[framed(&[native]), vec![0]].concat()), None);
    }

    #[test]
    fn content_types_are_believed_but_for_json() {
        for (content_type, expected) in [
            ("application/x-protobuf", "protobuf"),
            ("Application/Protobuf; proto=x", "protobuf"),
            ("application/vnd.apache.avro", "avro"),
            ("avro/binary", "avro"),
        ] {
            assert_eq!(name(Some(content_type), &[0x0a, 0x01, 0xff]), Some(expected));
            assert_eq!(name(Some(content_type), b" [{\"a\":1}]"), None);
            assert_eq!(name(Some(content_type), b""), None);
        }
    }

    proptest! {
        #[test]
        fn text_is_never_binary(text in "\\PC{0,200}", end in prop::sample::select(vec!["", "\n", "\0"])) {
            for content_type in [None, Some("application/json"), Some("text/plain"), Some("application/octet-stream")] {
                prop_assert_eq!(is_binary(content_type, format!("{text}{end}").as_bytes()), None);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(is_binary(None, &framed(&[&body])).is_some(), !body.is_empty());
            prop_assert_eq!(is_binary(Some("application/json"), &body), is_binary(None, &body));
        }
    }
}
