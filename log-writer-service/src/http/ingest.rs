//! `POST`/`PUT` `/ingest` and `/`: one request in, one receipt out.
//!
//! | situation | answer |
//! |---|---|
//! | committed, now or before | 200 and the receipt |
//! | some events unusable | 200; they are dead letters of the same transaction |
//! | body not readable | 400, once it is kept as a dead letter |
//! | body over the limit | 413, once its size and digest are kept |
//! | body too slow, or broken off | 408 |
//! | too much in flight | 429 |
//! | can't be committed now | 503 |

use std::net::SocketAddr;

use axum::{
    Extension, Json,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    Problem, Shared,
    body::{self, Read},
    broken_body, problem, problem_and_close, slow_body,
};
use crate::{
    auth::Caller,
    event::Digest,
    ingest::{Accepted, Incoming, Refusal},
};

/// Takes one request.
pub(super) async fn ingest(
    State(state): State<Shared>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Response {
    let ingestor = &state.observatory.ingestor;
    let (parts, body) = request.into_parts();
    let length = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let limit = state.settings.body_bytes_max;
    let read = body::read(body, length, limit, state.settings.body_timeout, ingestor.admission()).await;
    let mut incoming = incoming(&parts.headers, parts.uri.path(), address);
    incoming.tenant = caller.map(|Extension(caller)| caller.tenant);
    let result = match read {
        Read::Whole(body, reservation) => {
            incoming.body_bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
            incoming.body = body;
            ingestor.accept(incoming, reservation).await
        }
        Read::TooLarge { bytes, digest } => {
            incoming.body_bytes = length.unwrap_or(bytes).max(bytes);
            ingestor
                .accept_too_large(incoming, Digest(*digest.as_bytes()), limit)
                .await
        }
        Read::Busy(rest) => {
            // A sender that is still writing must get to read its answer, not a reset. Whoever asks first is told at once.
            if !parts.headers.contains_key(header::EXPECT) {
                let bytes_max = u64::try_from(limit).unwrap_or(u64::MAX);
                body::pass_over(rest, bytes_max, state.settings.body_timeout).await;
            }
            return problem_and_close(
                StatusCode::TOO_MANY_REQUESTS,
                "too_much_in_flight",
                &Refusal::Busy.to_string(),
            );
        }
        Read::Slow => return slow_body(),
        Read::Broken => return broken_body(),
    };
    answer(result)
}

fn answer(result: Result<Accepted, Refusal>) -> Response {
    match result {
        Ok(Accepted::Committed(receipt)) => Json(receipt).into_response(),
        Ok(Accepted::Undecodable(undecodable, digest)) => {
            let status = if undecodable.too_large {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            let digest = digest.to_hex();
            (
                status,
                Json(Problem {
                    error: &undecodable.reason,
                    message: &undecodable.detail,
                    dead_letter: Some(&digest),
                }),
            )
                .into_response()
        }
        Err(refusal @ (Refusal::Busy | Refusal::LateBusy)) => problem(
            StatusCode::TOO_MANY_REQUESTS,
            "too_much_in_flight",
            &refusal.to_string(),
        ),
        Err(refusal @ Refusal::NeverFits { .. }) => {
            problem(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", &refusal.to_string())
        }
        Err(Refusal::Unavailable(reason)) => {
            // It names servers and tables, which a sender need not know.
            tracing::debug!(reason, "a request is answered 503");
            problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "not acknowledged; send it again",
            )
        }
    }
}

fn incoming(headers: &HeaderMap, path: &str, address: SocketAddr) -> Incoming {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Incoming {
        body: bytes::Bytes::new(),
        body_bytes: 0,
        path: path.to_owned(),
        content_type: text(header::CONTENT_TYPE),
        content_encoding: text(header::CONTENT_ENCODING),
        idempotency_key: headers.get("idempotency-key").map(|value| value.as_bytes().to_vec()),
        tenant: None,
        address: Some(address.ip()),
    }
}
