//! Severity as senders write it: words of many loggers, and four scales of numbers.

use super::{
    Level,
    scan::{Kind, Value},
    text::unescape,
};

/// Which scale a number under a name is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// 0 (emergency) to 7 (debug): RFC 5424.
    Syslog,
    /// 1 to 24: OpenTelemetry's logs data model.
    OpenTelemetry,
    /// 10 (debug) to 50 (critical): Python's `logging`.
    Python,
    /// 0 to 7 as syslog (GELF), 10 (trace) to 60 (fatal) as pino and bunyan.
    Mixed,
}

impl Scale {
    /// The scale that a name implies.
    pub(super) fn of_alias(alias: &str) -> Self {
        let plain: String = alias
            .chars()
            .filter(|character| !matches!(character, '_' | '-'))
            .collect::<String>()
            .to_ascii_lowercase();
        if plain.ends_with("severitynumber") {
            Self::OpenTelemetry
        } else if plain.ends_with("levelno") {
            Self::Python
        } else if plain.ends_with("severity") || plain.ends_with("priority") || plain.contains("syslog") {
            Self::Syslog
        } else {
            Self::Mixed
        }
    }
}

/// A level, and whether it says all that the word or number said (`notice` is more than INFO).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadLevel {
    pub(super) level: Level,
    pub(super) whole: bool,
}

const fn whole(level: Level) -> ReadLevel {
    ReadLevel { level, whole: true }
}

const fn coarse(level: Level) -> ReadLevel {
    ReadLevel { level, whole: false }
}

/// Words in lower case; a number after them (`DEBUG5`, `INFO+2`) is passed over.
const WORDS: &[(&str, ReadLevel)] = &[
    ("info", whole(Level::Info)),
    ("error", whole(Level::Error)),
    ("warn", whole(Level::Warn)),
    ("debug", whole(Level::Debug)),
    ("warning", whole(Level::Warn)),
    ("trace", whole(Level::Trace)),
    ("fatal", whole(Level::Fatal)),
    ("information", whole(Level::Info)),
    ("informational", whole(Level::Info)),
    ("inf", whole(Level::Info)),
    ("i", whole(Level::Info)),
    ("err", whole(Level::Error)),
    ("eror", whole(Level::Error)),
    ("e", whole(Level::Error)),
    ("wrn", whole(Level::Warn)),
    ("w", whole(Level::Warn)),
    ("dbg", whole(Level::Debug)),
    ("debg", whole(Level::Debug)),
    ("d", whole(Level::Debug)),
    ("trc", whole(Level::Trace)),
    ("t", whole(Level::Trace)),
    ("ftl", whole(Level::Fatal)),
    ("f", whole(Level::Fatal)),
    ("critical", coarse(Level::Fatal)),
    ("crit", coarse(Level::Fatal)),
    ("c", coarse(Level::Fatal)),
    ("emergency", coarse(Level::Fatal)),
    ("emerg", coarse(Level::Fatal)),
    ("alert", coarse(Level::Fatal)),
    ("a", coarse(Level::Fatal)),
    ("panic", coarse(Level::Fatal)),
    ("dpanic", coarse(Level::Fatal)),
    ("p", coarse(Level::Fatal)),
    ("severe", coarse(Level::Error)),
    ("s", coarse(Level::Error)),
    ("fail", coarse(Level::Error)),
    ("failure", coarse(Level::Error)),
    ("notice", coarse(Level::Info)),
    ("n", coarse(Level::Info)),
    ("success", coarse(Level::Info)),
    ("default", coarse(Level::Info)),
    ("log", coarse(Level::Info)),
    ("config", coarse(Level::Debug)),
    ("fine", coarse(Level::Debug)),
    ("finer", coarse(Level::Trace)),
    ("finest", coarse(Level::Trace)),
    ("verbose", coarse(Level::Trace)),
    ("v", coarse(Level::Trace)),
    ("silly", coarse(Level::Trace)),
];

/// Reads a word, or a number on `scale` (as number or as text); `None` if it says nothing known.
pub(super) fn read_level(value: &Value<'_>, scale: Scale) -> Option<ReadLevel> {
    match value.kind {
        Kind::String => {
            let text = unescape(value.inner()?, value.findings.escaped).text;
            let text = text.trim_matches(|character: char| {
                character.is_whitespace() || matches!(character, '[' | ']' | '<' | '>' | '(' | ')')
            });
            read_word(text).or_else(|| read_number(text, scale))
        }
        Kind::Number => read_number(value.text, scale),
        Kind::Null | Kind::Bool | Kind::Array | Kind::Object => None,
    }
}

pub(super) fn read_word(text: &str) -> Option<ReadLevel> {
    let letters = text.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (word, suffix) = text.split_at_checked(letters)?;
    let (_, read) = WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word))?;
    if suffix.is_empty() {
        return Some(*read);
    }
    suffix
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b':'))
        .then_some(coarse(read.level))
}

fn read_number(text: &str, scale: Scale) -> Option<ReadLevel> {
    // Vector turns some integers into floats on their way.
    let number: u32 = text.strip_suffix(".0").unwrap_or(text).parse().ok()?;
    match scale {
        Scale::Syslog => from_syslog(number),
        Scale::OpenTelemetry => from_open_telemetry(number),
        Scale::Python => from_python(number),
        Scale::Mixed => from_syslog(number).or_else(|| from_pino(number)),
    }
}

fn from_syslog(number: u32) -> Option<ReadLevel> {
    match number {
        0..=2 => Some(coarse(Level::Fatal)),
        3 => Some(whole(Level::Error)),
        4 => Some(whole(Level::Warn)),
        5 => Some(coarse(Level::Info)),
        6 => Some(whole(Level::Info)),
        7 => Some(whole(Level::Debug)),
        _ => None,
    }
}

fn from_open_telemetry(number: u32) -> Option<ReadLevel> {
    let level = match number {
        1..=4 => Level::Trace,
        5..=8 => Level::Debug,
        9..=12 => Level::Info,
        13..=16 => Level::Warn,
        17..=20 => Level::Error,
        21..=24 => Level::Fatal,
        _ => return None,
    };
    Some(ReadLevel {
        level,
        whole: number % 4 == 1,
    })
}

fn from_python(number: u32) -> Option<ReadLevel> {
    let level = match number {
        1..=9 => Level::Trace,
        10..=19 => Level::Debug,
        20..=29 => Level::Info,
        30..=39 => Level::Warn,
        40..=49 => Level::Error,
        50..=59 => Level::Fatal,
        _ => return None,
    };
    Some(ReadLevel {
        level,
        whole: number.is_multiple_of(10),
    })
}

fn from_pino(number: u32) -> Option<ReadLevel> {
    let level = match number {
        10..=19 => Level::Trace,
        20..=29 => Level::Debug,
        30..=39 => Level::Info,
        40..=49 => Level::Warn,
        50..=59 => Level::Error,
        60..=69 => Level::Fatal,
        _ => return None,
    };
    Some(ReadLevel {
        level,
        whole: number.is_multiple_of(10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str, alias: &str) -> Option<Level> {
        read_level(&Value::read(json).unwrap(), Scale::of_alias(alias)).map(|read| read.level)
    }

    #[test]
    fn words_of_every_logger_find_their_level() {
        for (words, level) in [
            ("trace TRACE Trc finest FINER verbose silly T v trace1-8", Level::Trace),
            ("debug DEBUG Dbg fine config d DEBUG-4 debug5", Level::Debug),
            (
                "info INFO Information informational notice NOTICE success log I inf INFO+2 info4",
                Level::Info,
            ),
            ("warn WARN warning WARNING Wrn w", Level::Warn),
            ("error ERROR err eror ERR severe fail e error3", Level::Error),
            (
                "fatal FATAL crit critical CRITICAL emerg emergency alert panic dpanic ftl F c",
                Level::Fatal,
            ),
        ] {
            for word in words.split(' ') {
                assert_eq!(read(&format!("\"{word}\""), "level"), Some(level), "{word}");
            }
        }
        assert_eq!(read(r#"" [Error] ""#, "level"), Some(Level::Error));
        assert_eq!(read(r#""\u0049NFO""#, "level"), Some(Level::Info));
    }

    #[test]
    fn what_is_no_level_is_not_guessed() {
        for json in [
            r#""""#,
            r#""wat""#,
            r#""errors happened""#,
            r#""info x""#,
            "8",
            "9",
            "70",
            "-1",
            "3.5",
            "true",
            "null",
            "{}",
            "[3]",
        ] {
            assert_eq!(read(json, "level"), None, "{json}");
        }
    }

    #[test]
    fn the_scale_of_a_number_follows_from_its_name() {
        for (alias, number, level) in [
            ("severity_number", 1, Some(Level::Trace)),
            ("severityNumber", 17, Some(Level::Error)),
            ("attributes.severity_number", 24, Some(Level::Fatal)),
            ("severity_number", 0, None),
            ("severity_number", 25, None),
            ("PRIORITY", 3, Some(Level::Error)),
            ("severity", 0, Some(Level::Fatal)),
            ("severity", 7, Some(Level::Debug)),
            ("severity", 30, None),
            ("syslog.severity", 4, Some(Level::Warn)),
            ("log.syslog.severity.code", 5, Some(Level::Info)),
            ("levelno", 10, Some(Level::Debug)),
            ("levelno", 50, Some(Level::Fatal)),
            ("level", 6, Some(Level::Info)),
            ("level", 10, Some(Level::Trace)),
            ("level", 30, Some(Level::Info)),
            ("level", 35, Some(Level::Info)),
            ("level", 60, Some(Level::Fatal)),
        ] {
            assert_eq!(read(&number.to_string(), alias), level, "{alias} {number}");
            assert_eq!(read(&format!("\"{number}\""), alias), level, "{alias} \"{number}\"");
        }
        assert_eq!(read("30.0", "level"), Some(Level::Info));
    }

    #[test]
    fn a_step_that_says_more_than_the_level_is_told_apart() {
        for (json, alias, expected) in [
            (r#""error""#, "level", true),
            (r#""notice""#, "level", false),
            (r#""critical""#, "level", false),
            (r#""error2""#, "level", false),
            ("30", "level", true),
            ("35", "level", false),
            ("5", "PRIORITY", false),
            ("17", "severity_number", true),
            ("18", "severity_number", false),
        ] {
            assert_eq!(
                read_level(&Value::read(json).unwrap(), Scale::of_alias(alias))
                    .unwrap()
                    .whole,
                expected,
                "{json}"
            );
        }
    }
}
