//! Deployments over REST: read, promoted, held, given up, gone back from.

use std::sync::Arc;

use orch::model::job::{JobSpec, Promotion, UpdateStrategy};
use orch::model::job_file::{Format, read};
use orch::state::Command;
use serde_json::{Value, json};

use super::aloud::ready;
use super::{TestApi, WEB};

async fn two_nodes() -> TestApi {
    let api = TestApi::start().await;
    api.node("n1").await;
    api.node("n2").await;
    api
}

fn web(image: &str) -> String {
    WEB.replace("nginx:1", image)
}

fn canary(image: &str) -> JobSpec {
    let mut spec = read(&web(image), Format::Yaml).unwrap().remove(0);
    spec.update.strategy = UpdateStrategy::Canary { count: 1, promote: Promotion::Manual };
    spec
}

async fn submit(api: &TestApi, spec: JobSpec) {
    api.propose(Command::SubmitJob { spec: Arc::new(spec), if_version: None }).await;
}

fn ids(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn deployments_are_listed_newest_first_with_what_they_wait_for() {
    let api = two_nodes().await;
    api.submit(&web("a:1")).await.ok();
    api.settle(|_| Some(ready())).await;
    api.submit("job: other\nproject: shop\nreplicas: 1\nimage: x:1\n").await.ok();
    api.submit(&web("a:2")).await.ok();
    api.plan().await;

    let all = api.get("/v1/deployments").await.ok();
    assert!(all.headers.contains_key("orch-index"));
    assert_eq!(ids(&all.value()), ["d3", "d2", "d1"]);
    let first = api.get("/v1/deployments?limit=2").await.ok().value();
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = api.get(&format!("/v1/deployments?limit=2&cursor={cursor}")).await.ok().value();
    assert_eq!((ids(&first), ids(&rest)), (vec!["d3", "d2"], vec!["d1"]));
    assert_eq!(rest["next_cursor"], Value::Null);
    for (query, expected) in [
        ("?job=web", vec!["d3", "d1"]),
        ("?project=shop", vec!["d2"]),
        ("?active=true", vec!["d3", "d2"]),
        ("?job=web&active=true", vec!["d3"]),
        ("?job=other&project=shop", vec!["d2"]),
    ] {
        let page = api.get(&format!("/v1/deployments{query}")).await.ok().value();
        assert_eq!(ids(&page), expected, "{query}");
    }
    api.get("/v1/deployments?job=none").await.problem(404, "not_found");
    api.get("/v1/deployments?job=Web").await.problem(422, "invalid");

    let row = api.get("/v1/deployments/d3").await.ok().value();
    for (key, expected) in [
        ("project", json!("default")),
        ("job", json!("web")),
        ("version", json!(2)),
        ("from", json!(1)),
        ("strategy", json!("rolling")),
        ("status", json!("running")),
        ("progress", json!({ "wanted": 2, "updated": 1, "ready": 0, "old": 2 })),
        ("needs_promotion", json!(false)),
    ] {
        assert_eq!(row[key], expected, "{key} of {row}");
    }
    let waits = &row["waits"];
    assert!(waits["what"].as_str().unwrap().contains("web.0 to become ready"), "{row}");
    assert!(waits["since"].is_string() && waits["until"].is_string(), "{row}");
    assert!(waits["then"].as_str().unwrap().contains("version 1"), "{row}");
    // One that is over waits for nothing, and the replicas are another's.
    let row = api.get("/v1/deployments/d1").await.ok().value();
    assert_eq!((&row["status"], &row["progress"]), (&json!("successful"), &Value::Null));
    assert_eq!(row["waits"], Value::Null);
    api.get("/v1/deployments/d99").await.problem(404, "not_found");
    api.get("/v1/deployments/99").await.problem(422, "invalid");
}

#[tokio::test]
async fn a_canary_is_promoted_by_hand() {
    let api = two_nodes().await;
    submit(&api, canary("a:1")).await;
    api.settle(|_| Some(ready())).await;
    submit(&api, canary("a:2")).await;
    api.plan().await;
    let early = api.json("POST", "/v1/deployments/d2/promote", json!({})).await;
    assert!(early.problem(409, "conflict").contains("when all are"), "{}", early.text());
    api.settle(|_| Some(ready())).await;
    let row = api.get("/v1/deployments/d2").await.ok().value();
    assert_eq!((&row["strategy"], &row["needs_promotion"]), (&json!("canary"), &json!(true)));
    assert!(row["waits"]["what"].as_str().unwrap().contains("orch deploy promote web"), "{row}");

    let key = [("idempotency-key", "once")];
    let promoted = api.send("POST", "/v1/deployments/d2/promote", &key, "").await.ok().value();
    assert!(promoted["promoted_at"].is_string(), "{promoted}");
    // Again under the same key it is no second promotion, without one it is.
    api.send("POST", "/v1/deployments/d2/promote", &key, "").await.ok();
    api.send("POST", "/v1/deployments/d2/promote", &[], "").await.problem(409, "conflict");
    api.settle(|_| Some(ready())).await;
    let row = api.get("/v1/deployments/d2").await.ok().value();
    assert_eq!((&row["status"], &row["needs_promotion"]), (&json!("successful"), &json!(false)));
    assert_eq!(api.get("/v1/jobs/web").await.ok().value()["up_to_date"], 2);
}

#[tokio::test]
async fn a_deployment_is_held_let_go_on_and_given_up() {
    let api = two_nodes().await;
    api.submit(&web("a:1")).await.ok();
    api.settle(|_| Some(ready())).await;
    api.submit(&web("a:2")).await.ok();
    api.plan().await;
    let held = api.send("POST", "/v1/deployments/d2/pause", &[], "").await.ok().value();
    assert_eq!(held["status"], "paused");
    assert!(held["waits"]["what"].as_str().unwrap().contains("orch deploy resume web"), "{held}");
    let on = api.send("POST", "/v1/deployments/d2/resume", &[], "").await.ok().value();
    assert_eq!(on["status"], "running");

    let given_up = api.send("POST", "/v1/deployments/d2/abort", &[], "").await.ok().value();
    assert_eq!((&given_up["status"], &given_up["reverted_by"]), (&json!("failed"), &json!("d3")));
    let reason = given_up["reason"].as_str().unwrap();
    assert_eq!(reason, "aborted by a user; going back to version 1");
    let back = api.get("/v1/deployments/d3").await.ok().value();
    assert_eq!((&back["reverts"], &back["version"]), (&json!("d2"), &json!(3)));
    api.settle(|_| Some(ready())).await;
    let status = api.get("/v1/jobs/web").await.ok().value();
    let sentence = status["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("web went back to version 1, both replicas are ready"),
        "{sentence}"
    );
    assert_eq!(status["deployments"][0]["id"], "d3");
    assert_eq!(status["spec"]["image"], "a:1");

    // Without going back: what runs stays.
    api.submit(&web("a:3")).await.ok();
    api.plan().await;
    let stay = json!({ "revert": false });
    let row = api.json("POST", "/v1/deployments/d4/abort", stay).await.ok().value();
    assert_eq!((&row["status"], &row["reverted_by"]), (&json!("failed"), &Value::Null));
    assert_eq!(api.get("/v1/jobs/web").await.ok().value()["version"], 4);
    for verb in ["promote", "pause", "resume", "abort"] {
        api.send("POST", &format!("/v1/deployments/d4/{verb}"), &[], "")
            .await
            .problem(409, "conflict");
        api.send("POST", &format!("/v1/deployments/d99/{verb}"), &[], "")
            .await
            .problem(404, "not_found");
    }
    let wrong = json!({ "rewert": false });
    let detail = api.json("POST", "/v1/deployments/d4/abort", wrong).await.problem(422, "invalid");
    assert!(detail.contains("revert"), "{detail}");
    let text = [("content-type", "text/plain")];
    api.send("POST", "/v1/deployments/d4/abort", &text, "x")
        .await
        .problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn a_job_goes_back_to_a_version_or_is_restarted() {
    let api = two_nodes().await;
    api.submit(&web("a:1")).await.ok();
    api.settle(|_| Some(ready())).await;
    api.send("POST", "/v1/jobs/web/rollback", &[], "").await.problem(409, "conflict");
    api.submit(&web("a:2")).await.ok();
    api.settle(|_| Some(ready())).await;

    let key = [("idempotency-key", "back")];
    let back = api.send("POST", "/v1/jobs/web/rollback", &key, "").await.ok().value();
    assert_eq!(back, json!({ "project": "default", "job": "web", "version": 3, "changed": true }));
    assert_eq!(api.send("POST", "/v1/jobs/web/rollback", &key, "").await.ok().value(), back);
    assert_eq!(api.get("/v1/jobs/web").await.ok().value()["spec"]["image"], "a:1");
    api.settle(|_| Some(ready())).await;
    let to = json!({ "version": 2 });
    let there = api.json("POST", "/v1/jobs/web/rollback", to).await.ok().value();
    assert_eq!(there["version"], 4);
    api.settle(|_| Some(ready())).await;
    let gone = api.json("POST", "/v1/jobs/web/rollback", json!({ "version": 77 })).await;
    gone.problem(404, "not_found");

    let before: Vec<_> = api.state().allocs().filter(|a| a.wanted()).map(|a| a.id).collect();
    let restarted = api.send("POST", "/v1/jobs/web/restart", &[], "").await.ok().value();
    assert_eq!((&restarted["version"], &restarted["changed"]), (&json!(5), &json!(true)));
    api.settle(|_| Some(ready())).await;
    let after: Vec<_> = api.state().allocs().filter(|a| a.wanted()).map(|a| a.id).collect();
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|id| !before.contains(id)), "{before:?} {after:?}");
    for verb in ["rollback", "restart"] {
        let path = format!("/v1/jobs/none/{verb}");
        api.send("POST", &path, &[], "").await.problem(404, "not_found");
    }

    let versions = api.get("/v1/jobs/web/versions").await.ok().value();
    let rows: Vec<(&str, bool, &Value, &str)> = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let status = row["deployment"]["status"].as_str().unwrap();
            (
                row["change"].as_str().unwrap(),
                row["was_healthy"].as_bool().unwrap(),
                &row["same_as"],
                status,
            )
        })
        .collect();
    let null = &Value::Null;
    assert_eq!(
        rows,
        [
            ("restarted", true, null, "successful"),
            ("rolled back", true, &json!(2), "successful"),
            ("rolled back", true, &json!(1), "successful"),
            ("updated", true, null, "successful"),
            ("created", true, null, "successful"),
        ]
    );
}

#[tokio::test]
async fn what_is_no_command_to_the_state_refuses_a_key() {
    let api = TestApi::start().await;
    let key = ("idempotency-key", "k");
    let json = ("content-type", "application/json");
    let bytes = ("content-type", "application/octet-stream");
    for (method, path, kind) in [
        ("DELETE", "/v1/servers/s9", json),
        ("POST", "/v1/servers/transfer", json),
        ("PUT", "/v1/snapshot", bytes),
    ] {
        let reply = api.send(method, path, &[key, kind], "{}").await;
        let detail = reply.problem(400, "bad_request");
        assert!(detail.contains("takes no Idempotency-Key"), "{method} {path}: {detail}");
    }
    api.send("DELETE", "/v1/servers/s9", &[], "").await.problem(404, "not_found");
}
