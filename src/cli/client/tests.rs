//! The client against servers that behave badly.

use std::sync::Arc;
use std::sync::Mutex;

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response as Answer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::api::view::query::{Exec, JobLogs};
use crate::clock::SystemClock;

/// What each request had: method and path with query, and its key.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A server that answers the n-th request with what `answer` makes of n.
async fn server(
    answer: impl Fn(usize) -> Answer + Clone + Send + Sync + 'static,
) -> (String, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let router = Router::new().fallback(move |request: Request| {
        let key = request.headers().get("idempotency-key");
        let key = key.and_then(|key| key.to_str().ok()).map(str::to_owned);
        let mut seen = noted.lock().unwrap();
        seen.push((format!("{} {}", request.method(), request.uri()), key));
        std::future::ready(answer(seen.len()))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen)
}

fn problem(status: StatusCode, code: &str, more: &Value) -> Answer {
    let mut body = json!({
        "type": "urn:orch:problem:x", "title": "x", "status": status.as_u16(),
        "detail": "what is wrong", "code": code
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        body[key] = value.clone();
    }
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

fn client(addresses: &str) -> Client {
    Client::new(addresses, SystemClock::shared()).unwrap()
}

#[tokio::test]
async fn a_write_is_repeated_under_one_key_until_there_is_a_leader() {
    let (address, seen) = server(|n| match n {
        1 | 2 => problem(StatusCode::SERVICE_UNAVAILABLE, "no_leader", &json!({})),
        3 => problem(StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", &json!({})),
        _ => axum::Json(json!({"fine": true})).into_response(),
    })
    .await;
    let call = Call::new(Method::PUT, ["variables", "a"]).body("x", "text/plain");
    let reply: Value = client(&address).json(call).await.unwrap();
    assert_eq!(reply, json!({"fine": true}));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4);
    let key = seen[0].1.clone().unwrap();
    assert_eq!(key.len(), 32);
    assert!(seen.iter().all(|(_, other)| other.as_ref() == Some(&key)), "{seen:?}");
}

#[tokio::test]
async fn the_next_server_is_tried_and_remembered() {
    let (address, seen) = server(|_| axum::Json(json!(1)).into_response()).await;
    // Nobody listens on a port that was just given up.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = client(&format!("{gone},{address}"));
    for _ in 0..2 {
        let reply: Value = client.json(Call::get(["jobs"])).await.unwrap();
        assert_eq!(reply, json!(1));
    }
    assert_eq!(seen.lock().unwrap().len(), 2);
    assert!(client.servers_in_turn().next().unwrap().as_str().contains(&address));
}

#[tokio::test]
async fn an_error_says_what_and_ends_with_its_code() {
    let (address, seen) = server(|n| match n {
        1 => problem(StatusCode::NOT_FOUND, "not_found", &json!({})),
        2 => problem(StatusCode::CONFLICT, "conflict", &json!({})),
        3 => problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid",
            &json!({"problems": [{"line": 2, "column": 3, "field": "imag", "message": "no"}]}),
        ),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "<html>").into_response(),
    })
    .await;
    let client = client(&address);
    let mut failures = Vec::new();
    for _ in 0..4 {
        let call = Call::get(["x"]).hint("look");
        failures.push(client.json::<Value>(call).await.unwrap_err());
    }
    let codes: Vec<_> = failures.iter().map(|failure| failure.exit).collect();
    assert_eq!(codes, [Exit::NOT_FOUND, Exit::REFUSED, Exit::FAILED, Exit::FAILED]);
    assert_eq!((failures[0].what.as_str(), failures[0].hint.as_str()), ("what is wrong", "look"));
    assert_eq!(failures[2].details, "2:3: imag: no\n");
    assert!(failures[3].what.contains("500"), "{}", failures[3]);
    // None of these gets better by asking again.
    assert_eq!(seen.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn all_pages_are_one_list() {
    let (address, seen) = server(|n| {
        axum::Json(match n {
            1 => json!({"items": [1, 2], "next_cursor": "a b"}),
            _ => json!({"items": [3]}),
        })
        .into_response()
    })
    .await;
    let rows: Vec<u32> = client(&address).list(Call::get(["jobs"])).await.unwrap();
    assert_eq!(rows, [1, 2, 3]);
    assert!(seen.lock().unwrap()[1].0.ends_with("cursor=a+b"), "{seen:?}");
}

#[test]
fn addresses_may_leave_out_the_scheme() {
    let urls = servers("127.0.0.1:7400, https://b:7400/").unwrap();
    let texts: Vec<_> = urls.iter().map(Url::as_str).collect();
    assert_eq!(texts, ["http://127.0.0.1:7400/", "https://b:7400/"]);
    for bad in ["", ",", "ftp://a", "http://", "a b"] {
        assert!(servers(bad).is_err(), "{bad}");
    }
}

#[test]
fn paths_and_parameters_are_escaped() {
    let server = Url::parse("http://a:1").unwrap();
    let query = JobLogs { project: Some("shop".into()), tail: Some(5), ..JobLogs::default() };
    let path = ["jobs".to_owned(), "a b".to_owned(), "logs".to_owned()];
    assert_eq!(
        url(&server, &path, &pairs(&query)).as_str(),
        "http://a:1/v1/jobs/a%20b/logs?project=shop&tail=5"
    );
    let query = Exec { command: vec!["a&b".into(), "c".into()], tty: true, ..Exec::default() };
    let pairs = pairs(&query);
    assert_eq!(pairs.len(), 3);
    let url = url(&server, &["x".to_owned()], &pairs);
    assert!(url.query().unwrap().contains("command=a%26b&command=c"), "{url}");
}
