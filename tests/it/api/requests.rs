//! Requests and answers.

use axum::body::Body;
use serde_json::{Value, json};

use super::{TestApi, WEB};

#[tokio::test]
async fn a_job_from_submission_to_its_end() {
    let api = TestApi::start().await;
    let reply = api.submit(WEB).await.ok().value();
    assert_eq!(reply["jobs"][0]["version"], 1);
    let warning = reply["jobs"][0]["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("no nodes"), "{warning}");
    api.node("n1").await;
    api.plan().await;
    api.all_run().await;

    let list = api.get("/v1/jobs").await.ok();
    assert!(list.headers["orch-index"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let row = &list.value()["items"][0];
    for (key, expected) in [
        ("project", json!("default")),
        ("job", json!("web")),
        ("version", json!(1)),
        ("type", json!("service")),
        ("state", json!("running")),
        ("desired", json!(2)),
        ("running", json!(2)),
        ("healthy", json!(2)),
    ] {
        assert_eq!(row[key], expected, "{key} of {row}");
    }
    let ps = api.get("/v1/allocations?job=web").await.ok().value();
    let first = &ps["items"][0];
    for (key, expected) in [
        ("project", json!("default")),
        ("job", json!("web")),
        ("index", json!(0)),
        ("id", json!("a1")),
        ("node", json!("n1")),
        ("version", json!(1)),
        ("state", json!("running")),
        ("health", json!("healthy")),
        ("container_id", json!("c1")),
        ("restarts", json!(0)),
        ("address", json!("127.0.0.1")),
    ] {
        assert_eq!(first[key], expected, "{key} of {first}");
    }
    assert!(first["ports"]["http"].as_u64().unwrap() >= 20_000);
    assert!(first["started_at"].as_str().unwrap().ends_with('Z'));
    let alloc = api.get("/v1/allocations/a1").await.ok().value();
    assert_eq!(alloc["tasks"][0]["task"], "web");
    assert!(alloc["notes"][0]["text"].as_str().unwrap().contains("placed on n1"));

    let scaled = api.json("PUT", "/v1/jobs/web/scale", json!({ "replicas": 3 })).await.ok();
    assert_eq!(
        scaled.value(),
        json!({ "project": "default", "job": "web", "version": 2, "changed": true })
    );
    let versions = api.get("/v1/jobs/web/versions").await.ok().value();
    assert_eq!(versions["items"][0]["change"], "scaled");
    let change = &versions["items"][0]["changes"][0];
    assert_eq!(*change, json!({ "field": "replicas", "before": 2, "after": 3 }));
    let old = api.get("/v1/jobs/web/spec?version=1").await.ok().value();
    assert_eq!(
        old,
        json!({
            "job": "web", "project": "default", "replicas": 2, "image": "nginx:1",
            "ports": { "http": 80 }, "update": { "max_parallel": 1, "min_healthy": "0ms" }
        })
    );

    let node = api.get("/v1/nodes/n1").await.ok().value();
    assert_eq!((&node["allocations"], &node["usage"]["memory_used"]), (&json!(2), &json!(5)));
    api.send("DELETE", "/v1/jobs/web", &[], "").await.ok();
    assert_eq!(api.get("/v1/jobs/web").await.ok().value()["state"], "stopping");
    api.get("/v1/jobs/none").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_plan_shows_every_step_and_changes_nothing() {
    let api = TestApi::start().await;
    api.node("n1").await;
    api.node("n2").await;
    let yaml = [("content-type", "application/yaml")];
    let before = api.state().checksum();
    let plan = api.send("POST", "/v1/plan", &yaml, WEB).await.ok().value();
    let job = &plan["jobs"][0];
    assert_eq!((&job["action"], &job["version_then"]), (&json!("create"), &json!(1)));
    assert_eq!(job["placements"].as_array().unwrap().len(), 2);
    assert!(job["changes"].as_array().unwrap().iter().any(|c| c["field"] == "image"));
    assert_eq!(api.state().checksum(), before);

    api.submit(WEB).await.ok();
    api.plan().await;
    api.all_run().await;
    let before = api.state().checksum();
    let next = WEB.replace("nginx:1", "nginx:2");
    let plan = api.send("POST", "/v1/plan", &yaml, next).await.ok().value();
    let job = &plan["jobs"][0];
    assert_eq!((&job["action"], &job["in_place"]), (&json!("update"), &json!(false)));
    // One after the other: both are stopped, both are placed anew.
    assert_eq!(job["stops"].as_array().unwrap().len(), 2, "{job}");
    assert_eq!(job["placements"].as_array().unwrap().len(), 2, "{job}");
    assert_eq!(
        job["changes"],
        json!([{ "field": "image", "before": "nginx:1", "after": "nginx:2" }])
    );
    let same = api.send("POST", "/v1/plan", &yaml, WEB).await.ok().value();
    assert_eq!(same["jobs"][0]["action"], "none");
    let huge = format!("{WEB}resources: {{ memory: 1Ti }}\n").replace("web", "huge");
    let plan = api.send("POST", "/v1/plan", &yaml, huge).await.ok().value();
    assert_eq!(plan["jobs"][0]["unplaced"]["replicas"], 2);
    assert_eq!(plan["jobs"][0]["unplaced"]["never_fits"], true);
    assert!(plan["jobs"][0]["warnings"][0].as_str().unwrap().contains("n1: too small (memory)"));
    assert_eq!(api.state().checksum(), before);
}

#[tokio::test]
async fn job_files_in_each_format_and_what_is_wrong_with_them() {
    let api = TestApi::start().await;
    for (kind, file) in [
        ("application/yaml", "job: a\nimage: x:1\n"),
        ("application/json; charset=utf-8", "{\"job\": \"b\", \"image\": \"x:1\"}"),
        ("application/toml", "job = \"c\"\nimage = \"x:1\"\n"),
        ("application/x-orch-job", "job = \"d\"\nimage = \"x:1\"\n"),
        ("application/x-orch-job", "job: e\nimage: x:1\n---\njob: f\nimage: x:1\n"),
    ] {
        api.send("POST", "/v1/jobs", &[("content-type", kind)], file).await.ok();
    }
    let names: Vec<Value> = api.get("/v1/jobs").await.ok().value()["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["job"].clone())
        .collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f"]);

    let reply = api.submit("job: g\nimage: x:1\n---\njob: h\nimagee: x:1\nreplcas: 2\n").await;
    let detail = reply.problem(422, "invalid");
    assert!(detail.contains("mistakes"), "{detail}");
    let problems = reply.value()["problems"].as_array().unwrap().clone();
    assert!(
        problems.iter().any(|p| p["line"] == 5 && p["message"].as_str().unwrap().contains("image"))
    );
    assert!(
        problems
            .iter()
            .any(|p| p["line"] == 6 && p["message"].as_str().unwrap().contains("replicas"))
    );
    // All documents are checked before the first is submitted.
    api.get("/v1/jobs/g").await.problem(404, "not_found");

    // What a web page of another origin could send without asking is not read.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let reply = api.send("POST", "/v1/jobs", &[("content-type", kind)], WEB).await;
        reply.problem(415, "unsupported_media_type");
    }
    api.send("POST", "/v1/jobs", &[], WEB).await.problem(415, "unsupported_media_type");
    let reply =
        api.send("POST", "/v1/jobs?if_version=1", &[("content-type", "application/yaml")], WEB);
    reply.await.problem(409, "conflict");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let api = TestApi::start().await;
    let reply = api.get("/v1/jobs?porject=x").await.problem(400, "bad_request");
    assert!(reply.contains("did you mean project?"), "{reply}");
    api.get("/v1/jobs?limit=1&limit=2").await.problem(400, "bad_request");
    api.get("/v1/jobs?limit=many").await.problem(400, "bad_request");
    api.get("/v1/jobs?limit=0").await.problem(400, "bad_request");
    api.get("/v1/jobs?limit=1001").await.problem(400, "bad_request");
    api.get("/v1/jobs?cursor=nonsense").await.problem(400, "bad_request");
    api.get("/v1/jobs?consistency=maybe").await.problem(400, "bad_request");
    api.get("/v1/jobs?project=NO").await.problem(422, "invalid");
    api.get("/v1/jobs/Web").await.problem(422, "invalid");
    api.get("/v1/allocations/17").await.problem(422, "invalid");
    api.get("/v1/allocations?job=none").await.problem(404, "not_found");
    api.get("/v1/allocations?node=none").await.problem(404, "not_found");
    let reply = api.json("PUT", "/v1/jobs/web/scale", json!({ "replica": 3 })).await;
    assert!(reply.problem(422, "invalid").contains("did you mean `replicas`?"));
    let reply = api.send("PUT", "/v1/jobs/web/scale", &[], "{\"replicas\":3}").await;
    reply.problem(415, "unsupported_media_type");
    let origin = [("origin", "http://evil.example"), ("host", "127.0.0.1:7400")];
    api.send("GET", "/v1/jobs", &origin, "").await.problem(403, "forbidden_origin");
    let own = [("origin", "http://127.0.0.1:7400"), ("host", "127.0.0.1:7400")];
    api.send("GET", "/v1/jobs", &own, "").await.ok();
}

#[tokio::test]
async fn bodies_are_bounded() {
    let api = TestApi::start().await;
    let large = vec![b'x'; orch::limits::API_BODY_BYTES_MAX + 1];
    let yaml = [("content-type", "application/yaml")];
    let detail = api.send("POST", "/v1/jobs", &yaml, large.clone()).await.problem(413, "too_large");
    assert!(detail.contains("1048576"), "{detail}");
    api.send("PUT", "/v1/variables/a", &[], large).await.problem(413, "too_large");
    let value = vec![b'x'; orch::limits::VARIABLE_VALUE_BYTES_MAX];
    api.send("PUT", "/v1/variables/a", &[], value.clone()).await.ok();
    let value = [value, b"x".to_vec()].concat();
    api.send("PUT", "/v1/variables/a", &[], value).await.problem(413, "too_large");
}

/// As a client sends it that does not listen before it is done.
#[tokio::test]
async fn a_body_that_is_too_large_gets_its_answer_over_a_real_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let api = TestApi::start().await;
    let address = api.serve().await;
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let length = 5 << 20;
    let head = format!(
        "PUT /v1/variables/a HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n"
    );
    super::within(stream.write_all(head.as_bytes())).await.unwrap();
    super::within(stream.write_all(&vec![b'x'; length])).await.unwrap();
    let mut answer = String::new();
    super::within(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("\"code\":\"too_large\""), "{answer}");
}

#[tokio::test]
async fn a_repeat_under_the_same_key_changes_nothing() {
    let api = TestApi::start().await;
    let put = async |key: &str, value: &str| {
        let headers = [("idempotency-key", key)];
        api.send("PUT", "/v1/variables/x", &headers, value.to_owned()).await
    };
    let first = put("k1", "one").await.ok().value();
    put("k2", "two").await.ok();
    assert_eq!(put("k1", "one").await.ok().value(), first);
    assert_eq!(api.get("/v1/variables/x").await.text(), "two");
    put("k1", "three").await.problem(422, "key_reused");
    put("a b", "three").await.problem(400, "bad_request");
    put(&"k".repeat(129), "three").await.problem(400, "bad_request");
    // Several documents under one key.
    let headers = [("content-type", "application/yaml"), ("idempotency-key", "k3")];
    let file = "job: a\nimage: x:1\n---\njob: b\nimage: x:1\n";
    let first = api.send("POST", "/v1/jobs", &headers, file).await.ok().value();
    assert_eq!(first["jobs"][1]["changed"], true);
    let again = api.send("POST", "/v1/jobs", &headers, file).await.ok().value();
    assert_eq!(again, first);
}

#[tokio::test]
async fn variables_are_compared_and_set() {
    let api = TestApi::start().await;
    let index = api.put("db/host", "one").await.ok().value()["index"].as_u64().unwrap();
    let reply = api.get("/v1/variables/db/host").await.ok();
    assert_eq!(reply.headers["etag"], format!("\"{index}\""));
    assert_eq!(reply.body, b"one");
    let etag = format!("\"{index}\"");
    let put = |headers: Vec<(&'static str, String)>, query: &'static str| {
        let api = &api;
        async move {
            let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
            api.send("PUT", &format!("/v1/variables/db/host{query}"), &headers, "two").await
        }
    };
    put(vec![], "?if_index=0").await.problem(409, "conflict");
    put(vec![("if-match", "\"999\"".into())], "").await.problem(412, "precondition_failed");
    put(vec![("if-none-match", "*".into())], "").await.problem(412, "precondition_failed");
    put(vec![("if-match", "x".into())], "").await.problem(400, "bad_request");
    put(vec![("if-match", etag.clone())], "?if_index=999").await.problem(400, "bad_request");
    put(vec![("if-match", etag.clone())], "").await.ok();
    let delete = api.send("DELETE", "/v1/variables/db/host", &[("if-match", &etag)], "").await;
    delete.problem(412, "precondition_failed");
    assert_eq!(api.send("DELETE", "/v1/variables/db/host", &[], "").await.status, 204);
    api.get("/v1/variables/db/host").await.problem(404, "not_found");
    api.put("db//host", "x").await.problem(422, "invalid");
    api.put("%2e%2e/x", "x").await.problem(422, "invalid");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let api = TestApi::start().await;
    api.node("n1").await;
    for i in 0..7 {
        let kind = if i % 2 == 0 { "resources: { memory: 1Ti }" } else { "priority: 3" };
        api.submit(&format!("job: j{i}\nreplicas: 3\nimage: x:1\n{kind}\n")).await.ok();
    }
    api.plan().await;
    for (list, expected) in [("jobs?", 7), ("allocations?", 21), ("allocations?job=j1&", 3)] {
        let whole = api.get(&format!("/v1/{list}limit=1000")).await.ok().value();
        assert_eq!(whole["next_cursor"], Value::Null);
        let whole = whole["items"].as_array().unwrap().clone();
        assert_eq!(whole.len(), expected);
        let mut joined = Vec::new();
        let mut path = format!("/v1/{list}limit=2");
        loop {
            let page = api.get(&path).await.ok().value();
            let items = page["items"].as_array().unwrap();
            assert!((1..=2).contains(&items.len()));
            joined.extend(items.clone());
            match page["next_cursor"].as_str() {
                Some(cursor) => path = format!("/v1/{list}limit=2&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(joined, whole);
    }
}

#[tokio::test]
async fn nodes_are_drained_and_taken_back() {
    let api = TestApi::start().await;
    api.node("n1").await;
    let drain = api.json("POST", "/v1/nodes/n1/drain", json!({ "deadline": "10m" })).await.ok();
    assert_eq!(
        (&drain.value()["state"], &drain.value()["eligible"]),
        (&json!("draining"), &json!(false))
    );
    assert!(api.get("/v1/nodes/n1").await.ok().value()["drain"]["deadline"].is_string());
    let back = api.json("POST", "/v1/nodes/n1/eligibility", json!({ "eligible": true })).await.ok();
    assert_eq!(back.value()["state"], "ready");
    let reply = api.json("POST", "/v1/nodes/n1/drain", json!({ "deadline": "soon" })).await;
    reply.problem(422, "invalid");
    api.json("POST", "/v1/nodes/n9/drain", json!({})).await.problem(404, "not_found");
    let reply = api.send("DELETE", "/v1/nodes/n1", &[], "").await;
    assert!(reply.problem(409, "conflict").contains("stop its agent"));
}

#[tokio::test]
async fn servers_health_and_metrics() {
    let api = TestApi::start().await;
    let servers = api.get("/v1/servers").await.ok().value();
    let row = &servers["items"][0];
    assert_eq!((&row["name"], &row["role"]), (&json!("s1"), &json!("leader")));
    assert_eq!(row["reachable"], true);
    assert!(row["last_log_index"].as_u64().unwrap() > 0);
    api.get("/healthz").await.ok();
    api.get("/readyz").await.ok();
    api.node("n1").await;
    api.submit("job: big\nreplicas: 2\nimage: x:1\nresources: { memory: 1Ti }\n").await.ok();
    api.plan().await;
    let metrics = api.get("/metrics").await.ok().text();
    for line in [
        "orch_nodes{state=\"ready\"} 1",
        "orch_scheduler_pending_replicas{reason=\"too_small\"} 2",
        "orch_allocations{status=\"running\"} 0",
        "orch_api_requests_total{method=\"POST\",route=\"/v1/jobs\",status=\"200\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in:\n{metrics}");
    }
    let mine = api.get("/v1/servers/self/checksum").await.ok().value();
    assert_eq!(mine["checksum"], format!("{:016x}", api.state().checksum()));
    let reply = api.json("POST", "/v1/servers/transfer", json!({ "to": "s9" })).await;
    reply.problem(404, "not_found");
    api.send("DELETE", "/v1/servers/s9", &[], "").await.problem(404, "not_found");
    // The only one can't go.
    let reply = api.send("DELETE", "/v1/servers/s1", &[], "").await;
    assert!(reply.status.is_client_error(), "{}", reply.text());
    assert!(api.get("/").await.ok().text().contains("/v1/openapi.json"));
}

#[tokio::test]
async fn a_snapshot_goes_out_and_comes_back() {
    let api = TestApi::start().await;
    let bytes = [("content-type", "application/octet-stream")];
    // Larger than one piece.
    for i in 0..20 {
        api.put(&format!("v/{i}"), &"x".repeat(60 << 10)).await.ok();
    }
    let saved = api.get("/v1/snapshot").await.ok().body;
    let summary = orch::api::snapshot_file::inspect(saved.as_slice()).unwrap();
    assert_eq!((summary.variables, summary.bytes), (20, saved.len() as u64));
    let value = api.get("/v1/variables/v/3").await.ok().body;
    api.put("v/3", "changed").await.ok();
    api.put("new", "gone after the restore").await.ok();
    let events = api.state().last_event();

    // A damaged or a cut file changes nothing.
    let mut damaged = saved.clone();
    damaged[1000] ^= 1;
    api.send("PUT", "/v1/snapshot", &bytes, damaged).await.problem(422, "invalid");
    let cut = saved[..saved.len() - 1].to_vec();
    api.send("PUT", "/v1/snapshot", &bytes, cut).await.problem(422, "invalid");
    api.send("PUT", "/v1/snapshot", &bytes, "no snapshot").await.problem(422, "invalid");
    api.send("PUT", "/v1/snapshot", &[], saved.clone())
        .await
        .problem(415, "unsupported_media_type");
    assert_eq!(api.get("/v1/variables/v/3").await.ok().text(), "changed");

    let reply =
        api.send("PUT", "/v1/snapshot", &bytes, Body::from(saved.clone())).await.ok().value();
    assert_eq!(reply["bytes"], saved.len());
    assert_eq!(api.get("/v1/variables/v/3").await.ok().body, value);
    api.get("/v1/variables/new").await.problem(404, "not_found");
    // A stream that was open before goes on behind the restore.
    let page = api.get(&format!("/v1/events?follow=false&since={events}")).await.ok().value();
    assert_eq!(page["items"].as_array().unwrap().last().unwrap()["kind"], "restored");
}

#[tokio::test]
async fn an_agent_that_is_away_and_a_defect_are_answers() {
    let api = TestApi::start().await;
    *api.agents.opened.lock().unwrap() = None;
    api.node("n1").await;
    api.node("panic").await;
    api.submit(WEB).await.ok();
    api.plan().await;
    let node = api.get("/v1/allocations/a1").await.ok().value()["node"].clone();
    let reply = api.get("/v1/allocations/a1/logs").await;
    let detail = reply.problem(503, "agent_unreachable");
    assert!(detail.contains(&format!("orch node status {}", node.as_str().unwrap())), "{detail}");
    assert!(reply.headers.contains_key("retry-after"));
    api.get("/v1/nodes/panic").await.problem(500, "internal");
    api.get("/v1/nodes/n1").await.ok();
}
