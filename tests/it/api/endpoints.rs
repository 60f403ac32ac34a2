//! Where a job's replicas take traffic: the list, and the stream of it.

use futures::StreamExt;
use futures::stream::BoxStream;
use orch::model::node::NodeState;
use orch::state::Command;
use serde_json::Value;

use super::aloud::{Word, ready};
use super::{TestApi, WEB, within};

async fn cluster() -> TestApi {
    let api = TestApi::start().await;
    api.node("n1").await;
    api.node("n2").await;
    api
}

/// Replica and version of each endpoint.
fn replicas(list: &Value) -> Vec<(u64, u64)> {
    let each = list["endpoints"].as_array().unwrap().iter();
    each.map(|row| (row["replica"].as_u64().unwrap(), row["version"].as_u64().unwrap())).collect()
}

/// The stream of a job's endpoints as it comes.
struct Stream {
    body: BoxStream<'static, Result<axum::body::Bytes, axum::Error>>,
    text: String,
}

impl Stream {
    async fn open(api: &TestApi, query: &str) -> Self {
        let path = format!("/v1/jobs/web/endpoints?follow=true{query}");
        let request = TestApi::request("GET", &path, &[], axum::body::Body::empty());
        let response = api.answer(request).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream().boxed(), text: String::new() }
    }

    /// The next event's name and data; none at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
                };
                let parsed = field("event:").map(|kind| {
                    (kind.to_owned(), serde_json::from_str(field("data:").unwrap()).unwrap())
                });
                self.text = rest.to_owned();
                match parsed {
                    Some(parsed) => return Some(parsed),
                    None => continue,
                }
            }
            let more = within(self.body.next()).await?.unwrap();
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }

    /// The next list.
    async fn list(&mut self) -> Value {
        let (kind, data) = self.next().await.expect("the stream goes on");
        assert_eq!(kind, "endpoints", "{data}");
        data
    }

    /// Reads on until the list has these replicas with their versions.
    async fn until(&mut self, wanted: &[(u64, u64)]) {
        within(async { while replicas(&self.list().await) != wanted {} }).await;
    }
}

#[tokio::test]
async fn the_list_has_each_named_port_of_each_ready_replica() {
    let api = cluster().await;
    api.submit("job: web\nreplicas: 2\nimage: a:1\nports: { http: 80, dns: \"53/udp\" }\n")
        .await
        .ok();
    let none = api.get("/v1/jobs/web/endpoints").await.ok();
    assert!(none.headers.contains_key("orch-index"));
    assert_eq!(none.value()["endpoints"], serde_json::json!([]));
    api.plan().await;
    api.say(|alloc| (alloc.index == 1).then(ready)).await;
    let list = api.get("/v1/jobs/web/endpoints").await.ok().value();
    let rows = list["endpoints"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{list}");
    let (dns, http) = (&rows[0], &rows[1]);
    assert_eq!((&dns["port"], &dns["protocol"]), (&"dns".into(), &"udp".into()));
    assert_eq!((&http["port"], &http["protocol"]), (&"http".into(), &"tcp".into()));
    for (key, expected) in
        [("host", "127.0.0.1".into()), ("replica", 1.into()), ("version", 1.into())]
    {
        let expected: Value = expected;
        assert_eq!(http[key], expected, "{key} of {http}");
    }
    let alloc = api.state().allocs().find(|alloc| alloc.index == 1).unwrap().clone();
    assert_eq!(http["allocation"], alloc.id.to_string());
    assert_eq!(http["node"], alloc.node.to_string());
    let address = format!("127.0.0.1:{}", http["host_port"]);
    assert_eq!(http["address"], address);
    assert!(http["ready_since"].as_str().unwrap().ends_with('Z'));

    let one = api.get("/v1/jobs/web/endpoints?port=http").await.ok().value();
    assert_eq!(one["endpoints"].as_array().unwrap().len(), 1);
    let detail = api.get("/v1/jobs/web/endpoints?port=htpp").await.problem(404, "not_found");
    assert!(detail.contains("it has dns, http"), "{detail}");
    api.get("/v1/jobs/none/endpoints").await.problem(404, "not_found");
    api.get("/v1/jobs/none/endpoints?follow=true").await.problem(404, "not_found");

    // A node that is not heard takes its replica along.
    let lost = Command::SetNodeState {
        node: alloc.node.clone(),
        agent_id: 1,
        state: NodeState::Lost,
        reason: "not heard".into(),
    };
    api.propose(lost).await;
    let list = api.get("/v1/jobs/web/endpoints").await.ok().value();
    assert_eq!(list["endpoints"], serde_json::json!([]));
}

#[tokio::test]
async fn the_stream_begins_with_the_list_and_tells_each_change() {
    let api = cluster().await;
    api.submit(WEB).await.ok();
    let mut stream = Stream::open(&api, "").await;
    assert_eq!(replicas(&stream.list().await), []);
    api.plan().await;
    api.say(|alloc| (alloc.index == 0).then(ready)).await;
    assert_eq!(replicas(&stream.list().await), [(0, 1)]);
    // What concerns others, or changes nothing, is not told.
    api.submit("job: other\nreplicas: 1\nimage: x:1\n").await.ok();
    api.put("a", "b").await.ok();
    api.settle(|_| Some(ready())).await;
    assert_eq!(replicas(&stream.list().await), [(0, 1), (1, 1)]);

    // Whoever comes later has the list at once.
    let mut late = Stream::open(&api, "&port=http").await;
    assert_eq!(replicas(&late.list().await), [(0, 1), (1, 1)]);

    // Through a rollout there is never a moment without an endpoint, and the last list is whole.
    api.submit(&WEB.replace("nginx:1", "nginx:2")).await.ok();
    let rollout = api.settle(|_| Some(ready()));
    let (_, ()) = futures::join!(rollout, async {
        loop {
            let list = replicas(&stream.list().await);
            assert!(list.len() >= 2, "{list:?}");
            if list == [(0, 2), (1, 2)] {
                return;
            }
        }
    });
    late.until(&[(0, 2), (1, 2)]).await;

    // One that is no longer ready leaves, and so does one that is to stop.
    let unready = Word { ready: false, ..ready() };
    api.say(|alloc| (alloc.index == 1).then(|| unready.clone())).await;
    stream.until(&[(0, 2)]).await;
    api.send("DELETE", "/v1/jobs/web", &[], "").await.ok();
    stream.until(&[]).await;
}

#[tokio::test]
async fn a_stream_of_a_job_that_is_forgotten_ends_with_the_reason() {
    let api = cluster().await;
    api.submit(WEB).await.ok();
    let mut stream = Stream::open(&api, "").await;
    stream.list().await;
    api.send("DELETE", "/v1/jobs/web?purge=true", &[], "").await.ok();
    let job = "web".parse().unwrap();
    let forget = Command::CollectGarbage {
        allocs: Vec::new(),
        jobs: vec![job],
        replies_before: Default::default(),
    };
    api.propose(forget).await;
    let (kind, data) = stream.next().await.expect("a reason");
    assert_eq!((kind.as_str(), &data["code"]), ("error", &"not_found".into()));
    assert!(stream.next().await.is_none());

    // So does one of a server that stops.
    api.submit(WEB).await.ok();
    let mut stream = Stream::open(&api, "").await;
    stream.list().await;
    api.context.stop.cancel();
    let (kind, data) = stream.next().await.expect("a reason");
    assert_eq!((kind.as_str(), &data["code"]), ("error", &"stopping".into()));
    assert!(stream.next().await.is_none());
}
