//! From a raw event to a log event: one `LogEvent` from the names of many senders, with nothing lost.
//!
//! Depends on nothing but the event, the settings and the arrival, so that a resend gives the same event but for the
//! arrival. It never fails for an object that is a log: what cannot be used as it is, is kept in `fields`.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{
    LogEvent, RawEvent, Timestamp, Unusable,
    aliases::{AliasTable, InvalidAliases},
    assembly::Assembly,
    scan::{Members, Value},
    text::{unescape, without_nul},
};
use crate::config::Events;

/// What is known of an event from outside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When its request came in.
    pub at: Timestamp,
    /// The tenant of the request's credential; `None` lets the body name one of those it may.
    pub tenant: Option<Arc<str>>,
    /// JSON object of what stood around the events of the request (`payload_prefix`); noted in each of them.
    pub wrapper: Option<Arc<str>>,
}

/// Turns raw events into log events, by the settings of section `[events]`.
#[derive(Debug)]
pub struct Normaliser {
    pub(super) aliases: AliasTable,
    pub(super) default_tenant: Arc<str>,
    pub(super) depth_max: usize,
    body_tenants: Vec<Arc<str>>,
    accept_past: i64,
    accept_future: i64,
}

impl Normaliser {
    /// Prepares the tables.
    ///
    /// # Errors
    /// If a name is empty, reserved, or listed for two parts of an event; all such mistakes at once.
    pub fn new(settings: &Events) -> Result<Self, InvalidAliases> {
        Ok(Self {
            aliases: AliasTable::new(&settings.aliases)?,
            default_tenant: Arc::from(settings.default_tenant.as_str()),
            // Below 1 no object would be one; PostgreSQL's parser has a stack of 2 MB.
            depth_max: settings.depth_max.clamp(1, 1000),
            body_tenants: settings
                .body_tenants
                .iter()
                .map(|name| Arc::from(name.as_str()))
                .collect(),
            accept_past: micros(settings.accept_past),
            accept_future: micros(settings.accept_future),
        })
    }

    /// Makes one log event, borrowing from the raw one where nothing had to be changed.
    ///
    /// # Errors
    /// If it is a metric or a trace, or no JSON.
    pub fn normalise<'a>(&self, raw: RawEvent<'a>, arrival: &Arrival) -> Result<LogEvent<'a>, Unusable> {
        match raw {
            RawEvent::Object(text) => self.normalise_object(text, arrival),
            RawEvent::Text(text) => {
                let cleaned = without_nul(text);
                Ok(self.bare_message(cleaned.text, cleaned.sanitized, arrival))
            }
            RawEvent::Value(text) => {
                let value = Value::read(text).map_err(|_| Unusable::Malformed)?;
                let cleaned = value.inner().map(|inner| unescape(inner, value.findings.escaped));
                Ok(match cleaned {
                    Some(cleaned) => self.bare_message(cleaned.text, cleaned.sanitized, arrival),
                    None => self.bare_message(Cow::Borrowed(value.text), false, arrival),
                })
            }
        }
    }

    /// Makes one log event of the JSON object that a text begins with, whatever follows it; and says how many bytes the
    /// object has.
    ///
    /// `None` if it is no log or does not end within the text: [`Self::normalise`] says more, of the object alone.
    pub fn normalise_first<'a>(&self, text: &'a str, arrival: &Arrival) -> Option<(LogEvent<'a>, usize)> {
        let mut members = Members::of_first(text).ok()?;
        let event = self.assemble(&mut members, text.len(), arrival).ok()?;
        Some((event, members.at()))
    }

    fn normalise_object<'a>(&self, text: &'a str, arrival: &Arrival) -> Result<LogEvent<'a>, Unusable> {
        let mut members = Members::of(text).map_err(|_| Unusable::Malformed)?;
        self.assemble(&mut members, text.len(), arrival)
    }

    fn assemble<'a>(
        &self,
        members: &mut Members<'a>,
        expected: usize,
        arrival: &Arrival,
    ) -> Result<LogEvent<'a>, Unusable> {
        let mut assembly = Assembly::new(self, arrival, expected);
        while let Some(member) = members.next().map_err(|_| Unusable::Malformed)? {
            assembly.place(&member);
        }
        assembly.check_signs()?;
        assembly.search_containers();
        Ok(assembly.finish())
    }

    fn bare_message<'a>(&self, message: Cow<'a, str>, sanitized: bool, arrival: &Arrival) -> LogEvent<'a> {
        let mut assembly = Assembly::new(self, arrival, 0);
        assembly.set_message(message, sanitized);
        assembly.finish()
    }

    /// The tenant of every event whose request brings none, if bodies may name no other.
    pub(crate) fn only_tenant(&self) -> Option<&str> {
        self.body_tenants.is_empty().then_some(&*self.default_tenant)
    }

    /// The tenant that a body names, if it may.
    pub(super) fn body_tenant(&self, named: &str) -> Option<&Arc<str>> {
        self.body_tenants
            .iter()
            .chain([&self.default_tenant])
            .find(|tenant| ***tenant == *named)
    }

    /// Whether an event's own time is stored: within the accepted range around its arrival, and what both stores hold.
    pub(super) fn accepts(&self, time: Timestamp, arrival: Timestamp) -> bool {
        let earliest = arrival.0.saturating_sub(self.accept_past);
        let latest = arrival.0.saturating_add(self.accept_future);
        (earliest..=latest).contains(&time.0) && time.can_be_stored()
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
