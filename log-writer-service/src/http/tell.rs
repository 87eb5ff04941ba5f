//! What the service tells: health, readiness, metrics, status, and what is wrong with a URL.

use std::{net::SocketAddr, sync::LazyLock, time::Instant};

use axum::{
    Json,
    extract::{ConnectInfo, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};

use super::{Shared, complaints::Complaints, problem};

/// Characters of an unknown path that the log shows.
const PATH_SHOWN_MAX: usize = 200;

/// Alive: always 200. Vector's health check takes no other status.
pub(super) async fn health() -> Response {
    (StatusCode::OK, "ok\n").into_response()
}

/// Ready: batches can be committed. Elasticsearch is no part of it.
pub(super) async fn ready(State(state): State<Shared>) -> Response {
    match state.observatory.readiness.problem() {
        None => (StatusCode::OK, "ready\n").into_response(),
        // Whoever asks needs no credential; the reason names servers and is in the log and the status.
        Some(_) => problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_ready",
            "nothing can be committed now; the log and /api/v1/status say why",
        ),
    }
}

/// Prometheus.
pub(super) async fn metrics(State(state): State<Shared>) -> Response {
    state.observatory.refresh_metrics().await;
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        state.observatory.prometheus.render(),
    )
        .into_response()
}

/// The same in JSON.
pub(super) async fn status(State(state): State<Shared>) -> Response {
    Json(state.observatory.status().await).into_response()
}

/// For whoever opens the address in a browser.
pub(super) async fn root() -> Response {
    let text = concat!(
        "log-writer-service\n\n",
        "POST /ingest          log events: JSON array, NDJSON, text, GELF; gzip, zlib, zstd, snappy\n",
        "GET  /api/openapi.json what can be asked, /api/v1/search first; the same for agents at /mcp (api.enabled)\n",
        "GET  /api/v1/status   books, backlog, stores\n",
        "GET  /metrics         the same for Prometheus\n",
        "GET  /ready           whether batches can be committed\n",
        "GET  /health          alive\n",
    );
    (StatusCode::OK, text).into_response()
}

/// No such path.
pub(super) async fn unknown_path(ConnectInfo(address): ConnectInfo<SocketAddr>, uri: Uri) -> Response {
    static TOLD: LazyLock<Complaints> = LazyLock::new(Complaints::default);
    if let Some(silent) = TOLD.due("unknown path", address.ip(), Instant::now()) {
        let path: String = uri.path().chars().take(PATH_SHOWN_MAX).collect();
        tracing::warn!(source.address = %address.ip(), path, requests_before = silent, "a request to an unknown path was answered 404; Vector drops its batch on that by default");
    }
    problem(
        StatusCode::NOT_FOUND,
        "unknown_path",
        "log events go to /ingest; see / for what else there is",
    )
}

/// No such method here.
pub(super) async fn unknown_method() -> Response {
    problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "unknown_method",
        "this method is not understood here; log events are sent by POST or PUT",
    )
}
