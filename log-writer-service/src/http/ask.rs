//! Questions over HTTP: a path for each entry of the catalogue, the answer in JSON.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Query, Request, State, rejection::JsonRejection},
    http::{StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value, json};

use super::{AppState, Shared, access::NobodyIsAsked, broken_body, problem, problem_and_close, slow_body};
use crate::{
    ask::{AskError, Asker, Asking, CATALOGUE, CallExtensions, Entry, Sight, Tools, document},
    auth::Caller,
    timescale::Actor,
};

/// A call of a tool: arguments, and at most a statement.
const CALL_BYTES_MAX: usize = 1024 * 1024;

/// Where analyses are added.
pub(super) const ANNOTATION_PATH: &str = "/api/v1/logs/{id}/annotation";

/// The routes of all questions, and of the tools.
pub(super) fn routes(asker: &Asker, state: &AppState) -> Router<Shared> {
    let tools = Tools::new(asker.clone(), asking_of_call).over_http(&state.allowed_hosts);
    let tools = Router::new()
        .route_service("/mcp", tools)
        .layer(middleware::from_fn(tell_broken_json))
        .layer(middleware::from_fn_with_state(state.settings.body_timeout, whole));
    let router = Router::new()
        .route("/api/openapi.json", get(async || Json(document())))
        .merge(tools);
    CATALOGUE.iter().fold(router, |router, entry| {
        let asker = asker.clone();
        let handler = move |who: Who, address: Peer, path: PathPairs, query: Pairs| {
            answer(asker, entry, who, address, path, query)
        };
        router.route(entry.path, get(handler))
    })
}

/// Reads a call's body before anybody looks at it: who sends none of it, or too much, holds a connection for so long only.
async fn whole(State(time): State<Duration>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let reading = Limited::new(body, CALL_BYTES_MAX).collect();
    match tokio::time::timeout(time, reading).await {
        Ok(Ok(whole)) => {
            let body = Body::from(whole.to_bytes());
            next.run(Request::from_parts(parts, body)).await
        }
        Ok(Err(error)) if error.is::<LengthLimitError>() => problem_and_close(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            &format!("a call has at most {CALL_BYTES_MAX} bytes"),
        ),
        Ok(Err(_)) => broken_body(),
        Err(_) => slow_body(),
    }
}

/// The SDK answers 415 to a message that it cannot read, as if the type of its body were wrong.
async fn tell_broken_json(request: Request, next: Next) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let is_json = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    let response = next.run(request).await;
    if !is_json || response.status() != StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return response;
    }
    // JSON-RPC 2.0, section 5.1: the id is null where it cannot be told.
    let error = json!({"code": -32700, "message": "the body is no JSON, or no message of JSON-RPC"});
    let answer = json!({"jsonrpc": "2.0", "id": null, "error": error});
    (StatusCode::BAD_REQUEST, Json(answer)).into_response()
}

type PathPairs = Result<Path<Vec<(String, String)>>, axum::extract::rejection::PathRejection>;
type Pairs = Result<Query<Vec<(String, String)>>, axum::extract::rejection::QueryRejection>;

async fn answer(
    asker: Asker,
    entry: &'static Entry,
    (caller, nobody_is_asked): Who,
    ConnectInfo(address): Peer,
    path: PathPairs,
    query: Pairs,
) -> Response {
    let unclear = |what| problem(StatusCode::BAD_REQUEST, "unclear_question", what);
    let Ok(Path(path)) = path else {
        return unclear("the path is no text");
    };
    let Ok(Query(query)) = query else {
        return unclear("the part after `?` cannot be read as name=value pairs");
    };
    let mut parameters = Map::new();
    for (name, text) in path.iter().chain(&query) {
        if let Err(wrong) = entry.read(name, text, &mut parameters) {
            return problem(StatusCode::BAD_REQUEST, "unclear_question", &wrong);
        }
    }
    match asker
        .ask(
            entry,
            parameters,
            &asking(caller.as_deref(), nobody_is_asked.is_some(), Some(address.ip())),
        )
        .await
    {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => refuse(&error),
    }
}

/// Who calls a tool: the guard has put it into the request.
fn asking_of_call(extensions: &CallExtensions) -> Asking {
    let parts = extensions.get::<Parts>();
    let caller = parts.and_then(|parts| parts.extensions.get::<Caller>());
    let address = parts.and_then(|parts| parts.extensions.get::<ConnectInfo<SocketAddr>>());
    let nobody_is_asked = parts.is_some_and(|parts| parts.extensions.get::<NobodyIsAsked>().is_some());
    asking(caller, nobody_is_asked, address.map(|address| address.0.ip()))
}

/// Who asks. A request that came past the guard sees nothing.
fn asking(caller: Option<&Caller>, nobody_is_asked: bool, address: Option<IpAddr>) -> Asking {
    Asking {
        sight: match caller {
            Some(caller) if !caller.is_admin => Sight::Tenant(Arc::clone(&caller.tenant)),
            None if !nobody_is_asked => Sight::Tenant(Arc::from("")),
            Some(_) | None => Sight::All,
        },
        may_annotate: caller.map_or(nobody_is_asked, |caller| caller.may_annotate),
        actor: Actor::of_request(caller.map(|caller| caller.token.as_ref()), address),
    }
}

/// The route of annotations; it needs a scope of its own.
pub(super) fn annotation_route(asker: &Asker, state: &AppState) -> Router<Shared> {
    let asker = asker.clone();
    let handler =
        move |who: Who, address: Peer, path: Path<String>, body: Annotation| annotate(asker, who, address, path, body);
    Router::new()
        .route(ANNOTATION_PATH, post(handler))
        .layer(middleware::from_fn_with_state(state.settings.body_timeout, whole))
}

type Peer = ConnectInfo<SocketAddr>;
/// What the guard has put into the request.
type Who = (Option<Extension<Caller>>, Option<Extension<NobodyIsAsked>>);
type Annotation = Result<Json<Map<String, Value>>, JsonRejection>;

/// Adds an analysis to an event: `{"timestamp", "analysis"}`, and `tenant` where the caller may choose one.
async fn annotate(
    asker: Asker,
    (caller, nobody_is_asked): Who,
    ConnectInfo(address): Peer,
    Path(id): Path<String>,
    body: Annotation,
) -> Response {
    let Ok(Json(mut request)) = body else {
        return problem(
            StatusCode::BAD_REQUEST,
            "unclear_question",
            "the body must be a JSON object with `timestamp` and `analysis`",
        );
    };
    request.insert("id".to_owned(), Value::from(id));
    match asker
        .annotate(
            request,
            &asking(caller.as_deref(), nobody_is_asked.is_some(), Some(address.ip())),
        )
        .await
    {
        Ok(analysis) => Json(analysis).into_response(),
        Err(error) => refuse(&error),
    }
}

fn refuse(error: &AskError) -> Response {
    let (status, name) = match error {
        AskError::Unclear(_) => (StatusCode::BAD_REQUEST, "unclear_question"),
        AskError::Refused(_) => (StatusCode::FORBIDDEN, "forbidden"),
        AskError::NotFound(_) => (StatusCode::NOT_FOUND, "no_such_event"),
        AskError::TooSlow => (StatusCode::GATEWAY_TIMEOUT, "too_slow"),
        AskError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    if let AskError::Unavailable(reason) = error {
        tracing::warn!(reason, "a question could not be answered");
        return problem(status, name, "nobody can be asked now; the log says why");
    }
    problem(status, name, &error.to_string())
}
