//! HTTP: where events come in and the service tells about itself. Handlers translate and call one function.
//!
//! Answers are small, uncompressed and carry `Content-Length`: Vector drops a batch whose 200 breaks off. Statuses are chosen by what
//! Vector does with them (0.57): it sends again after 408, 429 and 5xx but 501, and drops the batch on anything else.
//!
//! Layers, outermost first: measure and answer panics with 500 (Vector sends again); answer before the process ends; for each path that needs one, ask for a
//! credential before anything of the body is read.

mod access;
mod ask;
mod body;
mod complaints;
mod heard;
mod ingest;
mod server;
mod tell;

use std::{sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::{MatchedPath, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use self::access::Guard;
pub use self::server::{Served, listen};
use crate::{
    ask::{Asker, CATALOGUE},
    auth::{Credentials, Scope},
    config,
    telemetry::metric,
    telemetry::status::Observatory,
};

/// What handlers share.
#[derive(Debug)]
pub struct AppState {
    /// Facts for status, metrics and readiness; takes requests too.
    pub observatory: Observatory,
    /// Section `[http]`.
    pub settings: config::Http,
    /// Who may send and read; `None` if nobody is asked.
    pub credentials: Option<Credentials>,
    /// Whether who sends and reads needs a certificate.
    pub needs_certificate: bool,
    /// Answers questions; `None` if `api.enabled` is off.
    pub asker: Option<Asker>,
    /// Cancelled when the process ends: whatever is not answered by then is answered 503.
    pub last_call: CancellationToken,
    /// `api.allowed_hosts`.
    pub allowed_hosts: Vec<String>,
}

/// Each request clones it, more than once.
type Shared = Arc<AppState>;

/// A refusal in words: `error` is a stable name, `message` says what happened and what to do.
#[derive(Debug, Serialize)]
struct Problem<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<&'a str>,
}

/// All routes.
pub fn router(state: AppState) -> Router {
    let guard = Guard::new(state.credentials.clone(), state.needs_certificate);
    let asking = |scope| middleware::from_fn_with_state(guard.asking_for(scope), access::ask);
    // A layer covers the methods that stand before it.
    let ingest = || {
        post(ingest::ingest)
            .put(ingest::ingest)
            .route_layer(asking(Scope::Ingest))
    };
    let questions = match &state.asker {
        Some(asker) => ask::routes(asker, &state)
            .route_layer(asking(Scope::Read))
            .merge(ask::annotation_route(asker, &state).route_layer(asking(Scope::Annotate))),
        None => Router::new(),
    };
    Router::new()
        .merge(questions)
        .route("/ingest", ingest())
        .route("/", ingest().get(tell::root))
        .route("/health", get(tell::health))
        .route("/ready", get(tell::ready))
        .route("/metrics", get(tell::metrics).route_layer(asking(Scope::Read)))
        .route("/api/v1/status", get(tell::status).route_layer(asking(Scope::Read)))
        .fallback(tell::unknown_path)
        .method_not_allowed_fallback(tell::unknown_method)
        .layer(middleware::from_fn_with_state(state.last_call.clone(), before_the_end))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(measure))
        .with_state(Arc::new(state))
}

async fn measure(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let route = match request.extensions().get::<MatchedPath>().map(MatchedPath::as_str) {
        Some("/ingest") => "/ingest",
        Some("/") => "/",
        Some("/health") => "/health",
        Some("/ready") => "/ready",
        Some("/metrics") => "/metrics",
        Some("/api/v1/status") => "/api/v1/status",
        Some("/mcp") => "/mcp",
        Some(ask::ANNOTATION_PATH) => ask::ANNOTATION_PATH,
        Some(path) => CATALOGUE
            .iter()
            .find(|entry| entry.path == path)
            .map_or("unknown", |entry| entry.path),
        None => "unknown",
    };
    let response = next.run(request).await;
    metric::request(route, response.status().as_u16(), begun.elapsed());
    response
}

/// A request whose transaction was begun is committed all the same; a resend tells by its digest.
async fn before_the_end(State(last_call): State<CancellationToken>, request: Request, next: Next) -> Response {
    tokio::select! {
        biased;
        response = next.run(request) => response,
        () = last_call.cancelled() => {
            problem_and_close(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "not acknowledged: shutting down; send it again")
        }
    }
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    tracing::error!("a handler panicked; the request is answered 500 and may be sent again");
    problem(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal_error",
        "the request failed by a defect of the service; it may be sent again",
    )
}

fn problem(status: StatusCode, error: &str, message: &str) -> Response {
    (
        status,
        Json(Problem {
            error,
            message,
            dead_letter: None,
        }),
    )
        .into_response()
}

/// A refusal after which the connection is closed, since its body was not read to the end.
fn problem_and_close(status: StatusCode, error: &str, message: &str) -> Response {
    let mut response = problem(status, error, message);
    response
        .headers_mut()
        .insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

/// To a body that takes too long.
fn slow_body() -> Response {
    problem_and_close(
        StatusCode::REQUEST_TIMEOUT,
        "body_too_slow",
        "the body did not arrive within http.body_timeout",
    )
}

/// To a body that ends early.
fn broken_body() -> Response {
    problem_and_close(
        StatusCode::REQUEST_TIMEOUT,
        "body_broken",
        "the body ended before it was complete",
    )
}
