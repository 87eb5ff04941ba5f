//! Where values come from: the embedded file, one file, the environment, flags. Each becomes a list of [`Setting`]s.
//!
//! Nothing is guessed: text from the environment or a flag is read by the kind that the key has in the default file, so
//! a password of digits stays a text. Variables that do not begin with `LOG_WRITER__` are not ours (Kubernetes gives
//! every container `LOG_WRITER_SERVICE_HOST` if a service has that name).

use std::{
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use toml::Value;

use super::{
    known::{self, Kind, Place},
    report::{Given, Mistake, nearest},
    secret,
    setting::{Origin, Setting, split},
};

/// The file that is read if no other is named and it exists.
pub const USUAL_FILE: &str = "/etc/log-writer/log-writer.toml";
const FILE_VARIABLE: &str = "LOG_WRITER_CONFIG";
const PREFIX: &str = "LOG_WRITER__";
/// Variables that platforms set, below `LOG_WRITER__…`, and the keys they mean.
const PLATFORM: [(&str, &str); 3] = [
    ("DATABASE_URL", "database.url"),
    ("ELASTICSEARCH_URL", "elasticsearch.urls"),
    ("RUST_LOG", "log.filter"),
];

/// What the configuration is read from.
#[derive(Clone)]
pub struct Sources {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// Flags in their order: how the flag is called, key, value.
    pub flags: Vec<(String, String, String)>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// [`USUAL_FILE`], elsewhere in tests.
    pub usual_file: PathBuf,
}

impl Sources {
    /// The sources of this process. `set` has the texts of `--set`, `listen` that of `--listen`.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, set: &[String], listen: Option<&str>) -> Self {
        let mut flags: Vec<_> = set
            .iter()
            .map(|text| {
                let (key, value) = text.split_once('=').unwrap_or((text, ""));
                ("--set".to_owned(), key.trim().to_owned(), value.to_owned())
            })
            .collect();
        if let Some(listen) = listen {
            flags.push(("--listen".to_owned(), "http.listen".to_owned(), listen.to_owned()));
        }
        Self {
            file,
            flags,
            environment: std::env::vars_os().collect(),
            usual_file: PathBuf::from(USUAL_FILE),
        }
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Environment and flags may hold secrets of ours and of others.
        let Self {
            file,
            flags: _,
            environment: _,
            usual_file,
        } = self;
        let mut out = formatter.debug_struct("Sources");
        out.field("file", file)
            .field("usual_file", usual_file)
            .finish_non_exhaustive()
    }
}

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// Lowest first.
    pub(super) settings: Vec<Setting>,
    pub(super) mistakes: Vec<Mistake>,
    /// What is no mistake but may surprise.
    pub(super) notes: Vec<String>,
}

/// Reads all sources.
pub(super) fn collect(sources: &Sources) -> Collected {
    let mut collected = Collected::default();
    for known in known::all() {
        if let Some(default) = &known.default {
            collected
                .settings
                .push(Setting::new(&known.key, default.clone(), Origin::Default));
        }
    }
    let environment = collected.environment(sources);
    collected.file(sources, &environment);
    for (variable, key) in PLATFORM {
        if let Some((_, text)) = environment
            .iter()
            .find(|(name, text)| name == variable && !text.trim().is_empty())
        {
            collected.text(split(key), text, Origin::Platform(variable));
        }
    }
    for (name, text) in &environment {
        if let Some(rest) = name.strip_prefix(PREFIX) {
            let path = rest.split("__").map(str::to_ascii_lowercase).collect();
            collected.text(path, text, Origin::Variable(name.clone()));
        } else {
            collected.note_a_near_miss(name);
        }
    }
    for (flag, key, value) in &sources.flags {
        let origin = Origin::Flag(flag.clone());
        if secret::is_in(key, value) {
            let advice = "holds a secret, and whoever is on this machine can read the arguments of a process: give it by a file \
                          (`…_file`, `config` itself) or by the environment";
            collected.mistake(key, &origin, advice.to_owned());
        } else {
            collected.text(split(key), value, origin);
        }
    }
    collected
}

impl Collected {
    /// The variables that can be ours, sorted by name.
    fn environment(&mut self, sources: &Sources) -> Vec<(String, String)> {
        let mut ours = Vec::new();
        for (name, text) in &sources.environment {
            let Some(name) = name.to_str() else { continue };
            if !name.starts_with("LOG_WRITER_") && !PLATFORM.iter().any(|(variable, _)| *variable == name) {
                continue;
            }
            match text.to_str() {
                Some(text) => ours.push((name.to_owned(), text.to_owned())),
                None => self.mistake(name, &Origin::Variable(name.to_owned()), "is not UTF-8 text".to_owned()),
            }
        }
        ours.sort();
        ours
    }

    fn file(&mut self, sources: &Sources, environment: &[(String, String)]) {
        let variable = environment
            .iter()
            .find(|(name, path)| name == FILE_VARIABLE && !path.is_empty());
        let (path, named_by) = match (&sources.file, variable) {
            (Some(path), _) => (path.clone(), "flag --config"),
            (None, Some((_, path))) => (PathBuf::from(path), "environment LOG_WRITER_CONFIG"),
            (None, None) => (sources.usual_file.clone(), ""),
        };
        match fs::read_to_string(&path) {
            Ok(text) => self.toml(&path, &text),
            Err(error) if named_by.is_empty() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let from = if named_by.is_empty() {
                    String::new()
                } else {
                    format!(", named by {named_by},")
                };
                let message = format!(
                    "the configuration file {}{from} cannot be read: {error}",
                    path.display()
                );
                self.mistakes.push(Mistake {
                    given: Vec::new(),
                    message,
                });
            }
        }
    }

    fn toml(&mut self, path: &Path, text: &str) {
        match toml::from_str::<toml::Table>(text) {
            Ok(table) => self.table(path, text, &[], &table),
            Err(error) => {
                // The error's own text quotes the line, which may hold a secret.
                let place = error
                    .span()
                    .and_then(|span| text.get(..span.start))
                    .map_or_else(String::new, |before| {
                        format!(", line {}", before.matches('\n').count() + 1)
                    });
                let what = error.message().lines().collect::<Vec<_>>().join(", ");
                let message = format!("the configuration file {}{place} is not TOML: {what}", path.display());
                self.mistakes.push(Mistake {
                    given: Vec::new(),
                    message,
                });
            }
        }
    }

    fn table(&mut self, file: &Path, text: &str, above: &[String], table: &toml::Table) {
        for (name, value) in table {
            let path: Vec<String> = above.iter().chain([name]).cloned().collect();
            let key = path.join(".");
            let origin = || Origin::File(file.to_owned(), known::line_of(text, &key));
            match (known::find(&path), value) {
                (Place::Key(_, Kind::Table), Value::Table(inner)) | (Place::Section, Value::Table(inner)) => {
                    self.table(file, text, &path, inner);
                }
                (Place::Key(..), _) => self.settings.push(Setting {
                    path,
                    value: value.clone(),
                    origin: origin(),
                }),
                (Place::Section, _) => {
                    self.mistake(
                        &key,
                        &origin(),
                        format!("is a section; write [{key}] and its keys below"),
                    );
                }
                (Place::Nowhere, _) => self.mistake(&key, &origin(), unknown(&path)),
            }
        }
    }

    fn text(&mut self, path: Vec<String>, text: &str, origin: Origin) {
        let key = path.join(".");
        match known::find(&path) {
            Place::Nowhere => self.mistake(&key, &origin, unknown(&path)),
            Place::Section => self.mistake(&key, &origin, "is a section; name one of its keys".to_owned()),
            Place::Key(found, kind) => {
                let optional = known::all()
                    .iter()
                    .any(|known| known.key == found && known.default.is_none());
                // Compose files and charts write KEY=${KEY:-}: nothing is given.
                if optional && text.is_empty() {
                    return;
                }
                let kind = if key == found { kind } else { Kind::Text };
                match (kind, read(kind, text)) {
                    (Kind::Table, Value::Table(table)) => {
                        for (name, value) in table {
                            let path = path.iter().cloned().chain([name]).collect();
                            self.settings.push(Setting {
                                path,
                                value,
                                origin: origin.clone(),
                            });
                        }
                    }
                    (_, value) => self.settings.push(Setting { path, value, origin }),
                }
            }
        }
    }

    fn mistake(&mut self, key: &str, origin: &Origin, message: String) {
        let given = Given {
            key: key.to_owned(),
            shown: None,
            origin: Some(origin.to_string()),
        };
        self.mistakes.push(Mistake {
            given: vec![given],
            message,
        });
    }

    /// `LOG_WRITER_HTTP_LISTEN` is not read; whoever sets it believes that it is.
    fn note_a_near_miss(&mut self, name: &str) {
        let Some(rest) = name.strip_prefix("LOG_WRITER_") else {
            return;
        };
        let flat = |text: &str| text.to_ascii_lowercase().replace("__", "_");
        if let Some(known) = known::all()
            .iter()
            .find(|known| known.key.replace('.', "_") == flat(rest))
        {
            let right = known.key.to_ascii_uppercase().replace('.', "__");
            self.notes.push(format!(
                "environment {name} is not read; {PREFIX}{right} is, with two underscores"
            ));
        }
    }
}

/// Reads text by the kind of its key; what does not fit stays text, so that the section's own check names it.
fn read(kind: Kind, text: &str) -> Value {
    let as_text = || Value::String(text.to_owned());
    match kind {
        Kind::Text => as_text(),
        Kind::Number => text.trim().parse().map_or_else(|_| as_text(), Value::Integer),
        Kind::Truth => text
            .trim()
            .to_ascii_lowercase()
            .parse()
            .map_or_else(|_| as_text(), Value::Boolean),
        Kind::Table => toml::from_str::<toml::Table>(&format!("value = {text}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(as_text),
        Kind::List => {
            let inner = text.trim();
            let inner = inner
                .strip_prefix('[')
                .and_then(|rest| rest.strip_suffix(']'))
                .unwrap_or(inner);
            let items = inner
                .split(',')
                .map(|item| unquoted(item.trim()))
                .filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
    }
}

fn unquoted(item: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = item.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    item
}

/// Says that a key does not exist, and which was probably meant.
fn unknown(path: &[String]) -> String {
    let (name, section) = path
        .split_last()
        .map_or((String::new(), String::new()), |(n, s)| (n.clone(), s.join(".")));
    let elsewhere = known::all()
        .iter()
        .find(|known| known.key.rsplit('.').next() == Some(name.as_str()));
    let same_section = known::keys_of(&section)
        .into_iter()
        .filter_map(|known| known.key.rsplit('.').next());
    if let Some(near) = nearest(&name, same_section) {
        return format!("there is no such key; did you mean `{section}.{near}`?");
    }
    if section.is_empty()
        && let Some(near) = nearest(&name, known::sections())
    {
        return format!("there is no such section; did you mean [{near}]?");
    }
    if let Some(near) = nearest(&section, known::sections()) {
        if near == section {
            return elsewhere.map_or_else(
                || format!("there is no such key in [{section}]"),
                |known| format!("there is no such key in [{section}]; did you mean `{}`?", known.key),
            );
        }
        return format!("there is no section [{section}]; did you mean `{near}.{name}`?");
    }
    match elsewhere {
        Some(known) => format!("there is no such key; did you mean `{}`?", known.key),
        None => format!(
            "there is no such key; the sections are {}",
            known::sections().join(", ")
        ),
    }
}
