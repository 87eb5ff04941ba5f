//! The service's own log, on standard error: text on a terminal, one JSON object a line elsewhere.
//!
//! Values may hold what senders sent (a header, a table's error). In text every control character is escaped, so that no
//! value can forge a line or steer a terminal; JSON escapes them itself, and one line stays one object.

use std::{
    fmt::{self, Write as _},
    io::{self, IsTerminal},
};

use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    filter::ParseError,
    fmt::{
        MakeWriter,
        format::{FormatFields, Writer, debug_fn},
    },
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::{Format, Log};

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("log.filter cannot be read")]
    Filter(#[from] ParseError),
    /// The process has a log already.
    #[error("the log is set up already")]
    Twice(#[from] TryInitError),
}

/// Sets up the log of this process.
///
/// `log.filter` is all that is looked at: the configuration has put `RUST_LOG` into it where that goes over the file.
///
/// # Errors
/// If the filter cannot be read, or the process has a log already.
pub fn init(settings: &Log) -> Result<(), LoggingError> {
    let mut filter = EnvFilter::builder().parse(&settings.filter)?;
    if !settings.filter.contains("rmcp") {
        // It tells of every call of a tool as of a connection.
        filter = filter.add_directive("rmcp=warn".parse()?);
    }
    let on_terminal = io::stderr().is_terminal();
    if is_text(settings.format, on_terminal) {
        // https://no-color.org asks programs to look at this variable; it is no setting of ours.
        let colour = on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        text(filter, io::stderr, colour).try_init()?;
    } else {
        json(filter, io::stderr).try_init()?;
    }
    Ok(())
}

/// Whether a person looks at the log as it is written.
#[must_use]
pub fn is_live(settings: &Log) -> bool {
    let on_terminal = io::stderr().is_terminal();
    on_terminal && is_text(settings.format, on_terminal)
}

fn is_text(format: Format, on_terminal: bool) -> bool {
    match format {
        Format::Auto => on_terminal,
        Format::Text => true,
        Format::Json => false,
    }
}

fn text<W>(filter: EnvFilter, writer: W, colour: bool) -> impl SubscriberInitExt + tracing::Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colour)
        .with_target(false)
        .fmt_fields(escaped_fields())
        .finish()
}

fn json<W>(filter: EnvFilter, writer: W) -> impl SubscriberInitExt + tracing::Subscriber + Send + Sync
where
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_env_filter(filter)
        .with_writer(writer)
        .finish()
}

fn escaped_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        if field.name() != "message" {
            write!(writer, "{}=", field.name())?;
        }
        write!(Escaping(writer), "{value:?}")
    })
    .delimited(" ")
}

/// Passes text on with its control characters escaped.
struct Escaping<'a, 'b>(&'a mut Writer<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            // The two separators end a line in some viewers.
            if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}') {
                write!(self.0, "{}", letter.escape_default())?;
            } else {
                self.0.write_char(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Memory {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    const HOSTILE: &str = "a\nforged ERROR line\r\u{1b}[2J\u{9b}31m\u{2028}\u{7f}";

    fn speak() {
        let error = io::Error::other(HOSTILE);
        tracing::info_span!("request", path = HOSTILE, peer = %HOSTILE).in_scope(|| {
            tracing::info!(given = HOSTILE, shown = %HOSTILE, ?error, %error, count = 3, "committed {HOSTILE}");
        });
        tracing::debug!("not to be seen");
    }

    #[test]
    fn a_value_cannot_forge_a_line_or_steer_a_terminal_in_text() {
        let memory = Memory::default();
        let kept = memory.clone();
        let subscriber = text(EnvFilter::new("info"), move || memory.clone(), false);
        tracing::subscriber::with_default(subscriber, speak);
        let text = kept.text();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line = text.trim_end_matches('\n');
        assert!(!line.chars().any(char::is_control), "{line:?}");
        for part in [
            "INFO",
            "committed a\\nforged ERROR line\\r\\u{1b}[2J\\u{9b}31m",
            "shown=a\\nforged",
            "count=3",
        ] {
            assert!(line.contains(part), "`{part}` is not in {line}");
        }
    }

    #[test]
    fn a_line_of_json_is_one_object_with_the_fields_at_its_top() {
        let memory = Memory::default();
        let kept = memory.clone();
        let subscriber = json(EnvFilter::new("info"), move || memory.clone());
        tracing::subscriber::with_default(subscriber, speak);
        let text = kept.text();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(!text.trim_end_matches('\n').bytes().any(|byte| byte < 0x20), "{text:?}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["given"], HOSTILE);
        assert_eq!(line["count"], 3);
        assert_eq!(line["spans"][0]["path"], HOSTILE);
        assert!(line["message"].as_str().unwrap().starts_with("committed a\nforged"));
    }

    #[test]
    fn auto_is_text_on_a_terminal_and_json_elsewhere() {
        let cases = [
            (Format::Auto, true, true),
            (Format::Auto, false, false),
            (Format::Text, false, true),
            (Format::Json, true, false),
        ];
        for (format, on_terminal, expected) in cases {
            assert_eq!(
                is_text(format, on_terminal),
                expected,
                "{format:?} on a terminal: {on_terminal}"
            );
        }
    }
}
