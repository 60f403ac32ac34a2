//! What every request passes: pages of other origins are kept out, panics become answers,
//! requests are counted.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::context::Context;
use super::error::Problem;

/// Refuses a web page of another origin: a browser sends it along with whatever the user's
/// machine can reach, and orch may listen on loopback without a password.
pub(super) async fn same_origin(request: Request, next: Next) -> Response {
    if let Err(problem) = check_origin(request.headers(), request.uri()) {
        return problem.into_response();
    }
    next.run(request).await
}

fn check_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()));
    let same = origin.split_once("://").is_some_and(|(_, authority)| Some(authority) == host);
    // A name that its owner can point at this machine proves nothing; an address does.
    if same && host.is_some_and(|host| host.parse().is_ok_and(|host| is_this_machine(&host))) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "forbidden_origin",
        format!("the web page at {origin:?} may not use this server"),
    ))
}

fn is_this_machine(authority: &axum::http::uri::Authority) -> bool {
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || bare.parse::<IpAddr>().is_ok()
}

/// Counts requests by method, route and status.
pub(super) async fn measure(
    State(context): State<Context>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = word(request.method());
    let begin = Instant::now();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    let status = response.status();
    let millis = begin.elapsed().as_millis();
    if status.is_server_error() {
        tracing::info!(method, route, status = status.as_u16(), millis, "a request failed");
    } else {
        tracing::debug!(method, route, status = status.as_u16(), millis, "a request");
    }
    context.metrics.api_request_seconds.observe(begin.elapsed().as_secs_f64());
    context.metrics.api_requests.with_label_values(&[method, route, status.as_str()]).inc();
    response
}

/// A closed set: a client that makes up methods makes no new time series.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

/// What a client sees of a panic.
pub(super) fn after_panic(panic: Box<dyn std::any::Any + Send>) -> Response {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words");
    tracing::error!(what, "a request met a defect");
    Problem::internal("the request failed within the server; see its log").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origin: Option<&str>, host: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        check_origin(&headers, &Uri::from_static("/v1/jobs")).is_ok()
    }

    #[test]
    fn only_pages_of_this_very_server_pass() {
        assert!(check(None, "orch.example:7400"));
        assert!(check(Some("http://127.0.0.1:7400"), "127.0.0.1:7400"));
        assert!(check(Some("http://localhost:7400"), "localhost:7400"));
        assert!(check(Some("http://[::1]:7400"), "[::1]:7400"));
        assert!(!check(Some("http://evil.example"), "127.0.0.1:7400"));
        assert!(!check(Some("http://127.0.0.1:8000"), "127.0.0.1:7400"));
        assert!(!check(Some("http://evil.example:7400"), "evil.example:7400"));
        assert!(!check(Some("null"), "127.0.0.1:7400"));
    }
}
