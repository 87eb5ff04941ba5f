//! What must hold between keys, and what a key's type cannot say. All that does not hold is told at once.

use std::{collections::BTreeMap, time::Duration};

use secrecy::ExposeSecret as _;
use tracing_subscriber::EnvFilter;

use super::{Config, Profile, auth, load::Merge};

/// Vector's default `request.timeout_secs` of the http sink (0.57).
const VECTOR_TIMEOUT: Duration = Duration::from_secs(60);
/// Making a data stream whose primary cannot be placed takes Elasticsearch 31 s whatever `timeout` says (8.19).
const STREAM_CREATION: Duration = Duration::from_secs(35);
/// The least that hyper takes.
const HEAD_BYTES_MIN: usize = 8 * 1024;
/// `http.max_content_length` of Elasticsearch by default.
const ELASTICSEARCH_BODY_MAX: usize = 100 * 1024 * 1024;
/// PostgreSQL's JSON parser has a stack of 2 MB.
const DEPTH_MAX: usize = 1000;
/// More chunks than this in the accepted range slow every plan down.
const CHUNKS_MAX: u128 = 1000;
/// How far back the policies of `log_stats_1m` look for late events (`migrations/`).
const COUNTED_BACK: Duration = Duration::from_secs(14 * 86_400);
/// Longer, and what waits looks like an outage.
const LINGER_MAX: Duration = Duration::from_secs(60);
/// What `log_writer.drop_old_events` and `drop_old_stats` take.
const KEEP_MIN: Duration = Duration::from_secs(16 * 86_400);

/// Notes every mistake between keys in the merge.
pub(super) fn between_keys(config: &Config, merge: &mut Merge) {
    no_zeros(config, merge);
    http(config, merge);
    auth::check(config, merge);
    tls(config, merge);
    events(config, merge);
    database(config, merge);
    storage(config, merge);
    delivery(config, merge);
    retention(config, merge);
    if config.elasticsearch.enabled {
        elasticsearch(config, merge);
    }
    if let Err(error) = EnvFilter::builder().parse(&config.log.filter) {
        merge.refuse(
            &["log.filter"],
            format!("is no filter ({error}); write it like \"info\" or \"info,sqlx=warn\""),
        );
    }
}

fn no_zeros(config: &Config, merge: &mut Merge) {
    let Config {
        http,
        auth: _,
        tls: _,
        events,
        database,
        storage: _,
        elasticsearch,
        delivery,
        retention: _,
        api,
        log: _,
    } = config;
    for (key, is_zero) in [
        ("http.body_bytes_max", http.body_bytes_max == 0),
        ("http.connections_max", http.connections_max == 0),
        ("events.depth_max", events.depth_max == 0),
        ("events.per_request_max", events.per_request_max == 0),
        ("database.committers", database.committers == 0),
        ("database.pool_connections_max", database.pool_connections_max == 0),
        ("database.batch_rows_max", database.batch_rows_max == 0),
        ("database.batch_bytes_max", database.batch_bytes_max == 0),
        ("database.dead_letters_rows_max", database.dead_letters_rows_max == 0),
        (
            "elasticsearch.bulk_documents_max",
            elasticsearch.bulk_documents_max == 0,
        ),
        ("elasticsearch.bulk_bytes_max", elasticsearch.bulk_bytes_max == 0),
        ("delivery.workers", delivery.workers == 0),
        ("delivery.claim_events_max", delivery.claim_events_max < 1),
        ("delivery.claim_bytes_max", delivery.claim_bytes_max == 0),
        ("delivery.breaker_bulks", delivery.breaker_bulks == 0),
        ("api.connections_max", api.connections_max == 0),
        ("api.rows_max", api.rows_max == 0),
        ("api.answer_bytes_max", api.answer_bytes_max == 0),
    ] {
        if is_zero {
            merge.refuse(&[key], "must be at least 1");
        }
    }
    for (key, duration) in [
        ("http.header_timeout", http.header_timeout),
        ("http.body_timeout", http.body_timeout),
        ("http.answer_timeout", http.answer_timeout),
        ("events.accept_past", events.accept_past),
        ("database.connect_timeout", database.connect_timeout),
        ("database.lock_timeout", database.lock_timeout),
        ("database.late_after", database.late_after),
        ("database.digest_retention", database.digest_retention),
        ("database.dead_letter_retention", database.dead_letter_retention),
        ("database.audit_retention", database.audit_retention),
        ("delivery.renew_every", delivery.renew_every),
        ("delivery.poll_every", delivery.poll_every),
        ("delivery.retry_min", delivery.retry_min),
        ("api.statement_timeout", api.statement_timeout),
    ] {
        if duration.as_millis() == 0 {
            merge.refuse(&[key], "must be at least 1ms");
        }
    }
}

/// A body as received, expanded, and as encoded rows.
const BODY_COPIES: usize = 3;

fn http(config: &Config, merge: &mut Merge) {
    let http = &config.http;
    if http.body_bytes_max.saturating_mul(BODY_COPIES) > http.inflight_bytes_max {
        merge.refuse(
            &["http.body_bytes_max", "http.inflight_bytes_max"],
            "one body (as received, expanded, and as encoded rows) may need more than all may hold together, so it could never be taken; make the second three times the first",
        );
    }
    if http.head_bytes_max < HEAD_BYTES_MIN {
        merge.refuse(&["http.head_bytes_max"], "must be at least 8KiB");
    }
    if http.answer_timeout >= VECTOR_TIMEOUT {
        merge.refuse(
            &["http.answer_timeout"],
            "must be below 60s: Vector gives up by then and sends the batch again while the first is still at work",
        );
    }
}

fn tls(config: &Config, merge: &mut Merge) {
    let tls = &config.tls;
    for (key, file) in [("tls.cert_file", &tls.cert_file), ("tls.key_file", &tls.key_file)] {
        if tls.enabled && file.is_none() {
            merge.refuse(
                &["tls.enabled", key],
                "TLS needs a certificate and its key; name both files",
            );
        }
    }
    if !tls.enabled && (tls.cert_file.is_some() || tls.key_file.is_some() || tls.client_ca_file.is_some()) {
        merge
            .notes
            .push("the files of [tls] are not read: tls.enabled is false, requests come in the clear".to_owned());
    }
}

fn events(config: &Config, merge: &mut Merge) {
    let events = &config.events;
    if events.depth_max > DEPTH_MAX {
        merge.refuse(&["events.depth_max"], format!("must be at most {DEPTH_MAX}"));
    }
    if let Some(wrong) = tenant_mistake(&events.default_tenant) {
        merge.refuse(&["events.default_tenant"], wrong);
    }
    let mut lower = BTreeMap::from([(events.default_tenant.to_lowercase(), events.default_tenant.as_str())]);
    for tenant in &events.body_tenants {
        if let Some(wrong) = tenant_mistake(tenant) {
            merge.refuse(&["events.body_tenants"], format!("`{tenant}` {wrong}"));
        }
        let before = lower.insert(tenant.to_lowercase(), tenant);
        if let Some(before) = before.filter(|before| *before != tenant) {
            merge.refuse(
                &["events.default_tenant", "events.body_tenants"],
                format!("tenants `{before}` and `{tenant}` differ only in case and would share an index; rename one"),
            );
        }
    }
    let chunks = events.accept_past.as_secs() / config.database.chunk_interval.as_secs().max(1);
    if u128::from(chunks) > CHUNKS_MAX {
        merge.notes.push(format!(
            "events.accept_past spans {chunks} chunks of database.chunk_interval: senders of old events can make that many"
        ));
    }
}

fn database(config: &Config, merge: &mut Merge) {
    let database = &config.database;
    if database.lock_timeout >= database.transaction_timeout {
        merge.refuse(
            &["database.lock_timeout", "database.transaction_timeout"],
            "a transaction must outlive its wait for one lock; make the first shorter",
        );
    }
    if database.chunk_interval < Duration::from_secs(60) {
        merge.refuse(
            &["database.chunk_interval"],
            "must be at least 1m: every chunk is a table",
        );
    }
}

fn storage(config: &Config, merge: &mut Merge) {
    if config.storage.profile == Profile::Columnar {
        merge.notes.push(
            "storage.profile is columnar: SQL keeps no event apart by its id. A request that is sent again as the same \
             bytes is stored once, an event that comes in another request twice; Elasticsearch has it once. Needs \
             TimescaleDB 2.29 or newer, Community edition"
                .to_owned(),
        );
    }
}

fn retention(config: &Config, merge: &mut Merge) {
    let (retention, accept_past) = (&config.retention, config.events.accept_past);
    if !retention.enabled {
        return;
    }
    for (key, keep) in [
        ("retention.events", retention.events),
        ("retention.stats_minutes", retention.stats_minutes),
        ("retention.stats", retention.stats),
    ] {
        if keep < KEEP_MIN {
            merge.refuse(&[key], "must be at least 16d: late events are counted for 14 days");
        }
    }
    if !(1..=19).contains(&retention.archive_zstd_level) {
        merge.refuse(&["retention.archive_zstd_level"], "must be between 1 and 19");
    }
    if accept_past > COUNTED_BACK {
        merge.refuse(
            &["events.accept_past", "retention.enabled"],
            "older events than 14d are accepted, but not counted in log_stats, and dropped soon; accept less, or set \
             retention.enabled = false",
        );
    }
}

fn delivery(config: &Config, merge: &mut Merge) {
    let delivery = &config.delivery;
    if delivery.lease <= delivery.renew_every.saturating_mul(2) {
        merge.refuse(
            &["delivery.lease", "delivery.renew_every"],
            "a claim must outlive two renewals, or one slow renewal loses it; make the first more than twice the second",
        );
    }
    if delivery.linger > LINGER_MAX {
        merge.refuse(&["delivery.linger"], "a stream may rest for a minute at most");
    }
    if delivery.retry_min > delivery.retry_max {
        merge.refuse(
            &["delivery.retry_min", "delivery.retry_max"],
            "the first pause is longer than the longest",
        );
    }
}

fn elasticsearch(config: &Config, merge: &mut Merge) {
    let section = &config.elasticsearch;
    if section.urls.is_empty() {
        merge.refuse(
            &["elasticsearch.urls"],
            "names no node; write one, or elasticsearch.enabled = false to store in SQL only",
        );
    }
    for url in &section.urls {
        if !matches!(url.scheme(), "http" | "https") || url.query().is_some() || url.fragment().is_some() {
            merge.refuse(
                &["elasticsearch.urls"],
                "must begin with http:// or https:// and have no ? and no #",
            );
            break;
        }
    }
    one_credential(config, merge);
    names_of_indices(config, merge);
    if !is_elasticsearch_time(&section.refresh_interval) {
        let message = "is no time of Elasticsearch's; write it like \"1s\" or \"500ms\", or \"-1\" for never";
        merge.refuse(&["elasticsearch.refresh_interval"], message);
    }
    if section.bulk_bytes_max > ELASTICSEARCH_BODY_MAX {
        merge.refuse(
            &["elasticsearch.bulk_bytes_max"],
            "must be at most 100MiB, what Elasticsearch takes by default",
        );
    }
    if section.request_timeout <= STREAM_CREATION {
        let message = "must be above 35s: making a data stream whose shard cannot be placed takes Elasticsearch 31 s";
        merge.refuse(&["elasticsearch.request_timeout"], message);
    }
    files(config, merge);
}

fn one_credential(config: &Config, merge: &mut Merge) {
    let section = &config.elasticsearch;
    let basic = if section.username.is_some() {
        "elasticsearch.username"
    } else {
        "elasticsearch.password"
    };
    match (&section.username, &section.password, &section.api_key) {
        (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            merge.refuse(
                &[basic, "elasticsearch.api_key"],
                "user and password, or an API key: give one of the two",
            );
        }
        (Some(_), None, None) => {
            let message = "a user without a password; give elasticsearch.password or elasticsearch.password_file";
            merge.refuse(&["elasticsearch.username", "elasticsearch.password"], message);
        }
        (None, Some(_), None) => {
            merge.refuse(
                &["elasticsearch.password", "elasticsearch.username"],
                "a password without a user; give elasticsearch.username",
            );
        }
        (None, None, Some(key)) if !key.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) => {
            let message = "holds a space, a line end or a character that is not ASCII; give `encoded` as Elasticsearch answered it";
            merge.refuse(&["elasticsearch.api_key"], message);
        }
        (Some(_), Some(_), None) | (None, None, _) => {}
    }
}

fn files(config: &Config, merge: &mut Merge) {
    let section = &config.elasticsearch;
    for (key, path, is_folder) in [
        ("elasticsearch.ca_file", &section.ca_file, false),
        ("elasticsearch.templates_dir", &section.templates_dir, true),
    ] {
        let Some(path) = path else { continue };
        match std::fs::metadata(path) {
            Err(error) => merge.refuse(&[key], format!("cannot be read: {error}")),
            Ok(found) if found.is_dir() != is_folder => {
                merge.refuse(
                    &[key],
                    if is_folder {
                        "is no folder"
                    } else {
                        "is a folder, not a file"
                    },
                );
            }
            Ok(_) => {}
        }
    }
}

fn names_of_indices(config: &Config, merge: &mut Merge) {
    let section = &config.elasticsearch;
    if let Some(wrong) = name_mistake(&section.dataset) {
        merge.refuse(&["elasticsearch.dataset"], wrong);
    } else if section.dataset.contains('-') {
        merge.refuse(
            &["elasticsearch.dataset"],
            "must have no `-`: it ends the dataset in logs-<dataset>-<tenant>",
        );
    } else if section.dataset.chars().any(char::is_uppercase) {
        merge.refuse(&["elasticsearch.dataset"], "must be in lower case");
    }
    for (name, kind) in &section.promote {
        if !matches!(kind.as_str(), "keyword" | "long" | "double" | "boolean" | "ip") {
            let key = format!("elasticsearch.promote.{name}");
            merge.refuse(&[&key], "is one of keyword, long, double, boolean, ip");
        }
        if name.trim().is_empty() || name.starts_with('.') || name.ends_with('.') || name.contains("..") {
            merge.refuse(
                &["elasticsearch.promote"],
                format!("`{name}` cannot be the name of a field"),
            );
        }
    }
}

/// What keeps a tenant from being the end of an index's name; it is written there in lower case.
#[must_use]
pub fn tenant_mistake(tenant: &str) -> Option<String> {
    name_mistake(&tenant.to_lowercase())
}

/// What keeps a text from being a part of an index's name (Elasticsearch 8: create index, `index` parameter).
fn name_mistake(name: &str) -> Option<String> {
    let forbidden = |c: char| matches!(c, '\\' | '/' | '*' | '?' | '"' | '<' | '>' | '|' | ',' | '#' | ':');
    if name.is_empty() {
        return Some("must not be empty".to_owned());
    }
    if name.len() > 100 {
        return Some("is longer than the 100 bytes that a part of an index's name may have".to_owned());
    }
    let found = name
        .chars()
        .find(|c| forbidden(*c) || c.is_whitespace() || c.is_control())?;
    Some(format!("has {found:?}, which the name of an index must not have"))
}

fn is_elasticsearch_time(text: &str) -> bool {
    if matches!(text, "-1" | "0") {
        return true;
    }
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
    number.parse::<u64>().is_ok() && matches!(unit, "nanos" | "micros" | "ms" | "s" | "m" | "h" | "d")
}
