//! Streams of events: nothing missed, nothing repeated.

use futures::StreamExt;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::{TestApi, WEB, within};

/// Server-sent events as they come.
struct Sse {
    body: BoxStream<'static, Result<axum::body::Bytes, axum::Error>>,
    text: String,
}

impl Sse {
    async fn open(api: &TestApi, query: &str, headers: &[(&str, &str)]) -> Self {
        let path = format!("/v1/events{query}");
        let request = TestApi::request("GET", &path, headers, axum::body::Body::empty());
        let response = api.answer(request).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let body = response.into_body().into_data_stream().boxed();
        Self { body, text: String::new() }
    }

    /// The next event's fields: event, id, data.
    async fn next(&mut self) -> Option<(String, Option<u64>, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
                };
                let parsed = field("event:").map(|kind| {
                    let id = field("id:").map(|id| id.parse().unwrap());
                    (kind.to_owned(), id, serde_json::from_str(field("data:").unwrap()).unwrap())
                });
                self.text = rest.to_owned();
                match parsed {
                    Some(parsed) => return Some(parsed),
                    // A sign of life.
                    None => continue,
                }
            }
            let more = within(self.body.next()).await?.unwrap();
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }

    async fn indexes(&mut self, count: usize) -> Vec<u64> {
        let mut indexes = Vec::new();
        while indexes.len() < count {
            indexes.push(self.next().await.expect("the stream goes on").1.unwrap());
        }
        indexes
    }
}

#[tokio::test]
async fn a_stream_resumes_without_gap_or_repeat() {
    let api = TestApi::start().await;
    for i in 0..10 {
        api.put(&format!("v{i}"), "x").await.ok();
    }
    let first = Sse::open(&api, "?since=0", &[]).await.indexes(4).await;
    assert_eq!(first, [1, 2, 3, 4]);
    // Where the first reader was, by query and as browsers do.
    let mut by_query = Sse::open(&api, "?since=4", &[]).await;
    let mut by_header = Sse::open(&api, "?since=0", &[("last-event-id", "4")]).await;
    let writes = async {
        for i in 0..10 {
            api.put(&format!("w{i}"), "x").await.ok();
        }
    };
    let (indexes, ()) = futures::join!(by_query.indexes(16), writes);
    let expected: Vec<u64> = (5..=20).collect();
    assert_eq!(indexes, expected);
    assert_eq!(by_header.indexes(16).await, expected);
    // From now on: what comes later, and not what was.
    let mut from_now = Sse::open(&api, "", &[]).await;
    api.put("later", "x").await.ok();
    assert_eq!(from_now.indexes(1).await, [21]);
}

#[tokio::test]
async fn a_stream_of_a_job_has_that_job_s_events() {
    let api = TestApi::start().await;
    api.node("n1").await;
    let mut stream = Sse::open(&api, "?since=0&job=web", &[]).await;
    api.submit("job: other\nreplicas: 1\nimage: x:1\n").await.ok();
    api.submit(WEB).await.ok();
    api.plan().await;
    let (kind, id, row) = stream.next().await.unwrap();
    assert_eq!((kind.as_str(), row["change"].as_str()), ("job", Some("created")));
    assert_eq!(row["index"].as_u64(), id);
    let (kind, _, row) = stream.next().await.unwrap();
    assert_eq!((kind.as_str(), row["change"].as_str()), ("deployment", Some("started")));
    assert_eq!(row["deployment"], "d2");
    let (kind, _, row) = stream.next().await.unwrap();
    assert_eq!((kind.as_str(), row["change"].as_str()), ("allocation", Some("placed")));
    assert_eq!((row["job"].as_str(), row["node"].as_str()), (Some("web"), Some("n1")));
}

#[tokio::test]
async fn what_is_no_longer_kept_is_said() {
    let api = TestApi::start().await;
    api.put("x", "1").await.ok();
    let page = api.get("/v1/events?follow=false").await.ok().value();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next_since"]), (1, &1.into()));
    // An event makes room for itself when the record is full.
    let puts = (0..orch::limits::EVENTS_KEPT + 5).map(|i| {
        let command = orch::state::Command::PutVariable {
            project: Default::default(),
            path: format!("v{}", i % 10).try_into().unwrap(),
            value: vec![],
            if_index: None,
        };
        command.into()
    });
    for outcome in within(api.context.consensus.propose_many(puts.collect())).await {
        outcome.unwrap();
    }
    let reply = api.get("/v1/events?since=1").await;
    reply.problem(410, "events_gone");
    let oldest = reply.value()["oldest_index"].as_u64().unwrap();
    assert_eq!(oldest, 6);
    let first = Sse::open(&api, &format!("?since={oldest}"), &[]).await.indexes(1).await;
    assert_eq!(first, [oldest + 1]);
    // A page without a place begins with the oldest there is.
    let page = api.get("/v1/events?follow=false&limit=3").await.ok().value();
    assert_eq!(page["items"][0]["index"].as_u64(), Some(oldest + 1));
    assert_eq!(page["next_since"].as_u64(), Some(oldest + 3));
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_let_go() {
    let api = TestApi::start().await;
    let mut slow = Sse::open(&api, "?since=0", &[]).await;
    api.put("x", "1").await.ok();
    assert_eq!(slow.indexes(1).await, [1]);
    for _ in 0..3 {
        let puts = (0..orch::limits::EVENTS_KEPT / 2).map(|i| {
            let command = orch::state::Command::PutVariable {
                project: Default::default(),
                path: format!("v{}", i % 10).try_into().unwrap(),
                value: vec![],
                if_index: None,
            };
            command.into()
        });
        for outcome in within(api.context.consensus.propose_many(puts.collect())).await {
            outcome.unwrap();
        }
    }
    let (kind, id, problem) = slow.next().await.unwrap();
    assert_eq!((kind.as_str(), id, &problem["code"]), ("error", None, &"events_gone".into()));
    assert_eq!(slow.next().await, None);
}

#[tokio::test]
async fn the_same_over_a_socket() {
    let api = TestApi::start().await;
    let address = api.serve().await;
    let url = format!("ws://{address}/v1/events?since=0");
    let (mut socket, _) = within(tokio_tungstenite::connect_async(url)).await.unwrap();
    for i in 0..5 {
        api.put(&format!("v{i}"), "x").await.ok();
    }
    for index in 1..=5 {
        let message = within(socket.next()).await.unwrap().unwrap();
        let row: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(row["index"].as_u64(), Some(index));
    }
    // The server stops: it says so, and the stream ends.
    api.context.stop.cancel();
    let message = within(socket.next()).await.unwrap().unwrap();
    let problem: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
    assert_eq!(problem["code"], "stopping");
    let end = within(socket.next()).await;
    assert!(matches!(end, Some(Ok(Message::Close(Some(_))))), "{end:?}");
}

#[tokio::test]
async fn streams_are_counted_and_bounded() {
    let api = TestApi::start().await;
    let mut streams = Vec::new();
    for _ in 0..orch::limits::API_STREAMS_MAX {
        streams.push(Sse::open(&api, "", &[]).await);
    }
    let open = format!("orch_api_event_streams {}", orch::limits::API_STREAMS_MAX);
    assert!(api.get("/metrics").await.text().contains(&open));
    api.get("/v1/events").await.problem(503, "too_many_streams");
    streams.truncate(10);
    let stream = Sse::open(&api, "", &[]).await;
    drop(stream);
    drop(streams);
    assert!(api.get("/metrics").await.text().contains("orch_api_event_streams 0"));
}
