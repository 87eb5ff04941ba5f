//! The time an event claims: RFC 3339 and its usual dialects, or a count since 1970 whose unit shows in its size.

use super::{
    Timestamp,
    scan::{Kind, Members, Value},
    time::days_from_civil,
};

/// A time as an event claims it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClaimedTime {
    pub(super) time: Timestamp,
    /// Nanoseconds below the microsecond, 0-999.
    pub(super) nanos: u16,
    /// Whether time and nanoseconds say all that was sent.
    pub(super) whole: bool,
}

/// Reads text, a number, or an object of seconds and nanoseconds (log4j's `instant`, protobuf's JSON-like form).
pub(super) fn read_time(value: &Value<'_>) -> Option<ClaimedTime> {
    match value.kind {
        Kind::String => {
            let text = value.inner()?.trim_ascii();
            read_rfc3339(text.as_bytes()).or_else(|| read_epoch(text))
        }
        Kind::Number => read_epoch(value.text),
        Kind::Object => read_seconds_and_nanos(value.text),
        Kind::Null | Kind::Bool | Kind::Array => None,
    }
}

/// `YYYY-MM-DDThh:mm:ss[.digits][offset]`: a blank for the T, a comma for the point, no offset for UTC, a blank before
/// the offset and `UTC` for it are taken too.
fn read_rfc3339(text: &[u8]) -> Option<ClaimedTime> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, separator, rest @ ..] = text else {
        return None;
    };
    let [h1, h2, b':', n1, n2, b':', s1, s2, rest @ ..] = rest else {
        return None;
    };
    if !matches!(separator, b'T' | b't' | b' ' | b'_') {
        return None;
    }
    let (year, month, day) = (
        number(&[*y1, *y2, *y3, *y4])?,
        number(&[*m1, *m2])?,
        number(&[*d1, *d2])?,
    );
    let (hour, minute, second) = (number(&[*h1, *h2])?, number(&[*n1, *n2])?, number(&[*s1, *s2])?);
    // 60 is a leap second: the next minute's first.
    if !(1..=days_in_month(year, month)?).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanos, whole, rest) = read_fraction(rest)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - read_offset(rest)?;
    Some(ClaimedTime {
        time: Timestamp(seconds * 1_000_000 + nanos / 1000),
        nanos: u16::try_from(nanos % 1000).ok()?,
        whole,
    })
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| {
        digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
    })
}

fn days_in_month(year: i64, month: i64) -> Option<i64> {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => Some(29),
        2 => Some(28),
        _ => None,
    }
}

/// Nanoseconds of a fraction, whether nothing but zeros was beyond them, and what follows.
fn read_fraction(text: &[u8]) -> Option<(i64, bool, &[u8])> {
    let [b'.' | b',', rest @ ..] = text else {
        return Some((0, true, text));
    };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = rest.split_at_checked(count)?;
    if digits.is_empty() {
        return None;
    }
    let (kept, beyond) = digits.split_at_checked(9).unwrap_or((digits, &[]));
    let scale = 10_i64.pow(u32::try_from(9 - kept.len()).ok()?);
    Some((number(kept)? * scale, beyond.iter().all(|digit| *digit == b'0'), rest))
}

/// Seconds east of Greenwich.
fn read_offset(text: &[u8]) -> Option<i64> {
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let (sign, hours, minutes) = match text {
        [] | b"Z" | b"z" | b"UTC" | b"GMT" => return Some(0),
        [sign, h1, h2, b':', m1, m2] | [sign, h1, h2, m1, m2] => (sign, number(&[*h1, *h2])?, number(&[*m1, *m2])?),
        [sign, h1, h2] => (sign, number(&[*h1, *h2])?, 0),
        _ => return None,
    };
    let seconds = hours * 3600 + minutes * 60;
    match sign {
        b'+' if hours < 24 && minutes < 60 => Some(seconds),
        b'-' if hours < 24 && minutes < 60 => Some(-seconds),
        _ => None,
    }
}

/// A decimal number since 1970: below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds, else
/// nanoseconds. So seconds reach to the year 5138, and milliseconds begin in 1973.
///
/// Below 1e8 (March 1973) it is no time but a duration or a counter that happens to be called `time`.
fn read_epoch(text: &str) -> Option<ClaimedTime> {
    let (mantissa, scale) = read_decimal(text.as_bytes())?;
    let whole = shift(mantissa, scale)?;
    let unit = match whole {
        ..=99_999_999 => return None,
        100_000_000..=99_999_999_999 => 9,
        100_000_000_000..=99_999_999_999_999 => 6,
        100_000_000_000_000..=99_999_999_999_999_999 => 3,
        _ => 0,
    };
    let nanos = shift(mantissa, scale + unit)?;
    Some(ClaimedTime {
        time: Timestamp(i64::try_from(nanos.div_euclid(1000)).ok()?),
        nanos: u16::try_from(nanos.rem_euclid(1000)).ok()?,
        whole: true,
    })
}

/// Mantissa and power of ten of a JSON number without a sign. Digits from the 27th on are zeros or dropped.
fn read_decimal(digits: &[u8]) -> Option<(i128, i32)> {
    const MANTISSA_MAX: i128 = 10_i128.pow(26);
    let mut mantissa = 0_i128;
    let mut scale = 0_i32;
    let mut point = None;
    let mut seen = false;
    for (index, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                seen = true;
                if mantissa < MANTISSA_MAX {
                    mantissa = mantissa * 10 + i128::from(byte - b'0');
                    scale -= i32::from(point.is_some());
                } else {
                    scale = scale.saturating_add(i32::from(point.is_none()));
                }
            }
            b'.' if point.is_none() && seen => point = Some(index),
            b'e' | b'E' if seen => {
                let exponent: i32 = std::str::from_utf8(digits.get(index + 1..)?).ok()?.parse().ok()?;
                return Some((mantissa, scale.checked_add(exponent)?));
            }
            _ => return None,
        }
    }
    seen.then_some((mantissa, scale))
}

/// Times a power of ten, rounded down.
fn shift(mantissa: i128, scale: i32) -> Option<i128> {
    if mantissa == 0 {
        return Some(0);
    }
    let power = 10_i128.checked_pow(scale.unsigned_abs());
    if scale < 0 {
        Some(power.map_or(0, |power| mantissa / power))
    } else {
        mantissa.checked_mul(power?)
    }
}

fn read_seconds_and_nanos(object: &str) -> Option<ClaimedTime> {
    let (mut seconds, mut nanos) = (None, 0_i64);
    let mut members = Members::of(object).ok()?;
    while let Ok(Some(member)) = members.next() {
        match member.key {
            "epochSecond" | "seconds" => seconds = member.value.text.trim_matches('"').parse::<i64>().ok(),
            "nanoOfSecond" | "nanos" => nanos = member.value.text.parse().ok()?,
            _ => {}
        }
    }
    if !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    Some(ClaimedTime {
        time: Timestamp(seconds?.checked_mul(1_000_000)?.checked_add(nanos / 1000)?),
        nanos: u16::try_from(nanos % 1000).ok()?,
        // The object may say more than its two members.
        whole: false,
    })
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, SecondsFormat, Utc};
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Option<(String, u16)> {
        read_time(&Value::read(json).unwrap()).map(|read| (read.time.to_rfc3339(), read.nanos))
    }

    #[test]
    fn every_usual_spelling_of_a_time_is_read() {
        for (json, expected, nanos) in [
            (r#""2026-11-20T12:00:00Z""#, "2026-11-20T12:00:00.000000Z", 0),
            (r#""2026-11-20T12:00:00.1Z""#, "2026-11-20T12:00:00.100000Z", 0),
            (r#""2026-11-20T12:00:00.120Z""#, "2026-11-20T12:00:00.120000Z", 0),
            (r#""2026-11-20T12:00:00.123456Z""#, "2026-11-20T12:00:00.123456Z", 0),
            (
                r#""2026-11-20T12:00:00.123456789Z""#,
                "2026-11-20T12:00:00.123456Z",
                789,
            ),
            (
                r#""2026-11-20T12:00:00.123456789123Z""#,
                "2026-11-20T12:00:00.123456Z",
                789,
            ),
            (r#""2026-11-20t12:00:00z""#, "2026-11-20T12:00:00.000000Z", 0),
            (
                r#""2026-11-20T12:00:00.011739+00:00""#,
                "2026-11-20T12:00:00.011739Z",
                0,
            ),
            (r#""2026-11-20T12:00:00+02:30""#, "2026-11-20T09:30:00.000000Z", 0),
            (r#""2026-11-20T12:00:00-0800""#, "2026-11-20T20:00:00.000000Z", 0),
            (r#""2026-11-20T12:00:00+01""#, "2026-11-20T11:00:00.000000Z", 0),
            (r#""2026-11-20 12:00:00,123""#, "2026-11-20T12:00:00.123000Z", 0),
            (r#""2026-11-20 12:00:00.5 UTC""#, "2026-11-20T12:00:00.500000Z", 0),
            (r#"" 2026-11-20 12:00:00 +0100 ""#, "2026-11-20T11:00:00.000000Z", 0),
            (r#""2026-12-31T23:59:60Z""#, "2027-01-01T00:00:00.000000Z", 0),
            (r#""2024-02-29T00:00:00Z""#, "2024-02-29T00:00:00.000000Z", 0),
            (r#""0001-01-01T00:00:00Z""#, "0001-01-01T00:00:00.000000Z", 0),
            ("1763596800", "2025-11-20T00:00:00.000000Z", 0),
            ("1763596800.123456789", "2025-11-20T00:00:00.123456Z", 789),
            ("1.7635968001234e9", "2025-11-20T00:00:00.123400Z", 0),
            ("1763596800123", "2025-11-20T00:00:00.123000Z", 0),
            ("1763596800123.25", "2025-11-20T00:00:00.123250Z", 0),
            ("1763596800123456", "2025-11-20T00:00:00.123456Z", 0),
            ("1763596800123456789", "2025-11-20T00:00:00.123456Z", 789),
            (r#""1763596800123456789""#, "2025-11-20T00:00:00.123456Z", 789),
            (r#""1763596800.5""#, "2025-11-20T00:00:00.500000Z", 0),
            (
                r#"{"epochSecond":1763596800,"nanoOfSecond":118000001}"#,
                "2025-11-20T00:00:00.118000Z",
                1,
            ),
            (
                r#"{"seconds":"1763596800","nanos":5000}"#,
                "2025-11-20T00:00:00.000005Z",
                0,
            ),
        ] {
            assert_eq!(read(json), Some((expected.to_owned(), nanos)), "{json}");
        }
    }

    #[test]
    fn what_is_no_time_is_not_guessed() {
        for json in [
            r#""""#,
            r#""now""#,
            r#""20/Nov/2026:19:57:58""#,
            r#""2026-11-20""#,
            r#""2026-11-20T12:00""#,
            r#""2026-13-01T00:00:00Z""#,
            r#""2026-02-29T00:00:00Z""#,
            r#""2026-11-20T24:00:00Z""#,
            r#""2026-11-20T12:00:00.Z""#,
            r#""2026-11-20T12:00:00+25:00""#,
            r#""2026-11-20T12:00:00 CET""#,
            r#""12026-11-20T12:00:00Z""#,
            "0",
            "0.123",
            "99999999",
            "-1763596800",
            "1e-30",
            "true",
            "null",
            "[1763596800]",
            "{}",
            r#"{"nanos":1}"#,
            r#"{"seconds":1,"nanos":-1}"#,
            "1e400",
            "1e38",
            r#""1.2.3""#,
            r#"".5""#,
            r#""-""#,
            r#""NaN""#,
            r#""1763596800s""#,
        ] {
            assert_eq!(read(json), None, "{json}");
        }
    }

    #[test]
    fn digits_beyond_the_nanosecond_are_not_called_whole() {
        let whole = |json: &str| read_time(&Value::read(json).unwrap()).unwrap().whole;
        assert!(whole(r#""2026-11-20T12:00:00.123456789Z""#));
        assert!(whole(r#""2026-11-20T12:00:00.123456789000Z""#));
        assert!(!whole(r#""2026-11-20T12:00:00.1234567891Z""#));
    }

    proptest! {
        #[test]
        fn text_and_every_unit_of_a_number_give_the_same_time(nanos in 100_000_000_000_000_000_i64..i64::MAX) {
            let time = DateTime::<Utc>::from_timestamp_nanos(nanos);
            let expected = Some((Timestamp::from(time).to_rfc3339(), u16::try_from(nanos % 1000).unwrap()));
            let text = time.to_rfc3339_opts(SecondsFormat::Nanos, true);
            prop_assert_eq!(read(&format!("\"{text}\"")), expected.clone());
            prop_assert_eq!(read(&nanos.to_string()), expected.clone());
            prop_assert_eq!(read(&format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)), expected.clone());
            prop_assert_eq!(read(&format!("\"{}.{:06}\"", nanos / 1_000_000, nanos % 1_000_000)), expected);
        }

        #[test]
        fn no_text_panics(text in r"[-+0-9eE.:TZ ]{0,40}") {
            read(&serde_json::to_string(&text).unwrap());
        }
    }
}
