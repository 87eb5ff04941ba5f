//! The kind of a message: its text with what differs from one event to the next masked.
//!
//! `user 42 not found in "a b"` and `user 7 not found in "c"` are of one kind, `user <num> not found in <str>`. The
//! column `pattern` holds the hash of that text, the table `log_patterns` the text itself. Both must stay the same over
//! versions: a change of the rules makes every kind of message a new one.

use super::Level;

/// Bytes of a message that its pattern is made of: its first line, up to here.
const READ_MAX: usize = 512;
/// From this many hex digits on, digits and letters from a to f together are an id and not a word.
const HEX_MIN: usize = 8;
/// From this many letters and digits mixed on, they are an id and not a word.
const MIXED_MIN: usize = 16;

/// The pattern of an event, for those that are counted by it: WARN, ERROR and FATAL.
pub fn pattern_of(level: Level, message: &str) -> Option<i64> {
    if level < Level::Warn {
        return None;
    }
    let hash = blake3::hash(mask(message).as_bytes());
    let first = hash.as_bytes().first_chunk::<8>()?;
    Some(i64::from_be_bytes(*first))
}

/// The first line of a message with `<num>`, `<id>`, `<hex>`, `<str>`, `<path>` and `<url>` in place of what differs.
pub fn mask(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = line
        .get(..line.floor_char_boundary(READ_MAX))
        .unwrap_or_default()
        .trim();
    let mut masked = String::with_capacity(line.len());
    // What is kept as it is gets copied when something is masked after it.
    let mut unmasked = line;
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let before = line.get(..line.len() - rest.len()).unwrap_or_default();
        let (length, mask) = next_part(rest, first, before);
        let (part, after) = rest
            .split_at_checked(length.max(first.len_utf8()))
            .unwrap_or((rest, ""));
        if mask.is_some() || part.bytes().any(|byte| byte.is_ascii_digit()) {
            let kept = unmasked.len() - rest.len();
            masked.push_str(unmasked.get(..kept).unwrap_or_default());
            match mask {
                Some(mask) => masked.push_str(mask),
                None => mask_word(part, &mut masked),
            }
            unmasked = after;
        }
        rest = after;
    }
    masked.push_str(unmasked);
    masked
}

/// How many bytes belong together at the start of `rest`, and what stands for them if they are no word.
fn next_part(rest: &str, first: char, before: &str) -> (usize, Option<&'static str>) {
    let opens = || !before.ends_with(char::is_alphanumeric);
    match first {
        '"' | '\'' | '`' if opens() => match quoted(rest, first) {
            Some(length) => (length, Some("<str>")),
            None => (first.len_utf8(), None),
        },
        '/' if opens() && !before.ends_with('/') && rest.chars().nth(1).is_some_and(is_of_path) => {
            (until(rest, |c| !is_of_path(c) && c != '/'), Some("<path>"))
        }
        _ if first.is_alphanumeric() => {
            let word = until(rest, |c| !is_of_word(c));
            let (scheme, after) = rest.split_at_checked(word).unwrap_or((rest, ""));
            if scheme.ends_with(':') && after.starts_with("//") {
                return (
                    until(rest, |c| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>' | ',')),
                    Some("<url>"),
                );
            }
            (word, None)
        }
        _ => (first.len_utf8(), None),
    }
}

/// Length of a quoted text, quotes included; none if it does not end, or ends like an apostrophe.
fn quoted(rest: &str, quote: char) -> Option<usize> {
    let inside = rest.get(1..)?;
    let end = inside.find(quote)? + 2;
    let goes_on = rest.get(end..)?.chars().next().is_some_and(char::is_alphanumeric);
    (!goes_on).then_some(end)
}

/// Appends what stands for a word with digits.
fn mask_word(word: &str, masked: &mut String) {
    let bare = word.trim_end_matches(['.', '-', ':', '_']);
    let tail = word.get(bare.len()..).unwrap_or_default();
    if is_uuid(bare) {
        masked.push_str("<id>");
    } else if is_hex(bare) {
        masked.push_str("<hex>");
    } else if is_mixed(bare) {
        masked.push_str("<id>");
    } else {
        mask_numbers(bare, masked);
    }
    masked.push_str(tail);
}

fn is_uuid(word: &str) -> bool {
    word.len() == 36
        && word.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn is_hex(word: &str) -> bool {
    let digits = word.strip_prefix("0x").unwrap_or(word);
    let is_marked = digits.len() < word.len() && !digits.is_empty();
    (is_marked || (digits.len() >= HEX_MIN && digits.bytes().any(|byte| byte.is_ascii_alphabetic())))
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Letters and digits without a break, changing from one to the other more than once: keys, ULIDs, base64.
fn is_mixed(word: &str) -> bool {
    let changes = word
        .as_bytes()
        .windows(2)
        .filter(|pair| matches!(pair, [a, b] if a.is_ascii_digit() != b.is_ascii_digit()))
        .count();
    word.len() >= MIXED_MIN && changes > 2 && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Numbers with the points, commas, colons and dashes inside them become one.
fn mask_numbers(word: &str, masked: &mut String) {
    let mut rest = word;
    while let Some(start) = rest.bytes().position(|byte| byte.is_ascii_digit()) {
        let (words, number) = rest.split_at(start);
        masked.push_str(words);
        masked.push_str("<num>");
        let end = until(number, |c| !c.is_ascii_digit() && !matches!(c, '.' | ',' | ':' | '-'));
        let number_only = number.get(..end).unwrap_or(number);
        let bare = number_only.trim_end_matches(['.', ',', ':', '-']);
        rest = number.get(bare.len()..).unwrap_or_default();
    }
    masked.push_str(rest);
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':')
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '%' | '+' | '@' | '*' | '{' | '}' | '$')
}

fn until(text: &str, ends: impl Fn(char) -> bool) -> usize {
    // Nearly all of it is ASCII, where a byte is a character.
    let goes_on = |byte: &u8| byte.is_ascii() && !ends(char::from(*byte));
    let ascii = text.bytes().take_while(goes_on).count();
    match text.get(ascii..) {
        Some(rest) if !rest.as_bytes().first().is_none_or(u8::is_ascii) => {
            ascii + rest.find(ends).unwrap_or(rest.len())
        }
        _ => ascii,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_differs_is_masked_and_words_are_kept() {
        for (message, expected) in [
            ("user 42 not found", "user <num> not found"),
            ("took 12.5ms, limit 1,000 ms", "took <num>ms, limit <num>,<num> ms"),
            ("connection to 10.0.0.1:5432 refused", "connection to <num> refused"),
            ("at 2026-11-21T10:00:00.123Z", "at <num>T<num>Z"),
            (
                "order 123e4567-e89b-12d3-a456-426614174000 failed.",
                "order <id> failed.",
            ),
            ("trace 4bf92f3577b34da6a3ce929d0e0e4736: gone", "trace <hex>: gone"),
            ("at 0x7ffe12 in libc", "at <hex> in libc"),
            ("key 01JC3XQ6W5VQ1V4QG0BQ5E8T9Z expired", "key <id> expired"),
            ("cannot open \"a b.txt\" for 'me'", "cannot open <str> for <str>"),
            ("it's done, can't go on", "it's done, can't go on"),
            ("GET /api/users/42 500", "GET <path> <num>"),
            ("fetching https://a.example/x?y=1 failed", "fetching <url> failed"),
            ("and/or 3/4", "and/or <num>/<num>"),
            ("disk sda1 at 91%", "disk sda<num> at <num>%"),
            ("retry-3 of worker_12", "retry-<num> of worker_<num>"),
            ("deadbeef cafe", "deadbeef cafe"),
            ("first line 1\nsecond 2", "first line <num>"),
            ("Überlauf 5 in größe", "Überlauf <num> in größe"),
            ("é'a' é/b é \"ü\" 7", "é'a' é/b é <str> <num>"),
            ("", ""),
        ] {
            assert_eq!(mask(message), expected, "of {message:?}");
        }
    }

    #[test]
    fn only_warnings_and_errors_have_a_pattern() {
        assert_eq!(pattern_of(Level::Info, "a 1"), None);
        assert_eq!(pattern_of(Level::Warn, "a 1"), pattern_of(Level::Error, "a 2"));
        assert_ne!(pattern_of(Level::Warn, "a 1"), pattern_of(Level::Warn, "b 1"));
    }

    #[test]
    fn the_hash_of_a_pattern_stays_what_it_was() {
        assert_eq!(pattern_of(Level::Error, "user 42 not found"), Some(PINNED));
    }

    const PINNED: i64 = 7_551_146_706_241_132_107;

    proptest! {
        #[test]
        fn any_text_is_masked_without_growing_beyond_bounds(message in any::<String>()) {
            let masked = mask(&message);
            prop_assert!(masked.len() <= 6 * READ_MAX);
            prop_assert!(!masked.contains('\n'));
        }

        #[test]
        fn numbers_never_tell_messages_apart(a in 0..1_000_000_u64, b in 0..1_000_000_u64) {
            let of = |number: u64| mask(&format!("job {number} failed after {number}.5 s on node-{number}"));
            prop_assert_eq!(of(a), of(b));
        }
    }
}
