//! What can be asked: one table, from which HTTP takes its paths and parameters, `/api/openapi.json` its description and
//! MCP its tools.

use serde_json::{Map, Value, json};

use crate::{event::Level, timescale::Question};

/// Of what kind a parameter is, and how its text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A level, in any case.
    Level,
    /// A UUID.
    Id,
    /// RFC 3339, or whatever PostgreSQL takes for a time.
    Time,
    /// A length of time as PostgreSQL writes it, such as `6 hours`.
    Interval,
    /// A whole number.
    Number,
    /// A number.
    Decimal,
    /// Several texts: the parameter is given several times.
    Texts,
    /// A JSON object.
    Object,
}

/// One parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name in a URL and in a tool's arguments.
    pub name: &'static str,
    /// How it is read.
    pub kind: Kind,
    /// For people and agents.
    pub about: &'static str,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Name of the SQL function and of the tool.
    pub name: &'static str,
    /// Path; `{id}` in it is the parameter of that name.
    pub path: &'static str,
    /// For people and agents.
    pub about: &'static str,
    /// Its parameters; a tenant is added where the caller may choose one.
    pub parameters: &'static [Parameter],
    /// Names of those that must be given.
    pub required: &'static [&'static str],
    /// Its SQL.
    pub question: Question,
}

const fn parameter(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

/// Whose events; only for callers whose credential does not say it.
pub const TENANT: Parameter = parameter("tenant", Kind::Text, "Only events of this tenant.");

const WINDOW: Parameter = parameter(
    "window",
    Kind::Interval,
    "How far back from now, such as `6 hours`. Default: 1 hour.",
);
const SERVICE: Parameter = parameter("service", Kind::Text, "Only of this service.");
const LIMIT: Parameter = parameter("limit", Kind::Number, "Rows at most.");
const START: Parameter = parameter("start_time", Kind::Time, "From this time on, RFC 3339.");
const END: Parameter = parameter("end_time", Kind::Time, "Before this time, RFC 3339.");
const ID: Parameter = parameter("id", Kind::Id, "The event's id, a UUID.");
const TIMESTAMP: Parameter = parameter(
    "timestamp",
    Kind::Time,
    "The event's time, if it is known: faster, and certain.",
);

/// All questions.
pub const CATALOGUE: &[Entry] = &[
    Entry {
        name: "search_logs",
        path: "/api/v1/search",
        about: "Finds log events, newest first. Parameters are joined by AND. Without a time and without user, \
                correlation or trace id: the last hour.",
        parameters: &[
            parameter("query", Kind::Text, "Text in the message, case ignored."),
            parameter("level", Kind::Level, "TRACE, DEBUG, INFO, WARN, ERROR or FATAL."),
            SERVICE,
            parameter("user_id", Kind::Text, "Only of this user."),
            parameter("correlation_id", Kind::Text, "Only of this correlation id."),
            parameter("trace_id", Kind::Text, "Only of this trace id."),
            parameter("tags", Kind::Texts, "All of these tags."),
            parameter("fields", Kind::Object, "What `fields` must contain, as a JSON object."),
            START,
            END,
            parameter("limit", Kind::Number, "Rows, 1 to 10000. Default: 100."),
            parameter("before", Kind::Text, "`next` of the answer before: the page after it."),
        ],
        required: &[],
        question: Question::SEARCH_LOGS,
    },
    Entry {
        name: "get_log",
        path: "/api/v1/logs/{id}",
        about: "One event by its id, with everything that is stored of it.",
        parameters: &[ID, TIMESTAMP],
        required: &["id"],
        question: Question::GET_LOG,
    },
    Entry {
        name: "get_log_context",
        path: "/api/v1/logs/{id}/context",
        about: "What the same service on the same host logged before (place < 0) and after (place > 0) an event.",
        parameters: &[
            ID,
            parameter("before", Kind::Number, "Events before it, at most 1000. Default: 10."),
            parameter("after", Kind::Number, "Events after it, at most 1000. Default: 10."),
            TIMESTAMP,
        ],
        required: &["id"],
        question: Question::GET_LOG_CONTEXT,
    },
    Entry {
        name: "trace_logs",
        path: "/api/v1/traces/{id}",
        about: "All events of one correlation id or trace id over all services, oldest first.",
        parameters: &[
            parameter("id", Kind::Text, "A correlation id or trace id."),
            START,
            END,
            LIMIT,
        ],
        required: &["id"],
        question: Question::TRACE_LOGS,
    },
    Entry {
        name: "get_error_stats",
        path: "/api/v1/errors/stats",
        about: "Errors per service: how many, the rate, how many kinds and users, the change against the time before, \
                and the most frequent kind of message.",
        parameters: &[WINDOW],
        required: &[],
        question: Question::GET_ERROR_STATS,
    },
    Entry {
        name: "top_error_patterns",
        path: "/api/v1/errors/patterns",
        about: "The most frequent kinds of error messages, with numbers and ids masked.",
        parameters: &[WINDOW, SERVICE, LIMIT],
        required: &[],
        question: Question::TOP_ERROR_PATTERNS,
    },
    Entry {
        name: "new_error_patterns",
        path: "/api/v1/errors/new-patterns",
        about: "Kinds of error messages that were never seen before.",
        parameters: &[WINDOW, LIMIT],
        required: &[],
        question: Question::NEW_ERROR_PATTERNS,
    },
    Entry {
        name: "get_log_volume",
        path: "/api/v1/volume",
        about: "Events and errors over time, per service and level.",
        parameters: &[
            WINDOW,
            parameter("bucket", Kind::Interval, "Width of a bucket, such as `5 minutes`."),
            SERVICE,
            parameter("level", Kind::Level, "Only of this level."),
        ],
        required: &[],
        question: Question::GET_LOG_VOLUME,
    },
    Entry {
        name: "get_latency_stats",
        path: "/api/v1/latency",
        about: "Durations per service: average, p50, p95, p99, maximum, in ms.",
        parameters: &[WINDOW, SERVICE],
        required: &[],
        question: Question::GET_LATENCY_STATS,
    },
    Entry {
        name: "service_dependencies",
        path: "/api/v1/dependencies",
        about: "Which service follows which within requests, how often, and how often it failed.",
        parameters: &[WINDOW],
        required: &[],
        question: Question::SERVICE_DEPENDENCIES,
    },
    Entry {
        name: "detect_anomalies",
        path: "/api/v1/anomalies",
        about: "Services whose events, errors or durations differ from the same time of earlier days.",
        parameters: &[
            WINDOW,
            parameter(
                "threshold",
                Kind::Decimal,
                "Robust standard deviations from which on. Default: 3.5.",
            ),
            parameter("days", Kind::Number, "Days to compare with, 3 to 60. Default: 7."),
        ],
        required: &[],
        question: Question::DETECT_ANOMALIES,
    },
    Entry {
        name: "silent_services",
        path: "/api/v1/silent-services",
        about: "Services that logged lately, but not any more.",
        parameters: &[
            parameter("window", Kind::Interval, "Silent for this long. Default: 5 minutes."),
            parameter("known", Kind::Interval, "Seen within this. Default: 1 day."),
        ],
        required: &[],
        question: Question::SILENT_SERVICES,
    },
];

impl Entry {
    /// Reads one parameter's text.
    ///
    /// # Errors
    /// What is wrong with it, for whoever asked.
    pub fn read(&self, name: &str, text: &str, into: &mut Map<String, Value>) -> Result<(), String> {
        let known = self.parameters.iter().chain([&TENANT]).find(|known| known.name == name);
        let Some(parameter) = known else {
            let names: Vec<&str> = self.parameters.iter().map(|known| known.name).collect();
            return Err(format!(
                "`{name}` is no parameter of {}; it has {}",
                self.name,
                names.join(", ")
            ));
        };
        let wrong = |what: &str| Err(format!("`{name}` must be {what}, not `{}`", shortened(text)));
        let value = match parameter.kind {
            Kind::Text | Kind::Time | Kind::Interval => json!(text),
            // A level that there is not would find nothing, which looks as if all were well.
            Kind::Level => match levels().iter().find(|level| level.eq_ignore_ascii_case(text)) {
                Some(level) => json!(level),
                None => return wrong("one of TRACE, DEBUG, INFO, WARN, ERROR and FATAL"),
            },
            Kind::Id => match uuid::Uuid::try_parse(text) {
                Ok(id) => json!(id),
                Err(_) => return wrong("a UUID"),
            },
            Kind::Number => match text.parse::<i32>() {
                Ok(number) => json!(number),
                Err(_) => return wrong("a whole number"),
            },
            Kind::Decimal => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => json!(number),
                Ok(_) | Err(_) => return wrong("a number"),
            },
            Kind::Texts => {
                let texts = into.entry(name).or_insert_with(|| json!([]));
                if let Some(texts) = texts.as_array_mut() {
                    texts.push(json!(text));
                }
                return Ok(());
            }
            Kind::Object => match serde_json::from_str::<Value>(text) {
                Ok(object @ Value::Object(_)) => object,
                Ok(_) | Err(_) => return wrong("a JSON object"),
            },
        };
        match into.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(format!("`{name}` is given twice")),
        }
    }

    /// Takes a tool's arguments as they are: JSON values of the parameters' kinds.
    ///
    /// # Errors
    /// What is wrong with them, for whoever asked.
    pub fn read_all(&self, arguments: &Map<String, Value>) -> Result<Map<String, Value>, String> {
        let mut read = Map::new();
        for (name, value) in arguments {
            match value {
                Value::Null => {}
                Value::String(text) => self.read(name, text, &mut read)?,
                Value::Array(items) => {
                    for item in items {
                        self.read(name, item.as_str().unwrap_or(&item.to_string()), &mut read)?;
                    }
                }
                Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
                    self.read(name, &value.to_string(), &mut read)?;
                }
            }
        }
        self.check_required(&read)?;
        Ok(read)
    }

    /// # Errors
    /// Which parameter is missing.
    pub fn check_required(&self, read: &Map<String, Value>) -> Result<(), String> {
        match self.required.iter().find(|name| !read.contains_key(**name)) {
            None => Ok(()),
            Some(name) => Err(format!("`{name}` is missing: {} needs it", self.name)),
        }
    }

    /// JSON Schema of its parameters.
    #[must_use]
    pub fn schema(&self) -> Map<String, Value> {
        let properties: Map<String, Value> = self
            .parameters
            .iter()
            .chain([&TENANT])
            .map(|parameter| (parameter.name.to_owned(), parameter.schema()))
            .collect();
        let mut schema = Map::new();
        schema.insert("type".to_owned(), json!("object"));
        schema.insert("properties".to_owned(), Value::Object(properties));
        schema.insert("required".to_owned(), json!(self.required));
        schema.insert("additionalProperties".to_owned(), json!(false));
        schema
    }
}

impl Parameter {
    /// JSON Schema of its value.
    #[must_use]
    pub fn schema(&self) -> Value {
        let mut schema = match self.kind {
            Kind::Text | Kind::Interval => json!({"type": "string"}),
            Kind::Level => json!({"type": "string", "enum": levels()}),
            Kind::Id => json!({"type": "string", "format": "uuid"}),
            Kind::Time => json!({"type": "string", "format": "date-time"}),
            Kind::Number => json!({"type": "integer"}),
            Kind::Decimal => json!({"type": "number"}),
            Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
            Kind::Object => json!({"type": "object"}),
        };
        if let Some(schema) = schema.as_object_mut() {
            schema.insert("description".to_owned(), json!(self.about));
        }
        schema
    }
}

fn levels() -> [&'static str; 6] {
    Level::ALL.map(Level::as_str)
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(80)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> &'static Entry {
        CATALOGUE.iter().find(|entry| entry.name == name).unwrap()
    }

    #[test]
    fn what_is_given_is_read_by_its_kind_and_what_is_not_known_is_named() {
        let search = entry("search_logs");
        let mut read = Map::new();
        for (name, text) in [
            ("limit", "5"),
            ("tags", "a"),
            ("tags", "b"),
            ("fields", r#"{"a":1}"#),
            ("query", "5"),
            ("level", "error"),
            ("tenant", "t"),
        ] {
            search.read(name, text, &mut read).unwrap();
        }
        assert_eq!(
            Value::Object(read.clone()),
            json!({"limit": 5, "tags": ["a", "b"], "fields": {"a": 1}, "query": "5", "level": "ERROR", "tenant": "t"})
        );
        for (name, text, said) in [
            ("limit", "many", "must be a whole number"),
            ("fields", "[1]", "must be a JSON object"),
            (
                "window",
                "1 hour",
                "`window` is no parameter of search_logs; it has query, level",
            ),
            ("query", "again", "given twice"),
            (
                "level",
                "ERRROR",
                "must be one of TRACE, DEBUG, INFO, WARN, ERROR and FATAL, not `ERRROR`",
            ),
        ] {
            let error = search.read(name, text, &mut read).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn arguments_of_a_tool_are_the_same_as_those_of_a_url() {
        let given = json!({"limit": 5, "tags": ["a", "b"], "fields": {"a": 1}, "level": null});
        let read = entry("search_logs").read_all(given.as_object().unwrap()).unwrap();
        assert_eq!(
            Value::Object(read),
            json!({"limit": 5, "tags": ["a", "b"], "fields": {"a": 1}})
        );
        let missing = entry("get_log").read_all(&Map::new()).unwrap_err();
        assert_eq!(missing, "`id` is missing: get_log needs it");
    }

    #[test]
    fn names_and_paths_are_unique_and_what_a_path_holds_is_a_parameter() {
        for entry in CATALOGUE {
            assert_eq!(
                CATALOGUE
                    .iter()
                    .filter(|other| other.path == entry.path || other.name == entry.name)
                    .count(),
                1
            );
            assert_eq!(
                entry.path.contains("{id}"),
                entry.required.contains(&"id"),
                "{}",
                entry.name
            );
            assert!(
                entry
                    .required
                    .iter()
                    .all(|name| entry.parameters.iter().any(|known| known.name == *name))
            );
        }
    }
}
