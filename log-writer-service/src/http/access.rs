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
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::Next,
    response::Response,
};
use chrono::Utc;

use super::{body, problem_and_close, server::Peer};
use crate::{
    auth::{Caller, Credentials, Denied, Reason, Scope},
    telemetry::metric,
};

/// How much of a refused body is read on and thrown away, so that its sender sees the answer and not a broken connection.
const REFUSED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// For how long.
const REFUSED_TIME_MAX: Duration = Duration::from_secs(2);
/// One line for each address and reason in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);
/// Addresses and reasons that are remembered; beyond it they share one line.
const COMPLAINTS_MAX: usize = 1024;

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
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(denied) => {
            metric::auth_failures(denied.reason.name(), 1);
            asking.guard.complaints.tell(&denied, asking.scope, address.ip());
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

/// What was said lately, so that a flood of refused requests does not become a flood of lines.
#[derive(Debug, Default)]
struct Complaints {
    told: Mutex<HashMap<(IpAddr, &'static str), Told>>,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    at: Instant,
    silent: u64,
}

impl Complaints {
    fn tell(&self, denied: &Denied, scope: Scope, address: IpAddr) {
        let Some(silent) = self.due(denied.reason, address, Instant::now()) else {
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

    /// Whether a line is due, and for how many requests like this there was none.
    fn due(&self, reason: Reason, address: IpAddr, now: Instant) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |told: &Told| now.duration_since(told.at) >= COMPLAIN_EVERY;
        let mut key = (address, reason.name());
        if told.len() >= COMPLAINTS_MAX && !told.contains_key(&key) {
            told.retain(|_, told| !is_old(told));
            if told.len() >= COMPLAINTS_MAX {
                key = (IpAddr::from([0, 0, 0, 0]), reason.name());
            }
        }
        match told.get_mut(&key) {
            Some(told) if !is_old(told) => {
                told.silent += 1;
                None
            }
            before => {
                let silent = before.map_or(0, |told| told.silent);
                told.insert(key, Told { at: now, silent: 0 });
                Some(silent)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_and_the_next_says_how_many_there_were() {
        let complaints = Complaints::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let start = Instant::now();
        assert_eq!(complaints.due(Reason::Unknown, one, start), Some(0));
        for _ in 0..5 {
            assert_eq!(complaints.due(Reason::Unknown, one, start), None);
        }
        assert_eq!(
            complaints.due(Reason::Unknown, other, start),
            Some(0),
            "another address"
        );
        assert_eq!(complaints.due(Reason::Expired, one, start), Some(0), "another reason");
        let later = start + COMPLAIN_EVERY;
        assert_eq!(complaints.due(Reason::Unknown, one, later), Some(5));
        assert_eq!(complaints.due(Reason::Unknown, one, later), None);
    }

    #[test]
    fn many_addresses_take_no_more_memory_and_share_a_line() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let mut lines = 0;
        for number in 0..10_000_u32 {
            let address = IpAddr::from(number.to_be_bytes());
            lines += u32::from(complaints.due(Reason::Missing, address, start).is_some());
        }
        assert!(complaints.told.lock().unwrap().len() <= COMPLAINTS_MAX + 1);
        assert!(lines <= 1025, "{lines} lines");
        let later = start + COMPLAIN_EVERY;
        assert_eq!(
            complaints.due(Reason::Missing, IpAddr::from([99, 0, 0, 1]), later),
            Some(0)
        );
        assert_eq!(complaints.told.lock().unwrap().len(), 1, "what is old is forgotten");
    }
}
