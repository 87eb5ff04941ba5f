//! Bodies that are no text: Vector's `native`, Avro and Protocol Buffers, which have to be refused by name.

use std::fmt;

use super::content_type::ContentType;

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
    NotJson,
}

impl Undecodable {
    pub(super) fn not_json() -> Self {
        Self {
            format: Format::NotJson,
        }
    }

    /// `native`, `avro`, `protobuf`, or `not_json`; stable, for dead letters and metrics.
    pub fn name(&self) -> &'static str {
        match self.format {
            Format::Native => "native",
            Format::Avro => "avro",
            Format::Protobuf => "protobuf",
            Format::NotJson => "not_json",
        }
    }
}

impl fmt::Display for Undecodable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
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

/// The binary format of a decompressed body, by its content type or by its framing; `None` for text.
///
/// Vector sends `native`, `avro` and `protobuf` without a content type, each message after its length (four bytes,
/// big-endian). Such framing must fit to the last byte; of text it cannot, since the first byte would have to be NUL.
pub fn is_binary(content_type: Option<&str>, body: &[u8]) -> Option<Undecodable> {
    if body.is_empty() {
        return None;
    }
    let format = match ContentType::of(content_type) {
        ContentType::Protobuf if !is_json_text(body) => Format::Protobuf,
        ContentType::Avro if !is_json_text(body) => Format::Avro,
        ContentType::Protobuf | ContentType::Avro | ContentType::Text => return None,
        ContentType::Json | ContentType::JsonLines | ContentType::Unknown => undeclared(body)?,
    };
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
