//! A week of a shop's logs, with four incidents, sent to a running service (`make demo`).
//!
//! ```text
//! log-demo --url http://127.0.0.1:8080
//! ```
//!
//! Three days ago the payment database refused connections for 40 minutes; yesterday, at this time, the catalogue was
//! slow for an hour; 50 minutes ago a new version of `auth` brought an error that nobody had seen before; and `mailer` is
//! silent since 20 minutes. What happened in an hour is drawn from that hour, so a second run in the same hour adds nothing.
#![expect(clippy::print_stdout, reason = "a tool that reports on its terminal")]

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, DurationRound as _, TimeDelta, Timelike as _, Utc};
use clap::Parser;
use fastrand::Rng;
use serde_json::{Value, json};
use uuid::{Builder, Uuid};

/// Events of one request to the service.
const PER_REQUEST: usize = 500;
/// Who asks what docs/SQL.md asks about.
const USER: &str = "123e4567-e89b-12d3-a456-426614174000";

/// Fills a service with a week of logs.
#[derive(Debug, Parser)]
struct Options {
    /// Where the service listens.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Customers' requests in an average hour, each of four to six events.
    #[arg(long, default_value_t = 80)]
    per_hour: u32,
    /// Token, where the service asks for one.
    #[arg(long)]
    token: Option<String>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let client = reqwest::Client::new();
    let events = week(Utc::now(), options.per_hour)?;
    let (mut committed, mut duplicates) = (0, 0);
    for batch in events.chunks(PER_REQUEST) {
        let mut request = client
            .post(format!("{}/ingest", options.url.trim_end_matches('/')))
            .json(batch);
        if let Some(token) = &options.token {
            request = request.bearer_auth(token);
        }
        let answer = request
            .send()
            .await
            .with_context(|| format!("no service answers at {}: `make run` starts one", options.url))?;
        let status = answer.status();
        let receipt: Value = answer.json().await.context("an answer that is no receipt")?;
        ensure!(status.is_success(), "{status}: {receipt}");
        committed += receipt.get("committed").and_then(Value::as_u64).unwrap_or_default();
        duplicates += receipt.get("duplicates").and_then(Value::as_u64).unwrap_or_default();
    }
    println!("{committed} events of a week committed, {duplicates} were there before; what to ask: docs/SQL.md");
    Ok(())
}

/// All events up to now, oldest first.
fn week(now: DateTime<Utc>, per_hour: u32) -> Result<Vec<Value>> {
    let this_hour = now.duration_trunc(TimeDelta::hours(1))?;
    let mut shop = Shop {
        now,
        events: Vec::new(),
    };
    // Not a minute more: the service takes times of seven days.
    for back in (0..7 * 24).rev() {
        let hour = this_hour - TimeDelta::hours(back);
        let mut draw = Rng::with_seed(hour.timestamp().unsigned_abs());
        // Little at night, most in the afternoon.
        let busy = 1.0 + 0.7 * ((f64::from(hour.hour()) - 9.0) * 15.0).to_radians().sin();
        let requests = (f64::from(per_hour) * busy).round();
        for number in 0..per_hour * 2 {
            if f64::from(number) < requests {
                let at = hour + TimeDelta::milliseconds(draw.i64(0..3_600_000));
                shop.request(&mut draw, at);
            }
        }
    }
    shop.one_failed_request();
    let mut events = shop.events;
    events.sort_by_key(|(at, _)| *at);
    Ok(events.into_iter().map(|(_, event)| event).collect())
}

/// What a customer's request is known by in all services.
struct Customer {
    user: String,
    correlation: String,
    trace: String,
}

struct Shop {
    now: DateTime<Utc>,
    events: Vec<(DateTime<Utc>, Value)>,
}

impl Shop {
    /// Whether a time lies in a span that began and ended so many minutes ago.
    fn within(&self, at: DateTime<Utc>, began: i64, ended: i64) -> bool {
        let ago = (self.now - at).num_minutes();
        ended <= ago && ago < began
    }

    /// From the gateway to the mail, or to where it fails.
    #[expect(clippy::too_many_lines, reason = "one story, told in its order")]
    fn request(&mut self, draw: &mut Rng, at: DateTime<Utc>) {
        let user = if draw.u8(..) < 3 {
            USER.to_owned()
        } else {
            format!("user-{}", draw.u32(1..4000))
        };
        let customer = Customer {
            user,
            correlation: format!("req-{:012x}", draw.u64(..) >> 16),
            trace: format!("{:032x}", draw.u128(..)),
        };
        let order = draw.u32(10_000..99_999);
        let after = |ms: i64| at + TimeDelta::milliseconds(ms);
        let auth_ms = draw.i64(3..40);
        let catalog_ms = if self.within(at, 24 * 60 + 60, 24 * 60) {
            draw.i64(4_000..9_000)
        } else {
            draw.i64(8..120)
        };
        let payment_ms = draw.i64(60..700);

        if self.within(at, 50, -1) && draw.u8(..) < 180 {
            let message = format!("cannot read claim \"aud\" of token {:016x}", draw.u64(..));
            let details =
                json!({"error_details": {"type": "InvalidClaim", "message": "expected a list"}, "version": "2.4.0"});
            self.log(draw, after(auth_ms), "ERROR", "auth", &customer, &message, &details);
            self.log(
                draw,
                after(auth_ms + 2),
                "WARN",
                "gateway",
                &customer,
                "answered 401 to POST /login",
                &json!({"status": 401}),
            );
            return;
        }
        let message = format!("token accepted in {auth_ms} ms");
        self.log(
            draw,
            after(auth_ms),
            "INFO",
            "auth",
            &customer,
            &message,
            &timed(auth_ms, &[]),
        );
        let message = format!("listed {} items in {catalog_ms} ms", draw.u8(1..60));
        let slow = if catalog_ms >= 1000 { "WARN" } else { "INFO" };
        self.log(
            draw,
            after(auth_ms + catalog_ms),
            slow,
            "catalog",
            &customer,
            &message,
            &timed(catalog_ms, &["performance"]),
        );
        let until_paid = auth_ms + catalog_ms + payment_ms;
        if self.within(at, 3 * 24 * 60 + 40, 3 * 24 * 60) {
            let message = format!("connection refused by payments-db:5432 (attempt {})", draw.u8(1..4));
            let details =
                json!({"error_details": {"type": "ConnectionRefused", "code": "ECONNREFUSED"}, "tags": ["database"]});
            self.log(
                draw,
                after(until_paid),
                "ERROR",
                "payment",
                &customer,
                &message,
                &details,
            );
            let message = format!("order {order} failed: payment is unavailable");
            self.log(
                draw,
                after(until_paid + 3),
                "ERROR",
                "checkout",
                &customer,
                &message,
                &json!({"order": order, "error_code": "PAYMENT_UNAVAILABLE"}),
            );
            return;
        }
        if draw.u8(..) < 3 {
            let message = format!("card of order {order} declined");
            self.log(
                draw,
                after(until_paid),
                "WARN",
                "payment",
                &customer,
                &message,
                &timed(payment_ms, &[]),
            );
        } else {
            let message = format!("charged order {order}");
            self.log(
                draw,
                after(until_paid),
                "INFO",
                "payment",
                &customer,
                &message,
                &timed(payment_ms, &[]),
            );
            if !self.within(at, 20, -1) {
                let message = format!("confirmation of order {order} sent");
                self.log(
                    draw,
                    after(until_paid + 900),
                    "INFO",
                    "mailer",
                    &customer,
                    &message,
                    &json!({"order": order}),
                );
            }
        }
        if draw.u8(..) < 2 {
            let message = format!("order {order} failed: deadline of 2000 ms exceeded");
            self.log(
                draw,
                after(until_paid + 4),
                "ERROR",
                "checkout",
                &customer,
                &message,
                &json!({"order": order}),
            );
        } else {
            let message = format!("order {order} placed");
            self.log(
                draw,
                after(until_paid + 4),
                "INFO",
                "checkout",
                &customer,
                &message,
                &timed(until_paid, &[]),
            );
        }
        let message = format!("answered 200 to POST /orders in {} ms", until_paid + 6);
        self.log(
            draw,
            after(until_paid + 6),
            "INFO",
            "gateway",
            &customer,
            &message,
            &timed(until_paid + 6, &[]),
        );
    }

    /// The request that the examples follow, half an hour ago.
    fn one_failed_request(&mut self) {
        let at = self.now - TimeDelta::minutes(30);
        let mut draw = Rng::with_seed(at.timestamp().unsigned_abs());
        let customer = Customer {
            user: USER.to_owned(),
            correlation: "abc-123-def".to_owned(),
            trace: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        };
        let steps = [
            (0, "INFO", "gateway", "POST /orders of the shop's app", json!({})),
            (12, "INFO", "auth", "token accepted in 12 ms", timed(12, &[])),
            (
                60,
                "INFO",
                "checkout",
                "order 4711 is complete, charging it",
                json!({"order": 4711}),
            ),
            (
                1_560,
                "ERROR",
                "payment",
                "connection refused by bank-gateway:443",
                json!({"error_details": {"code": "ECONNREFUSED"}}),
            ),
            (
                1_571,
                "ERROR",
                "checkout",
                "order 4711 failed: payment is unavailable",
                json!({"order": 4711, "error_code": "PAYMENT_UNAVAILABLE"}),
            ),
            (
                1_580,
                "WARN",
                "gateway",
                "answered 502 to POST /orders",
                timed(1_580, &[]),
            ),
        ];
        for (ms, level, service, message, more) in steps {
            self.log(
                &mut draw,
                at + TimeDelta::milliseconds(ms),
                level,
                service,
                &customer,
                message,
                &more,
            );
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the members of an event")]
    fn log(
        &mut self,
        draw: &mut Rng,
        at: DateTime<Utc>,
        level: &str,
        service: &str,
        customer: &Customer,
        message: &str,
        more: &Value,
    ) {
        let id = id_of(at, draw);
        let host = format!("{service}-{}", draw.u8(1..3));
        // Drawn all the same, so that a later run in this hour draws the same.
        if at > self.now {
            return;
        }
        let mut event = json!({
            "event_id": id, "timestamp": at.to_rfc3339(), "level": level, "service": service, "host": host, "message": message,
            "user_id": customer.user, "correlation_id": customer.correlation, "trace_id": customer.trace, "region": "eu",
        });
        if let (Some(event), Some(more)) = (event.as_object_mut(), more.as_object()) {
            event.extend(more.clone());
        }
        self.events.push((at, event));
    }
}

fn timed(ms: i64, tags: &[&str]) -> Value {
    let tags = if ms >= 1000 { tags } else { &[] };
    json!({"performance_metrics": {"duration_ms": ms}, "tags": tags})
}

/// A v7 id that the same draw makes again.
fn id_of(at: DateTime<Utc>, draw: &mut Rng) -> Uuid {
    let mut random = [0; 10];
    draw.fill(&mut random);
    Builder::from_unix_timestamp_millis(at.timestamp_millis().unsigned_abs(), &random).into_uuid()
}
