//! Where each part of an event is looked for: the configured names as one table, asked once for every member.
//!
//! A dotted name stands for a dotted key, for nested members, and for any mixture of the two, since all of them have
//! the same dotted path.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{severity::Scale, signs::Sign};
use crate::config::Aliases;

/// Why the alias lists cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", mistakes.join("; "))]
pub struct InvalidAliases {
    mistakes: Vec<String>,
}

impl InvalidAliases {
    /// Every mistake, each a sentence that names the key.
    pub fn mistakes(&self) -> &[String] {
        &self.mistakes
    }
}

/// What a value can be to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Id,
    Timestamp,
    Level,
    Message,
    Service,
    Host,
    CorrelationId,
    UserId,
    TraceId,
    SpanId,
    Tags,
    ErrorDetails,
    PerformanceMetrics,
    AiAnalysis,
    Tenant,
}

impl Role {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Tenant as usize + 1;
}

/// A name's part in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) role: Role,
    /// Place in its list: the lowest usable one wins.
    pub(super) rank: u16,
    /// For levels.
    pub(super) scale: Scale,
    /// W3C `traceparent`: trace and span id in one text.
    pub(super) traceparent: bool,
}

/// Members with a meaning of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    /// `fields`: merged into ours.
    Fields,
    /// `_log_writer`: ours; a sender's is kept inside.
    Notes,
}

/// The reserved member of `fields` that holds our notes.
pub(super) const NOTES: &str = "_log_writer";

/// What is known of one dotted path.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) path: Box<str>,
    pub(super) claim: Option<Claim>,
    pub(super) sign: Option<Sign>,
    pub(super) reserved: Option<Reserved>,
    /// The best claim of each role on a longer path.
    pub(super) below: Vec<(Role, u16)>,
}

/// All known paths.
#[derive(Debug)]
pub(super) struct AliasTable {
    entries: HashMap<Box<str>, Entry, BuildHasherDefault<PathHasher>>,
}

impl AliasTable {
    /// Builds the table and names all mistakes in it.
    pub(super) fn new(aliases: &Aliases) -> Result<Self, InvalidAliases> {
        let mut table = Self {
            entries: HashMap::default(),
        };
        for (name, sign) in Sign::NAMES {
            table.entry(name).sign = Some(*sign);
        }
        table.entry("fields").reserved = Some(Reserved::Fields);
        table.entry(NOTES).reserved = Some(Reserved::Notes);
        let mut mistakes = Vec::new();
        for (list, role, names) in lists(aliases) {
            if names.len() > usize::from(u16::MAX) / 2 {
                mistakes.push(format!("events.aliases.{list}: too many names"));
                continue;
            }
            for (rank, name) in (0_u16..).zip(names) {
                if let Err(mistake) = table.add(name, role, rank) {
                    mistakes.push(format!("events.aliases.{list}: {mistake}"));
                }
            }
        }
        if mistakes.is_empty() {
            Ok(table)
        } else {
            Err(InvalidAliases { mistakes })
        }
    }

    /// What is known of a dotted path.
    pub(super) fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path)
    }

    fn entry(&mut self, path: &str) -> &mut Entry {
        self.entries.entry(path.into()).or_insert_with(|| Entry {
            path: path.into(),
            ..Entry::default()
        })
    }

    fn add(&mut self, name: &str, role: Role, rank: u16) -> Result<(), String> {
        if name.split('.').any(str::is_empty) || name.len() > 512 || name.split('.').count() > 32 {
            return Err(format!(
                "`{name}` is no name (1 to 512 bytes; up to 32 parts between dots, none of them empty)"
            ));
        }
        if name == NOTES || name == "fields" {
            return Err(format!("`{name}` is reserved"));
        }
        let entry = self.entry(name);
        if entry.claim.is_some() {
            return Err(format!("`{name}` is listed twice; a name can be one thing only"));
        }
        entry.claim = Some(Claim {
            role,
            rank,
            scale: Scale::of_alias(name),
            traceparent: role == Role::TraceId && name.rsplit('.').next() == Some("traceparent"),
        });
        for (at, _) in name.match_indices('.') {
            let above = self.entry(name.get(..at).unwrap_or_default());
            if !above.below.iter().any(|(known, _)| *known == role) {
                above.below.push((role, rank));
            }
        }
        Ok(())
    }
}

fn lists(aliases: &Aliases) -> [(&'static str, Role, &[String]); Role::COUNT] {
    [
        ("id", Role::Id, &aliases.id),
        ("timestamp", Role::Timestamp, &aliases.timestamp),
        ("level", Role::Level, &aliases.level),
        ("message", Role::Message, &aliases.message),
        ("service", Role::Service, &aliases.service),
        ("host", Role::Host, &aliases.host),
        ("correlation_id", Role::CorrelationId, &aliases.correlation_id),
        ("user_id", Role::UserId, &aliases.user_id),
        ("trace_id", Role::TraceId, &aliases.trace_id),
        ("span_id", Role::SpanId, &aliases.span_id),
        ("tags", Role::Tags, &aliases.tags),
        ("error_details", Role::ErrorDetails, &aliases.error_details),
        (
            "performance_metrics",
            Role::PerformanceMetrics,
            &aliases.performance_metrics,
        ),
        ("ai_analysis", Role::AiAnalysis, &aliases.ai_analysis),
        ("tenant", Role::Tenant, &aliases.tenant),
    ]
}

/// A fast hash for short names. The table holds configured names only, so a sender cannot fill its buckets.
#[derive(Debug, Default)]
pub(super) struct PathHasher(u64);

impl PathHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0xF135_7AEA_2E62_A9C5);
    }
}

impl Hasher for PathHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        // The last bytes, some of them perhaps for the second time.
        let tail = match (
            bytes.last_chunk::<8>(),
            bytes.first_chunk::<4>(),
            bytes.last_chunk::<4>(),
        ) {
            (Some(last), _, _) => u64::from_le_bytes(*last),
            (None, Some(first), Some(last)) => {
                u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last))
            }
            _ => bytes.iter().fold(0, |tail, byte| (tail << 8) | u64::from(*byte)),
        };
        self.mix(tail ^ (bytes.len() as u64).rotate_left(56));
    }

    fn write_u8(&mut self, _end: u8) {
        // Ends a `str`; the length is mixed in already.
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::default_settings, *};

    fn with(change: impl FnOnce(&mut Aliases)) -> Result<AliasTable, InvalidAliases> {
        let mut aliases = default_settings().aliases;
        change(&mut aliases);
        AliasTable::new(&aliases)
    }

    #[test]
    fn the_default_lists_are_free_of_mistakes() {
        let table = with(|_| {}).unwrap();
        let claim = table.get("message").unwrap().claim.unwrap();
        assert_eq!((claim.role, claim.rank), (Role::Message, 0));
        let log = table.get("log").unwrap();
        assert_eq!(log.claim.unwrap().role, Role::Message);
        assert!(log.below.iter().any(|(role, _)| *role == Role::Level));
        assert!(table.get("kubernetes.pod_labels.app.kubernetes").is_some());
        assert!(table.get("nothing.of.ours").is_none());
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let error = with(|aliases| {
            aliases.host.push("message".to_owned());
            aliases.user_id.push("a..b".to_owned());
            aliases.tags.push(String::new());
            aliases.id.push("_log_writer".to_owned());
        })
        .unwrap_err();
        assert_eq!(error.mistakes().len(), 4);
        let text = error.to_string();
        assert!(
            text.contains("events.aliases.host: `message` is listed twice"),
            "{text}"
        );
        assert!(text.contains("events.aliases.user_id: `a..b` is no name"), "{text}");
        assert!(text.contains("events.aliases.id: `_log_writer` is reserved"), "{text}");
    }
}
