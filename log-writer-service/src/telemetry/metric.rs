//! Every metric of the service: its name, help and labels. Labels are closed sets, never data from events.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::{
    elasticsearch::{BulkFailure, Verdict},
    timescale::{Backlog, Books, LetterTotals, Met, StoreErrorKind},
};

/// Upper bounds of the duration histograms, in seconds.
const SECONDS: [f64; 14] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0,
];

/// Installs the recorder; its handle renders `/metrics`.
///
/// # Errors
/// If a recorder is installed already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(
        "log_writer_http_requests_total",
        "Requests answered, by route and status code."
    );
    describe_histogram!(
        "log_writer_http_request_duration_seconds",
        "Time from the request's head to the answer, by route."
    );
    describe_counter!(
        "log_writer_auth_failures_total",
        "Requests refused for their credential, by reason."
    );
    describe_gauge!(
        "log_writer_tls_certificate_expiry_timestamp_seconds",
        "When the first certificate of a file of [tls] expires, in seconds since 1970."
    );
    describe_gauge!(
        "log_writer_inflight_bytes",
        "Bytes that requests hold: bodies, expanded bodies, encoded rows."
    );
    describe_gauge!("log_writer_inflight_bytes_max", "http.inflight_bytes_max.");
    describe_gauge!(
        "log_writer_requests_waiting",
        "Requests that wait for a committer, by lane."
    );
    describe_gauge!("log_writer_ready", "1 if batches can be committed.");
    describe_histogram!(
        "log_writer_commit_duration_seconds",
        "Time of one commit attempt, successful or not."
    );
    describe_counter!("log_writer_commits_total", "Commit attempts.");
    describe_counter!("log_writer_commit_events_total", "Events in commit attempts.");
    describe_counter!(
        "log_writer_commit_failures_total",
        "Commit attempts that failed, by kind."
    );
    describe_counter!(
        "log_writer_digests_known_total",
        "Requests that a digest showed to be committed before."
    );
    describe_counter!(
        "log_writer_staged_copies_total",
        "COPYs that met a key that exists and went through the staging table."
    );
    describe_counter!(
        "log_writer_rows_refused_total",
        "Rows that PostgreSQL refused, found by bisection: dead letters, once the transaction is committed."
    );
    describe_counter!(
        "log_writer_commit_outcomes_unknown_total",
        "COMMITs sent and not answered; the same requests are tried again."
    );
    describe_counter!(
        "log_writer_late_lane_requests_total",
        "Requests sent to the late lane, by reason: old events, or why the normal lane could not commit them; refused are those \
         that it had no memory for."
    );
    describe_delivery();
    describe_database();
}

/// What happens on the way to Elasticsearch.
fn describe_delivery() {
    describe_histogram!("log_writer_bulk_duration_seconds", "Time of one _bulk request.");
    describe_counter!("log_writer_bulk_documents_total", "Documents sent in _bulk requests.");
    describe_counter!("log_writer_bulk_items_total", "Verdicts on documents, by outcome.");
    describe_counter!(
        "log_writer_bulk_failures_total",
        "_bulk requests that failed as a whole, by status, or unreachable, unanswered or miscounted."
    );
    describe_counter!(
        "log_writer_claims_total",
        "Outbox rows claimed, by attempt: first or later, which looks up."
    );
    describe_counter!(
        "log_writer_claims_taken_over_total",
        "Outbox rows claimed whose lease, held by another process, had ended."
    );
    describe_counter!(
        "log_writer_claims_lost_total",
        "Claims that another owner took over while their documents were sent."
    );
    describe_counter!(
        "log_writer_lookups_total",
        "Claims whose documents were looked up before they were sent."
    );
    describe_counter!(
        "log_writer_lookup_documents_total",
        "Documents looked up, by where they were: older_index, write_index, absent."
    );
    describe_counter!(
        "log_writer_doubles_removed_total",
        "Second copies in Elasticsearch that were removed."
    );
    describe_counter!(
        "log_writer_dead_letters_taken_back_total",
        "Dead letters whose document turned out to be in Elasticsearch; counted as indexed."
    );
    describe_counter!(
        "log_writer_late_bulk_looks_total",
        "Looks for second copies that a bulk may have brought after its documents were settled."
    );
}

/// What stands in the database, the same from every replica.
fn describe_database() {
    describe_gauge!(
        "log_writer_dead_letters",
        "Dead letters that wait for somebody, over all replicas, by stage: decode, store, index."
    );
    describe_gauge!(
        "log_writer_dead_letters_max",
        "database.dead_letters_rows_max: an alarm above, nothing is dropped."
    );
    describe_counter!(
        "log_writer_events_total",
        "The books, over all replicas and restarts, by account."
    );
    describe_gauge!(
        "log_writer_books_balanced",
        "1 if the books account for every event, over all replicas; 0: something was lost beside the service."
    );
    describe_gauge!("log_writer_outbox_rows", "Outbox rows that wait.");
    describe_gauge!(
        "log_writer_outbox_events",
        "Events committed and not yet settled in Elasticsearch."
    );
    describe_gauge!("log_writer_outbox_bytes", "Encoded bytes of these events.");
    describe_gauge!(
        "log_writer_outbox_oldest_age_seconds",
        "Age of the oldest outbox row. It does not fall before a drain has ended; log_writer_outbox_events tells how far \
         that has come."
    );
    describe_gauge!(
        "log_writer_elasticsearch_ready",
        "1 if templates and policy are in place and nothing is paused."
    );
    describe_gauge!(
        "log_writer_archive_failing",
        "1 if events could not be archived at the last look: nothing is dropped until they can be."
    );
    describe_counter!("log_writer_archive_events_total", "Events written to the archive.");
    describe_counter!("log_writer_archive_bytes_total", "Bytes of these files, compressed.");
    describe_gauge!("log_writer_build_info", "1, with the version as label.");
    gauge!("log_writer_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// A request was answered.
pub fn request(route: &'static str, code: u16, elapsed: Duration) {
    counter!("log_writer_http_requests_total", "route" => route, "code" => code.to_string()).increment(1);
    histogram!("log_writer_http_request_duration_seconds", "route" => route).record(elapsed);
}

/// Requests were refused for their credential.
pub(crate) fn auth_failures(reason: &'static str, requests: u64) {
    counter!("log_writer_auth_failures_total", "reason" => reason).increment(requests);
}

/// When what a file of `[tls]` holds ends.
pub(crate) fn certificate_end(key: &'static str, end: DateTime<Utc>) {
    gauge!("log_writer_tls_certificate_expiry_timestamp_seconds", "file" => key).set(wide(end.timestamp()));
}

/// A commit attempt ended.
pub(crate) fn commit_finished(elapsed: Duration, rows: usize) {
    histogram!("log_writer_commit_duration_seconds").record(elapsed);
    counter!("log_writer_commits_total").increment(1);
    counter!("log_writer_commit_events_total").increment(count(rows));
}

/// What a commit attempt met, successful or not.
pub(crate) fn met(met: &Met) {
    for (name, times) in [
        ("log_writer_digests_known_total", met.digests_known),
        ("log_writer_staged_copies_total", met.staged),
        ("log_writer_rows_refused_total", met.rows_refused),
        ("log_writer_commit_outcomes_unknown_total", met.outcomes_unknown),
    ] {
        counter!(name).increment(times);
    }
}

/// A request was sent to the late lane.
pub(crate) fn late(reason: &'static str) {
    counter!("log_writer_late_lane_requests_total", "reason" => reason).increment(1);
}

/// A commit attempt failed.
pub(crate) fn commit_failed(kind: StoreErrorKind) {
    counter!("log_writer_commit_failures_total", "kind" => kind.as_str()).increment(1);
}

/// A `_bulk` was answered, or not.
pub(crate) fn bulk_finished(elapsed: Duration, documents: usize) {
    histogram!("log_writer_bulk_duration_seconds").record(elapsed);
    counter!("log_writer_bulk_documents_total").increment(count(documents));
}

/// A `_bulk` failed as a whole.
pub(crate) fn bulk_failed(failure: &BulkFailure) {
    let kind = match failure {
        BulkFailure::TooLarge => "413".to_owned(),
        BulkFailure::WholeRequest { status, .. }
        | BulkFailure::Busy { status }
        | BulkFailure::Forbidden { status, .. } => status.to_string(),
        BulkFailure::Blocked => "403".to_owned(),
        BulkFailure::Unreachable(_) => "unreachable".to_owned(),
        BulkFailure::Unanswered(_) => "unanswered".to_owned(),
        BulkFailure::Miscounted { .. } => "miscounted".to_owned(),
    };
    counter!("log_writer_bulk_failures_total", "kind" => kind).increment(1);
}

/// The documents of a bulk got their verdicts; a counter is looked up for each outcome, not for each document.
pub(crate) fn verdicts(verdicts: &[Verdict]) {
    for (outcome, documents) in outcomes(verdicts) {
        if documents > 0 {
            counter!("log_writer_bulk_items_total", "outcome" => outcome).increment(documents);
        }
    }
}

/// How many documents met each outcome.
fn outcomes(verdicts: &[Verdict]) -> [(&'static str, u64); 6] {
    let mut outcomes = [
        ("indexed", 0),
        ("duplicate", 0),
        ("retry", 0),
        ("rejected", 0),
        ("missing_template", 0),
        ("forbidden", 0),
    ];
    let [indexed, duplicate, retry, rejected, missing_template, forbidden] = &mut outcomes;
    for verdict in verdicts {
        let (_, documents) = match verdict {
            Verdict::Indexed { .. } => &mut *indexed,
            Verdict::Duplicate { .. } => &mut *duplicate,
            Verdict::Retry { .. } => &mut *retry,
            Verdict::Reject { .. } => &mut *rejected,
            Verdict::MissingTemplate { .. } => &mut *missing_template,
            Verdict::Forbidden { .. } => &mut *forbidden,
        };
        *documents += 1;
    }
    outcomes
}

/// Outbox rows were claimed, `later` of them not for the first time, `taken_over` from another process.
pub(crate) fn claimed(later: usize, taken_over: usize, all: usize) {
    counter!("log_writer_claims_taken_over_total").increment(count(taken_over));
    counter!("log_writer_claims_total", "attempt" => "first").increment(count(all - later));
    counter!("log_writer_claims_total", "attempt" => "later").increment(count(later));
}

/// Claims were lost.
pub(crate) fn claims_lost(claims: usize) {
    counter!("log_writer_claims_lost_total").increment(count(claims));
}

/// Documents of a claim are looked up.
pub(crate) fn lookup() {
    counter!("log_writer_lookups_total").increment(1);
}

/// Documents of a claim were looked up: so many were in an older backing index, in the one written to, and asked for.
pub(crate) fn looked_up(in_older: usize, in_newest: usize, all: usize) {
    for (outcome, documents) in [
        ("older_index", in_older),
        ("write_index", in_newest),
        ("absent", all - in_older - in_newest),
    ] {
        counter!("log_writer_lookup_documents_total", "outcome" => outcome).increment(count(documents));
    }
}

/// Whether the last attempt to archive failed.
pub(crate) fn archive_failing(failing: bool) {
    gauge!("log_writer_archive_failing").set(f64::from(u8::from(failing)));
}

/// Events were archived.
pub(crate) fn archived(events: u64, bytes: u64) {
    counter!("log_writer_archive_events_total").increment(events);
    counter!("log_writer_archive_bytes_total").increment(bytes);
}

/// Second copies were removed.
pub(crate) fn doubles_removed(documents: usize) {
    counter!("log_writer_doubles_removed_total").increment(count(documents));
}

/// Second copies that a late bulk may have brought were looked for.
pub(crate) fn late_bulk_looked_for() {
    counter!("log_writer_late_bulk_looks_total").increment(1);
}

/// Dead letters were taken back.
pub(crate) fn letters_taken_back(letters: i64) {
    counter!("log_writer_dead_letters_taken_back_total").increment(u64::try_from(letters).unwrap_or_default());
}

/// Shows the state of this process.
pub fn process(ready: bool, mirror_ready: bool, held: usize, limit: usize, waiting: (usize, usize)) {
    gauge!("log_writer_ready").set(f64::from(u8::from(ready)));
    gauge!("log_writer_elasticsearch_ready").set(f64::from(u8::from(mirror_ready)));
    gauge!("log_writer_inflight_bytes").set(float(held));
    gauge!("log_writer_inflight_bytes_max").set(float(limit));
    gauge!("log_writer_requests_waiting", "lane" => "normal").set(float(waiting.0));
    gauge!("log_writer_requests_waiting", "lane" => "late").set(float(waiting.1));
}

/// Shows the books and the backlog.
pub fn store(books: &Books, backlog: &Backlog) {
    for (account, events) in books.accounts() {
        counter!("log_writer_events_total", "account" => account).absolute(u64::try_from(events).unwrap_or_default());
    }
    gauge!("log_writer_books_balanced").set(f64::from(u8::from(books.balance(backlog.events))));
    gauge!("log_writer_outbox_rows").set(wide(backlog.rows));
    gauge!("log_writer_outbox_events").set(wide(backlog.events));
    gauge!("log_writer_outbox_bytes").set(wide(backlog.bytes));
    gauge!("log_writer_outbox_oldest_age_seconds").set(backlog.oldest.map_or(0.0, |age| age.as_secs_f64()));
}

/// The series of a rendered page, without the buckets of histograms: name with labels → value.
pub(crate) fn series(page: &str) -> BTreeMap<String, f64> {
    page.lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket{"))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// Shows the dead letters that wait for somebody.
pub fn letters(letters: &LetterTotals, limit: usize) {
    for (stage, letters) in letters.by_stage() {
        gauge!("log_writer_dead_letters", "stage" => stage).set(wide(letters));
    }
    gauge!("log_writer_dead_letters_max").set(float(limit));
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is exact")]
fn float(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 is exact")]
fn wide(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_counts_for_its_own_outcome() {
        let (status, error_type) = (400, String::new());
        let verdicts = [
            Verdict::Indexed { index: "i".into() },
            Verdict::Duplicate { index: "i".into() },
            Verdict::Retry {
                status,
                error_type: error_type.clone(),
            },
            Verdict::Reject {
                status,
                error_type: error_type.clone(),
                reason: String::new(),
            },
            Verdict::MissingTemplate {
                status,
                error_type: error_type.clone(),
            },
            Verdict::Forbidden { status, error_type },
        ];
        // The first once, the second twice, and so on.
        let repeated: Vec<Verdict> = verdicts
            .iter()
            .enumerate()
            .flat_map(|(number, verdict)| vec![verdict.clone(); number + 1])
            .collect();
        let expected = [
            "indexed",
            "duplicate",
            "retry",
            "rejected",
            "missing_template",
            "forbidden",
        ];
        assert_eq!(
            outcomes(&repeated).to_vec(),
            expected.into_iter().zip(1..).collect::<Vec<_>>()
        );
        assert!(outcomes(&[]).iter().all(|(_, documents)| *documents == 0));
    }

    #[test]
    fn a_rendered_page_is_read_without_its_buckets() {
        let page =
            "# HELP a x\n# TYPE a counter\na{code=\"200\"} 3\nb_seconds_bucket{le=\"1\"} 2\nb_seconds_sum 0.5\n\n";
        let series = series(page);
        assert_eq!(series.len(), 2);
        assert!((series[r#"a{code="200"}"#] - 3.0).abs() < f64::EPSILON);
        assert!((series["b_seconds_sum"] - 0.5).abs() < f64::EPSILON);
    }
}
