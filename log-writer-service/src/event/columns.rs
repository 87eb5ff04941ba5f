//! The columns of one event: whether a value can be used in its role, and how much of it a column then says.

use std::{borrow::Cow, sync::Arc};

use super::{
    Arrival, Level, Normaliser,
    aliases::{Claim, Role},
    claimed_time::{ClaimedTime, read_time},
    collections::{has_number, read_tags},
    id::OwnId,
    scan::{Kind, Value},
    severity::{Scale, read_level},
    text::{cut_for_index, unescape},
};

/// What became of a value that was offered to a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Of no use there.
    Refused,
    /// The column says all of it.
    Taken,
    /// The column says a part of it: it stays in `fields` as well.
    TakenInPart,
    /// The same, since the text was too long.
    Cut,
}

/// Values read so far.
#[derive(Debug, Default)]
pub(super) struct Columns<'a> {
    pub(super) own_id: Option<OwnId>,
    pub(super) time: Option<(ClaimedTime, Value<'a>)>,
    /// The first scalar under a name of times that is no time.
    pub(super) unread_time: Option<Value<'a>>,
    pub(super) level: Option<Level>,
    /// The first scalar under a name of levels that is no level.
    pub(super) unread_level: Option<Value<'a>>,
    pub(super) message: Option<Cow<'a, str>>,
    pub(super) service: Option<Cow<'a, str>>,
    pub(super) host: Option<Cow<'a, str>>,
    pub(super) correlation_id: Option<Cow<'a, str>>,
    pub(super) user_id: Option<Cow<'a, str>>,
    pub(super) trace_id: Option<Cow<'a, str>>,
    pub(super) span_id: Option<Cow<'a, str>>,
    /// The span id inside a `traceparent`, for an event that names none.
    pub(super) parent_span: Option<Cow<'a, str>>,
    pub(super) tags: Vec<Cow<'a, str>>,
    pub(super) error_details: Option<Value<'a>>,
    pub(super) performance_metrics: Option<Value<'a>>,
    pub(super) ai_analysis: Option<Value<'a>>,
    pub(super) tenant: Option<Arc<str>>,
    /// A NUL or lone surrogate was replaced.
    pub(super) sanitized: bool,
}

impl<'a> Columns<'a> {
    /// Reads a value into the column of a claim, over what it had.
    pub(super) fn read(&mut self, claim: Claim, value: &Value<'a>, normaliser: &Normaliser, arrival: &Arrival) -> Fate {
        match claim.role {
            Role::Id => {
                let own = value.inner().and_then(|text| OwnId::parse(text.trim_ascii()));
                let whole = own.is_some_and(|own| own.as_sent);
                fill(&mut self.own_id, own, whole)
            }
            Role::Timestamp => self.read_time(value),
            Role::Level => self.read_level(value, claim.scale),
            Role::Message => self.read_message(value),
            Role::Service | Role::Host | Role::CorrelationId | Role::UserId => self.read_text(claim.role, value),
            Role::TraceId if claim.traceparent => self.read_traceparent(value),
            Role::TraceId | Role::SpanId => self.read_text(claim.role, value),
            Role::Tags => {
                let Some(read) = read_tags(value) else {
                    return Fate::Refused;
                };
                self.tags = read.tags;
                self.sanitized |= read.sanitized;
                Fate::Taken
            }
            Role::ErrorDetails => {
                let usable = value.kind == Kind::Object || value.inner().is_some_and(|text| !text.is_empty());
                fill(&mut self.error_details, usable.then_some(*value), true)
            }
            Role::PerformanceMetrics => {
                let usable = value.kind == Kind::Object && has_number(value.text);
                fill(&mut self.performance_metrics, usable.then_some(*value), true)
            }
            Role::AiAnalysis => {
                let usable = value.kind == Kind::Object;
                fill(&mut self.ai_analysis, usable.then_some(*value), true)
            }
            Role::Tenant => self.read_tenant(value, normaliser, arrival),
        }
    }

    fn read_time(&mut self, value: &Value<'a>) -> Fate {
        let read = read_time(value);
        if read.is_none() && can_be_noted(value) {
            self.unread_time.get_or_insert(*value);
        }
        let whole = read.is_some_and(|read| read.whole);
        fill(&mut self.time, read.map(|read| (read, *value)), whole)
    }

    fn read_level(&mut self, value: &Value<'a>, scale: Scale) -> Fate {
        let read = read_level(value, scale);
        if read.is_none() && can_be_noted(value) {
            self.unread_level.get_or_insert(*value);
        }
        let whole = read.is_some_and(|read| read.whole);
        fill(&mut self.level, read.map(|read| read.level), whole)
    }

    fn read_message(&mut self, value: &Value<'a>) -> Fate {
        let message = match value.inner() {
            Some(inner) => self.clean(inner, value),
            None => Cow::Borrowed(value.text),
        };
        fill(&mut self.message, Some(message), true)
    }

    fn clean(&mut self, inner: &'a str, value: &Value<'a>) -> Cow<'a, str> {
        let cleaned = unescape(inner, value.findings.escaped);
        self.sanitized |= cleaned.sanitized;
        cleaned.text
    }

    fn read_text(&mut self, role: Role, value: &Value<'a>) -> Fate {
        let text = match (value.inner(), value.kind) {
            (Some(inner), _) => self.clean(inner, value),
            (None, Kind::Number) => Cow::Borrowed(value.text),
            (None, _) => return Fate::Refused,
        };
        // All zeros is how tracers say "none".
        let traced = matches!(role, Role::TraceId | Role::SpanId);
        if text.is_empty() || (traced && text.bytes().all(|byte| byte == b'0')) {
            return Fate::Refused;
        }
        let Some(column) = self.text_column(role) else {
            return Fate::Refused;
        };
        let (text, cut) = cut_for_index(if traced { lower_hex(text) } else { text });
        *column = Some(text);
        if cut { Fate::Cut } else { Fate::Taken }
    }

    fn text_column(&mut self, role: Role) -> Option<&mut Option<Cow<'a, str>>> {
        match role {
            Role::Service => Some(&mut self.service),
            Role::Host => Some(&mut self.host),
            Role::CorrelationId => Some(&mut self.correlation_id),
            Role::UserId => Some(&mut self.user_id),
            Role::TraceId => Some(&mut self.trace_id),
            Role::SpanId => Some(&mut self.span_id),
            Role::Id
            | Role::Timestamp
            | Role::Level
            | Role::Message
            | Role::Tags
            | Role::ErrorDetails
            | Role::PerformanceMetrics
            | Role::AiAnalysis
            | Role::Tenant => None,
        }
    }

    /// `00-<trace id>-<span id>-<flags>` (W3C Trace Context).
    fn read_traceparent(&mut self, value: &Value<'a>) -> Fate {
        let mut parts = value.inner().unwrap_or_default().split('-');
        let (Some(_version), Some(trace), Some(span)) = (parts.next(), parts.next(), parts.next()) else {
            return Fate::Refused;
        };
        let is_id = |id: &str, length| {
            id.len() == length && id.bytes().all(|byte| byte.is_ascii_hexdigit()) && id.bytes().any(|byte| byte != b'0')
        };
        if !is_id(trace, 32) || !is_id(span, 16) {
            return Fate::Refused;
        }
        self.parent_span = Some(lower_hex(Cow::Borrowed(span)));
        fill(&mut self.trace_id, Some(lower_hex(Cow::Borrowed(trace))), false)
    }

    /// A credential's tenant always counts; the same name in the body says nothing new.
    fn read_tenant(&mut self, value: &Value<'a>, normaliser: &Normaliser, arrival: &Arrival) -> Fate {
        let Some(inner) = value.inner() else {
            return Fate::Refused;
        };
        let named = unescape(inner, value.findings.escaped).text;
        let tenant = match &arrival.tenant {
            Some(credential) => (**credential == *named).then_some(credential),
            None => normaliser.body_tenant(&named),
        };
        fill(&mut self.tenant, tenant.map(Arc::clone), true)
    }
}

/// Fills a column if something was read; `whole` if it says all that was sent.
fn fill<T>(column: &mut Option<T>, read: Option<T>, whole: bool) -> Fate {
    if read.is_none() {
        return Fate::Refused;
    }
    *column = read;
    if whole { Fate::Taken } else { Fate::TakenInPart }
}

/// Whether a value that stays in `fields` is small enough to be repeated in a note.
fn can_be_noted(value: &Value<'_>) -> bool {
    value.findings.depth == 0 && value.text.len() <= 512
}

/// Lower case where all of it is hexadecimal digits.
fn lower_hex(text: Cow<'_, str>) -> Cow<'_, str> {
    let upper = text.bytes().any(|byte| matches!(byte, b'A'..=b'F'));
    if upper && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        text
    }
}
