//! One event while it is put together: each member is offered to the column its name stands for, or kept in `fields`.
//!
//! A name earlier in its list wins over a later one, whatever their order in the event; what a better name displaces
//! goes to `fields`. Values inside other members are copied to columns but stay where they are.

use std::{borrow::Cow, sync::Arc};

use super::{
    Arrival, Level, LogEvent, Normaliser, Timestamp, Unusable,
    aliases::{Claim, Entry, Reserved, Role},
    collections::{SplitMetrics, split_metrics},
    columns::{Columns, Fate},
    fields::{Fields, Kept, Notes},
    jsonb::write_json,
    scan::{Kind, Member, Members, Value},
    signs::Signs,
    text::{unescape, write_string},
};

/// Containers looked into at the end; with more of them the first are looked into at once.
const PENDING_MAX: usize = 64;

/// Longest member name that can be part of an alias.
const NAME_BYTES_MAX: usize = 512;

/// Where a column's value came from.
#[derive(Debug, Default)]
struct Slot<'a> {
    /// Rank of the name, plus one; 0 for none.
    taken: u16,
    /// The member that left `fields` for it.
    removed: Option<Kept<'a>>,
    /// Whether the text was cut.
    cut: bool,
}

/// An event being put together.
#[derive(Debug)]
pub(super) struct Assembly<'n, 'a> {
    normaliser: &'n Normaliser,
    arrival: &'n Arrival,
    columns: Columns<'a>,
    slots: [Slot<'a>; Role::COUNT],
    fields: Fields<'a>,
    notes: Notes<'a>,
    signs: Signs,
    pending: Vec<(&'n Entry, &'a str)>,
}

impl<'n, 'a> Assembly<'n, 'a> {
    pub(super) fn new(normaliser: &'n Normaliser, arrival: &'n Arrival, expected: usize) -> Self {
        Self {
            normaliser,
            arrival,
            columns: Columns::default(),
            slots: Default::default(),
            fields: Fields::new(expected.min(1024), normaliser.depth_max),
            notes: Notes::default(),
            signs: Signs::default(),
            pending: Vec::new(),
        }
    }

    /// Takes a message that came without anything around it.
    pub(super) fn set_message(&mut self, message: Cow<'a, str>, sanitized: bool) {
        self.columns.message = Some(message);
        self.columns.sanitized |= sanitized;
    }

    /// Puts one top-level member where it belongs.
    pub(super) fn place(&mut self, member: &Member<'a>) {
        let name = unescape(member.key, member.key_escaped).text;
        let entry = if name.len() <= NAME_BYTES_MAX {
            self.normaliser.aliases.get(&name)
        } else {
            None
        };
        self.signs.note(entry.and_then(|entry| entry.sign), &member.value);
        let Some(entry) = entry else {
            self.fields.keep(Kept::from(member));
            return;
        };
        if !self.place_known(entry, member) {
            self.fields.keep(Kept::from(member));
        }
        if !entry.below.is_empty() && member.value.kind == Kind::Object {
            self.pending.push((entry, member.value.text));
            if self.pending.len() >= PENDING_MAX {
                self.search_containers();
            }
        }
    }

    /// Whether the member needs no place in `fields` (now).
    fn place_known(&mut self, entry: &Entry, member: &Member<'a>) -> bool {
        match entry.reserved {
            Some(Reserved::Fields) => return member.value.kind == Kind::Object && self.fields.merge_later(member),
            Some(Reserved::Notes) => {
                self.notes.received = Some(member.value);
                return true;
            }
            None => {}
        }
        let Some(claim) = entry.claim else { return false };
        // A null says what an absent member says: the column is null, or has its default.
        if member.value.kind == Kind::Null {
            return true;
        }
        let object_of_parts = member.value.kind == Kind::Object && !entry.below.is_empty();
        // `log` is a message in Docker's files, and ECS's `log.level` in an object.
        if object_of_parts && claim.role == Role::Message {
            return false;
        }
        self.offer(claim, &member.value, Some(member)) == Fate::Taken
    }

    /// Looks into containers for columns that have nothing better yet.
    pub(super) fn search_containers(&mut self) {
        let mut path = String::new();
        for (entry, object) in std::mem::take(&mut self.pending) {
            path.clear();
            path.push_str(&entry.path);
            self.search(entry, object, &mut path);
        }
    }

    /// Recurses as deep as the longest alias has dots, not as deep as the event is nested.
    fn search(&mut self, entry: &Entry, object: &'a str, path: &mut String) {
        let wanted = |(role, rank): &(Role, u16)| {
            self.slot(*role)
                .is_some_and(|slot| slot.taken == 0 || rank + 1 < slot.taken)
        };
        if !entry.below.iter().any(wanted) {
            return;
        }
        let Ok(mut members) = Members::of(object) else {
            return;
        };
        path.push('.');
        let length = path.len();
        while let Ok(Some(member)) = members.next() {
            let name = unescape(member.key, member.key_escaped).text;
            if name.len() > NAME_BYTES_MAX {
                continue;
            }
            path.truncate(length);
            path.push_str(&name);
            let normaliser = self.normaliser;
            let Some(found) = normaliser.aliases.get(path) else {
                continue;
            };
            if let Some(claim) = found.claim {
                self.offer(claim, &member.value, None);
            }
            if member.value.kind == Kind::Object {
                self.search(found, member.value.text, path);
            }
        }
    }

    fn slot(&self, role: Role) -> Option<&Slot<'a>> {
        self.slots.get(role as usize)
    }

    /// Offers a value to the column of a claim; `member` if it is a top-level one, which can leave `fields`.
    fn offer(&mut self, claim: Claim, value: &Value<'a>, member: Option<&Member<'a>>) -> Fate {
        let taken = self.slot(claim.role).map_or(0, |slot| slot.taken);
        if taken != 0 && taken <= claim.rank + 1 {
            return Fate::Refused;
        }
        let fate = self.columns.read(claim, value, self.normaliser, self.arrival);
        if fate == Fate::Refused {
            return fate;
        }
        let Some(slot) = self.slots.get_mut(claim.role as usize) else {
            return Fate::Refused;
        };
        let removed = member.filter(|_| fate == Fate::Taken).map(Kept::from);
        let displaced = std::mem::replace(
            slot,
            Slot {
                taken: claim.rank + 1,
                removed,
                cut: fate == Fate::Cut,
            },
        );
        if let Some(displaced) = displaced.removed {
            self.fields.keep(displaced);
        }
        fate
    }

    /// Whether it is no log at all; asked after the last member.
    pub(super) fn check_signs(&self) -> Result<(), Unusable> {
        self.signs.verdict(self.columns.message.is_some())
    }

    /// The event.
    pub(super) fn finish(mut self) -> LogEvent<'a> {
        let timestamp = self.settle_time();
        if self.columns.level.is_none() {
            self.notes.level = self.columns.unread_level;
        }
        let performance_metrics = self.finish_metrics();
        let error_details = self.columns.error_details.take().map(|value| self.finish_error(&value));
        let ai_analysis = self.columns.ai_analysis.take().map(|value| self.finish_object(&value));
        for (role, column) in [
            (Role::Service, "service"),
            (Role::Host, "host"),
            (Role::CorrelationId, "correlation_id"),
            (Role::UserId, "user_id"),
            (Role::TraceId, "trace_id"),
            (Role::SpanId, "span_id"),
        ] {
            if self.slot(role).is_some_and(|slot| slot.cut) {
                self.notes.cut.push(column);
            }
        }
        let columns = self.columns;
        self.notes.sanitized |= columns.sanitized;
        let span_id = columns.span_id.or(columns.parent_span);
        let tenant = match (&self.arrival.tenant, columns.tenant) {
            (Some(credential), _) => Arc::clone(credential),
            (None, Some(named)) => named,
            (None, None) => Arc::clone(&self.normaliser.default_tenant),
        };
        LogEvent {
            own_id: columns.own_id.map(|own| own.id),
            claimed_time: columns.time.map(|(read, _)| read.time),
            timestamp,
            tenant,
            level: columns.level.unwrap_or(Level::Info),
            service: columns.service.unwrap_or(Cow::Borrowed("unknown")),
            host: columns.host,
            message: columns.message.unwrap_or_default(),
            correlation_id: columns.correlation_id,
            user_id: columns.user_id,
            trace_id: columns.trace_id,
            span_id,
            tags: columns.tags,
            fields: self.fields.finish(&self.notes, self.arrival.wrapper.as_deref()),
            error_details,
            performance_metrics,
            ai_analysis,
        }
    }

    /// The time to store, with notes on what it says less or other than the claimed one.
    fn settle_time(&mut self) -> Timestamp {
        let usable = |time: &Timestamp| self.normaliser.accepts(*time, self.arrival.at);
        if let Some((claimed, value)) = self.columns.time {
            if usable(&claimed.time) {
                self.notes.nanos = claimed.nanos;
                return claimed.time;
            }
            self.notes.timestamp = Some(value);
        } else {
            self.notes.timestamp = self.columns.unread_time;
        }
        let in_id = self.columns.own_id.and_then(|own| own.time);
        in_id.filter(usable).unwrap_or(self.arrival.at)
    }

    fn finish_metrics(&mut self) -> Option<String> {
        let value = self.columns.performance_metrics.take()?;
        let SplitMetrics {
            numbers,
            others,
            sanitized,
        } = split_metrics(value.text, self.normaliser.depth_max).ok()?;
        self.notes.sanitized |= sanitized;
        let removed = self.slot(Role::PerformanceMetrics).and_then(|slot| slot.removed);
        if let Some(member) = removed.filter(|_| !others.is_empty()) {
            self.fields.keep_text(member.key, &others);
        }
        Some(numbers)
    }

    fn finish_error(&mut self, value: &Value<'_>) -> String {
        let Some(inner) = value.inner() else {
            return self.finish_object(value);
        };
        let cleaned = unescape(inner, value.findings.escaped);
        self.notes.sanitized |= cleaned.sanitized;
        let mut out = String::with_capacity(inner.len() + 16);
        out.push_str("{\"message\":");
        write_string(&mut out, &cleaned.text);
        out.push('}');
        out
    }

    fn finish_object(&mut self, value: &Value<'_>) -> String {
        let mut out = String::with_capacity(value.text.len());
        self.notes.sanitized |= write_json(&mut out, value.text, value.findings, self.normaliser.depth_max);
        out
    }
}
