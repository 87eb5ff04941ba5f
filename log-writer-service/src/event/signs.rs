//! Signs that an object is no log but a metric or a trace, as Vector's JSON codec and OTLP/JSON write them.
//!
//! A log may well have a member called `name` or `kind`: only the whole shape counts.

use super::{
    Unusable,
    scan::{Elements, Kind, Members, Value},
};

/// A top-level member that a metric or trace has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    MetricName,
    MetricKind,
    MetricValue,
    /// A member that metrics may have too.
    MetricOther,
    ResourceMetrics,
    ResourceSpans,
    Spans,
    TraceId,
    SpanId,
    SpanStart,
    SpanEnd,
}

impl Sign {
    /// Member names and what they are a sign of.
    pub(super) const NAMES: &[(&str, Self)] = &[
        ("name", Self::MetricName),
        ("kind", Self::MetricKind),
        ("counter", Self::MetricValue),
        ("gauge", Self::MetricValue),
        ("set", Self::MetricValue),
        ("distribution", Self::MetricValue),
        ("aggregated_histogram", Self::MetricValue),
        ("aggregated_summary", Self::MetricValue),
        ("sketch", Self::MetricValue),
        ("namespace", Self::MetricOther),
        ("tags", Self::MetricOther),
        ("timestamp", Self::MetricOther),
        ("interval_ms", Self::MetricOther),
        ("resourceMetrics", Self::ResourceMetrics),
        ("resource_metrics", Self::ResourceMetrics),
        ("resourceSpans", Self::ResourceSpans),
        ("resource_spans", Self::ResourceSpans),
        ("spans", Self::Spans),
        ("trace_id", Self::TraceId),
        ("traceId", Self::TraceId),
        ("span_id", Self::SpanId),
        ("spanId", Self::SpanId),
        ("start_time_unix_nano", Self::SpanStart),
        ("startTimeUnixNano", Self::SpanStart),
        ("end_time_unix_nano", Self::SpanEnd),
        ("endTimeUnixNano", Self::SpanEnd),
    ];
}

/// Signs met in one object.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Signs {
    metric_name: bool,
    metric_kind: bool,
    metric_value: bool,
    /// A member that no metric has.
    not_metric: bool,
    resource_metrics: bool,
    resource_spans: bool,
    spans: bool,
    trace_id: bool,
    span_id: bool,
    span_start: bool,
    span_end: bool,
}

impl Signs {
    /// Notes one top-level member; `None` for a name that is no sign.
    pub(super) fn note(&mut self, sign: Option<Sign>, value: &Value<'_>) {
        let Some(sign) = sign else {
            self.not_metric = true;
            return;
        };
        match sign {
            Sign::MetricName => self.metric_name |= value.kind == Kind::String,
            Sign::MetricKind => self.metric_kind |= matches!(value.text, "\"incremental\"" | "\"absolute\""),
            Sign::MetricValue => self.metric_value |= value.kind == Kind::Object,
            Sign::MetricOther => {}
            Sign::ResourceMetrics => self.resource_metrics |= value.kind == Kind::Array,
            Sign::ResourceSpans => self.resource_spans |= value.kind == Kind::Array,
            Sign::Spans => self.spans |= begins_with_a_span(value),
            Sign::TraceId => self.trace_id = true,
            Sign::SpanId => self.span_id = true,
            Sign::SpanStart => self.span_start = true,
            Sign::SpanEnd => self.span_end = true,
        }
    }

    /// What the object is, if it is no log. One with a message is a log whatever else it has.
    pub(super) fn verdict(&self, has_message: bool) -> Result<(), Unusable> {
        if has_message {
            return Ok(());
        }
        let metric = self.metric_name && self.metric_kind && self.metric_value && !self.not_metric;
        if metric || self.resource_metrics {
            return Err(Unusable::Metric);
        }
        let span = self.trace_id && self.span_id && self.span_start && self.span_end;
        if self.resource_spans || self.spans || span {
            return Err(Unusable::Trace);
        }
        Ok(())
    }
}

/// Whether this is an array whose first element names its trace and span.
fn begins_with_a_span(value: &Value<'_>) -> bool {
    let first = Elements::of(value.text).and_then(|mut elements| elements.next());
    let Ok(Some(first)) = first else { return false };
    let Ok(mut members) = Members::of(first.text) else {
        return false;
    };
    let (mut trace, mut span) = (false, false);
    while let Ok(Some(member)) = members.next() {
        trace |= matches!(member.key, "trace_id" | "traceId");
        span |= matches!(member.key, "span_id" | "spanId");
    }
    trace && span
}
