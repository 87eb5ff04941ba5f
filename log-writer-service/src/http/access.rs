//! Asks a request for its credential, before anything of its body is read.
//!
//! | situation | answer |
//! |---|---|
//! | no certificate where one is needed; no credential, one that is not known, past its end, or for others | 401 |
//! | a good credential that does not allow this | 403 |
//!
//! Both say no more than that. Vector drops the batch on either unless its `retry_strategy` names them (0.57), so the log
//! is loud about it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use chrono::Utc;

use super::{body, complaints::Complaints, problem_and_close, server::Peer};
use crate::{
    auth::{Caller, Credentials, Denied, Reason, Scope},
    telemetry::metric,
};

/// How much of a refused body is read on and thrown away, so that its sender sees the answer and not a broken connection.
const REFUSED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// For how long.
const REFUSED_TIME_MAX: Duration = Duration::from_secs(2);

/// In requests that need no credential: whoever sends them may do everything.
#[derive(Debug, Clone, Copy)]
pub(super) struct NobodyIsAsked;

/// Who is let in, and what was said about those who were not.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    credentials: Option<Credentials>,
    needs_certificate: bool,
    complaints: Arc<Complaints>,
}

impl Guard {
    pub(super) fn new(credentials: Option<Credentials>, needs_certificate: bool) -> Self {
        if credentials.is_some() || needs_certificate {
            Reason::ALL
                .into_iter()
                .for_each(|reason| metric::auth_failures(reason.name(), 0));
        }
        Self {
            credentials,
            needs_certificate,
            complaints: Arc::default(),
        }
    }

    pub(super) fn asking_for(&self, scope: Scope) -> Asking {
        Asking {
            guard: self.clone(),
            scope,
        }
    }
}

/// A guard before a path.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    guard: Guard,
    scope: Scope,
}

impl Asking {
    /// Who sends it, if anybody is asked.
    fn check(&self, request: &Request) -> Result<Option<Caller>, Denied> {
        let peer = request.extensions().get::<Peer>();
        if self.guard.needs_certificate && !peer.is_some_and(|peer| peer.has_certificate) {
            return Err(Denied::new(Reason::Certificate, None));
        }
        let Some(credentials) = &self.guard.credentials else {
            return Ok(None);
        };
        let presented = request.headers().get_all(header::AUTHORIZATION);
        let presented = presented.iter().map(HeaderValue::as_bytes);
        let subjects = peer.map_or(&[][..], |peer| &peer.subjects);
        credentials.check(presented, subjects, self.scope, Utc::now()).map(Some)
    }
}

/// Lets a request through, with its [`Caller`] as an extension and without its secret, or refuses it.
pub(super) async fn ask(
    State(asking): State<Asking>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    match asking.check(&request) {
        Ok(caller) => {
            request.headers_mut().remove(header::AUTHORIZATION);
            match caller {
                Some(caller) => request.extensions_mut().insert(caller).map(drop),
                None => request.extensions_mut().insert(NobodyIsAsked).map(drop),
            };
            next.run(request).await
        }
        Err(denied) => {
            metric::auth_failures(denied.reason.name(), 1);
            complain(&asking.guard.complaints, &denied, asking.scope, address.ip());
            refuse(request, denied.reason).await
        }
    }
}

async fn refuse(request: Request, reason: Reason) -> Response {
    // Whoever asks first whether to send the body is answered, and does not.
    if !request.headers().contains_key(header::EXPECT) {
        body::pass_over(request.into_body(), REFUSED_BYTES_MAX, REFUSED_TIME_MAX).await;
    }
    if reason == Reason::Scope {
        return problem_and_close(StatusCode::FORBIDDEN, "forbidden", "the credential does not allow this");
    }
    let mut response = problem_and_close(StatusCode::UNAUTHORIZED, "unauthorized", "a valid credential is needed");
    for challenge in ["Bearer realm=\"log-writer\"", "Basic realm=\"log-writer\""] {
        response
            .headers_mut()
            .append(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

fn complain(complaints: &Complaints, denied: &Denied, scope: Scope, address: IpAddr) {
    let Some(silent) = complaints.due(denied.reason.name(), address, Instant::now()) else {
        return;
    };
    tracing::error!(
        source.address = %address,
        auth.reason = denied.reason.name(),
        auth.scope = scope.name(),
        auth.detail = denied.detail,
        auth.token = denied.token.as_deref().unwrap_or("not known"),
        requests_before = silent,
        "a request was refused for its credential; Vector drops its batch on that unless its retry_strategy names 401 and 403"
    );
}
