//! Merges the sources, reads the files that hold secrets, and checks everything before it says anything.
//!
//! figment stops at the first error of an extraction. So each section is extracted until it succeeds: a value that was
//! refused is noted with where it came from, its default takes its place, and the next try finds the next mistake.

use std::{collections::BTreeSet, fs, path::Path};

use figment::{
    Figment,
    error::{Actual, Kind as ErrorKind},
};
use serde::de::DeserializeOwned;
use toml::Value;

use super::{
    Config, check, credentials,
    known::{self, Kind, Place},
    print,
    report::{Given, Mistake, Report, nearest},
    secret,
    setting::{Origin, Setting},
    source::{self, Sources},
};

/// Keys that name a file, and the keys whose value the file holds.
const HELD_IN_FILES: [(&str, &str); 4] = [
    ("database.url_file", "database.url"),
    ("api.database_url_file", "api.database_url"),
    ("elasticsearch.password_file", "elasticsearch.password"),
    ("elasticsearch.api_key_file", "elasticsearch.api_key"),
];

/// A configuration without mistakes, and how it came to be.
#[derive(Debug)]
pub struct Loaded {
    /// What the program runs by.
    pub config: Config,
    /// What is no mistake but may surprise; one line each.
    pub notes: Vec<String>,
    merge: Merge,
}

impl Loaded {
    /// The merged configuration as TOML: secrets hidden, behind each value where it came from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::configuration(&self.merge)
    }

    /// What is not the default, as `section.key = value (source)`, secrets hidden.
    #[must_use]
    pub fn changes(&self) -> Vec<String> {
        let keys: BTreeSet<String> = self.merge.settings.iter().map(Setting::key).collect();
        let winners = keys.iter().filter_map(|key| Some((key, self.merge.winner(key)?)));
        winners
            .filter(|(_, setting)| setting.origin != Origin::Default)
            .map(|(key, setting)| {
                format!(
                    "{key} = {} ({})",
                    print::value(&secret::shown(key, &setting.value)),
                    setting.origin
                )
            })
            .collect()
    }

    /// Where the value of `section.key` came from; `None` if it has none.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<String> {
        self.merge.winner(key).map(|setting| setting.origin.to_string())
    }
}

/// Reads, merges and checks the configuration.
///
/// # Errors
/// All mistakes at once; no secret stands in them.
pub fn load(sources: &Sources) -> Result<Loaded, Report> {
    load_with(sources, |_| Vec::new())
}

/// As [`load()`], with what a module that this one must not know finds wrong: keys and messages.
///
/// # Errors
/// All mistakes at once, those of `further` among them.
pub fn load_with(sources: &Sources, further: impl Fn(&Config) -> Vec<(String, String)>) -> Result<Loaded, Report> {
    let collected = source::collect(sources);
    let mut merge = Merge {
        settings: collected.settings,
        broken: BTreeSet::new(),
        mistakes: collected.mistakes,
        notes: collected.notes,
    };
    merge.read_files();
    let config = merge.extract();
    if let Some(mut config) = config {
        credentials::settle(&mut config, &mut merge);
        check::between_keys(&config, &mut merge);
        for (key, message) in further(&config) {
            merge.refuse(&[&key], message);
        }
        if merge.mistakes.is_empty() {
            let notes = std::mem::take(&mut merge.notes);
            return Ok(Loaded { config, notes, merge });
        }
    }
    Err(Report {
        mistakes: merge.mistakes,
    })
}

/// All values, those that were refused, and what is wrong with them.
#[derive(Debug)]
pub(super) struct Merge {
    settings: Vec<Setting>,
    broken: BTreeSet<String>,
    mistakes: Vec<Mistake>,
    pub(super) notes: Vec<String>,
}

impl Merge {
    /// The value that goes over all others for a key.
    pub(super) fn winner(&self, key: &str) -> Option<&Setting> {
        self.settings.iter().rev().find(|setting| setting.key() == key)
    }

    /// The values in a table, one a name.
    pub(super) fn members(&self, key: &str) -> Vec<&Setting> {
        let prefix = format!("{key}.");
        let names: BTreeSet<String> = self
            .settings
            .iter()
            .map(Setting::key)
            .filter(|full| full.starts_with(&prefix))
            .collect();
        names.iter().filter_map(|name| self.winner(name)).collect()
    }

    /// Notes a mistake about keys; silent if one of them was refused before, since its default stands in its place.
    pub(super) fn refuse(&mut self, keys: &[&str], message: impl Into<String>) {
        if keys.iter().any(|key| self.broken.contains(*key)) {
            return;
        }
        let given = keys
            .iter()
            .map(|key| match self.winner(key) {
                Some(setting) => Given {
                    key: (*key).to_owned(),
                    shown: Some(print::value(&secret::shown(key, &setting.value))),
                    origin: Some(setting.origin.to_string()),
                },
                None => Given {
                    key: (*key).to_owned(),
                    shown: None,
                    origin: None,
                },
            })
            .collect();
        self.mistakes.push(Mistake {
            given,
            message: message.into(),
        });
    }

    /// Notes a mistake and puts the default in the place of what was given.
    fn repair(&mut self, key: &str, found: &'static str, message: String) {
        self.refuse(&[key], message);
        self.broken.insert(found.to_owned());
        self.settings
            .retain(|setting| setting.key() != key || setting.origin == Origin::Default);
    }

    /// Puts what is in files in the place of the keys that name them; of two values the one from the later source wins.
    fn read_files(&mut self) {
        for (file_key, key) in HELD_IN_FILES {
            let Some(named) = self.winner(file_key).cloned() else {
                continue;
            };
            let Some(path) = named.value.as_str().map(Path::new) else {
                continue;
            };
            if let Some(direct) = self.winner(key) {
                if direct.origin.rank() == named.origin.rank() {
                    self.refuse(&[key, file_key], "both are given in the same place; give one of them");
                    continue;
                }
                if direct.origin.rank() > named.origin.rank() {
                    self.notes.push(format!(
                        "{file_key} is not read: {key} from {} goes over it",
                        direct.origin
                    ));
                    continue;
                }
            }
            match read_secret(path) {
                Ok(text) => {
                    let by = Box::new(named.origin);
                    let origin = Origin::Contents {
                        path: path.to_owned(),
                        key: file_key,
                        by,
                    };
                    self.settings.push(Setting::new(key, Value::String(text), origin));
                }
                Err(message) => {
                    self.refuse(&[file_key], message);
                    self.broken.extend([file_key.to_owned(), key.to_owned()]);
                }
            }
        }
    }

    fn extract(&mut self) -> Option<Config> {
        // Each section is tried even if one before it cannot be had, so that its mistakes are in the report too.
        let (http, auth, tls) = (self.section("http"), self.section("auth"), self.section("tls"));
        let events = self.section("events");
        let (database, storage) = (self.section("database"), self.section("storage"));
        let elasticsearch = self.section("elasticsearch");
        let (delivery, retention) = (self.section("delivery"), self.section("retention"));
        let (api, log) = (self.section("api"), self.section("log"));
        Some(Config {
            http: http?,
            auth: auth?,
            tls: tls?,
            events: events?,
            database: database?,
            storage: storage?,
            elasticsearch: elasticsearch?,
            delivery: delivery?,
            retention: retention?,
            api: api?,
            log: log?,
        })
    }

    fn section<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        loop {
            let merged = self.settings.iter().fold(Figment::new(), Figment::merge);
            let error = match section_of(&merged, name) {
                Ok(section) => return Some(section),
                Err(error) => error,
            };
            let mut path = vec![name.to_owned()];
            path.extend(error.path.iter().cloned());
            let found = loop {
                match known::find(&path) {
                    Place::Key(found, kind) => break Some((found, kind)),
                    Place::Section | Place::Nowhere if path.len() <= 1 => break None,
                    Place::Section | Place::Nowhere => path.truncate(path.len() - 1),
                }
            };
            let Some((found, kind)) = found.filter(|(found, _)| {
                let key = path.join(".");
                !self.broken.contains(*found) || self.winner(&key).is_some_and(|given| given.origin != Origin::Default)
            }) else {
                let message = format!("section [{name}] cannot be read");
                self.mistakes.push(Mistake {
                    given: Vec::new(),
                    message,
                });
                return None;
            };
            self.repair(&path.join("."), found, explain(found, kind, &error.kind));
        }
    }
}

fn section_of<T: DeserializeOwned>(merged: &Figment, name: &str) -> Result<T, Box<figment::Error>> {
    let value = merged.find_value(name)?;
    Ok(T::deserialize(&value)?)
}

/// What was wrong with one value, without quoting a secret.
fn explain(key: &str, kind: Kind, error: &ErrorKind) -> String {
    match error {
        ErrorKind::Message(message) => message.clone(),
        ErrorKind::UnknownVariant(given, _) if key == "database.synchronous_commit" && given == "off" => {
            "acknowledged events would be lost when PostgreSQL's machine crashes; if that is acceptable, write \
             \"off_and_accept_loss\""
                .to_owned()
        }
        ErrorKind::UnknownVariant(given, choices) => {
            let near = nearest(given, choices.iter().copied());
            let hint = near.map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"));
            format!("is one of {}{hint}", choices.join(", "))
        }
        ErrorKind::InvalidType(found, _) | ErrorKind::InvalidValue(found, _) => {
            format!("is {}, not {}", kind_given(found), kind_wanted(kind))
        }
        ErrorKind::ISizeOutOfRange(_) | ErrorKind::USizeOutOfRange(_) => "is too large a number".to_owned(),
        ErrorKind::InvalidLength(..)
        | ErrorKind::UnknownField(..)
        | ErrorKind::MissingField(_)
        | ErrorKind::DuplicateField(_)
        | ErrorKind::Unsupported(_)
        | ErrorKind::UnsupportedKey(..) => format!("cannot be read; write {}", kind_wanted(kind)),
    }
}

fn kind_given(actual: &Actual) -> &'static str {
    match actual {
        Actual::Bool(_) => "true or false",
        Actual::Signed(number) if *number < 0 => "a negative number",
        Actual::Unsigned(_) | Actual::Signed(_) => "a number",
        Actual::Float(_) => "a number with a fraction",
        Actual::Str(text) if text.is_empty() => "empty",
        Actual::Str(_) | Actual::Char(_) | Actual::Bytes(_) => "text",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        Actual::Unit
        | Actual::Option
        | Actual::NewtypeStruct
        | Actual::Enum
        | Actual::UnitVariant
        | Actual::NewtypeVariant
        | Actual::TupleVariant
        | Actual::StructVariant
        | Actual::Other(_) => "something else",
    }
}

fn kind_wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text in quotes",
        Kind::Number => "a whole number in range",
        Kind::Truth => "true or false",
        Kind::List => "a list of texts: [\"one\", \"two\"]",
        Kind::Table => "a table of texts: { name = \"type\" }",
    }
}

/// Reads a file that holds one secret; line ends at its end are not a part of it.
///
/// # Errors
/// What is wrong, without anything of what the file holds.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("the file cannot be read: {error}"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        Err("the file is empty".to_owned())
    } else {
        Ok(text.to_owned())
    }
}
