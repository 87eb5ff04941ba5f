//! One value of one source, as figment takes it: a provider of its own, so that each value keeps where it came from.

use std::{
    fmt::{self, Display},
    path::PathBuf,
};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value as Merged},
};
use toml::Value;

use super::{print, secret};

/// Where a value came from, the later variants over the earlier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    Default,
    File(PathBuf, Option<usize>),
    Platform(&'static str),
    Variable(String),
    Flag(String),
    /// What a file holds that was named by a key of its own.
    Contents {
        path: PathBuf,
        key: &'static str,
        by: Box<Self>,
    },
}

impl Origin {
    /// Which goes over which: the higher over the lower.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(..) => 1,
            Self::Platform(_) => 2,
            Self::Variable(_) => 3,
            Self::Flag(_) => 4,
            Self::Contents { by, .. } => by.rank(),
        }
    }
}

impl Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path, Some(line)) => write!(formatter, "{}, line {line}", path.display()),
            Self::File(path, None) => write!(formatter, "{}", path.display()),
            Self::Platform(name) => write!(formatter, "environment {name}"),
            Self::Variable(name) => write!(formatter, "environment {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
            Self::Contents { path, key, by } => write!(formatter, "{}, named by {key} from {by}", path.display()),
        }
    }
}

/// One value of one source.
#[derive(Clone)]
pub(super) struct Setting {
    /// Sections, key and, in a table, the name.
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

impl Setting {
    /// A value for `section.key`.
    pub(super) fn new(key: &str, value: Value, origin: Origin) -> Self {
        Self {
            path: split(key),
            value,
            origin,
        }
    }

    /// `section.key`, with the name in it for a table.
    pub(super) fn key(&self) -> String {
        self.path.join(".")
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key();
        write!(
            formatter,
            "{key} = {} ({})",
            print::value(&secret::shown(&key, &self.value)),
            self.origin
        )
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut value = Merged::serialize(&self.value)?;
        for name in self.path.iter().skip(1).rev() {
            value = Merged::from(Dict::from([(name.clone(), value)]));
        }
        let section = self.path.first().cloned().unwrap_or_default();
        Ok(Map::from([(Profile::Default, Dict::from([(section, value)]))]))
    }
}

/// The parts of `section.key`.
pub(super) fn split(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}
