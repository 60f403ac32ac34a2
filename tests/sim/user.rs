//! A user over REST who never rests: new versions, good and bad, with all strategies, more and
//! fewer replicas, drains, moves, rollbacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use orch::model::name::JobId;
use orch::net::SharedNet;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::agents::{HOSTS, host_name};
use super::chance::below;
use super::cluster::{API, server_addr};
use super::http;
use super::machine::FAILS;

/// How many jobs.
pub const JOBS: u64 = 4;
/// For one answer.
const LIMIT: Duration = Duration::from_secs(10);

/// One request.
#[derive(Debug, Clone)]
pub struct Wish {
    method: &'static str,
    path: String,
    body: Value,
}

/// What is known of the user.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    is_calm: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
}

impl Desk {
    /// Nothing is wished for any more.
    pub fn calm_down(&self) {
        self.is_calm.store(true, Ordering::Relaxed);
    }

    /// Wishes that were granted.
    pub fn granted(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

fn millis(bound: u64) -> String {
    format!("{}ms", below(bound))
}

/// A job by its number.
pub fn job_id(job: u64) -> JobId {
    format!("web{job}").parse().unwrap()
}

fn replicas(job: u64) -> u64 {
    1 + below(if is_fixed(job) { 3 } else { 5 })
}

/// The last job's port is fixed: no two of its replicas fit on one node.
fn is_fixed(job: u64) -> bool {
    job == JOBS - 1
}

fn update() -> Value {
    let mut update = json!({
        "max_parallel": 1 + below(3),
        "min_healthy": millis(3000),
        "deadline": format!("{}s", 20 + below(40)),
        "auto_revert": below(5) > 0,
    });
    match below(5) {
        0 => {
            update["canary"] = json!(1 + below(2));
            update["promote"] = json!(millis(8000));
        }
        1 => {
            update["strategy"] = json!("blue-green");
            update["promote"] = json!(millis(8000));
            update["keep_old"] = json!(millis(5000));
        }
        _ => {}
    }
    match below(4) {
        0 => {}
        // A second set is there before the first goes.
        1 if update["strategy"].is_null() => update["order"] = json!("stop-first"),
        _ => update["order"] = json!("start-first"),
    }
    update
}

/// A version that does, or one that fails.
pub fn version(job: u64, good: bool) -> Wish {
    let word = if good { "serve" } else { FAILS };
    let port = if is_fixed(job) { json!({ "host": 8080 }) } else { json!("auto") };
    let replace_after = if below(3) == 0 { millis(10_000) } else { "0s".to_owned() };
    let body = json!({
        "job": job_id(job).name.to_string(),
        "replicas": replicas(job),
        "command": [word, below(1000).to_string()],
        "ports": { "http": port },
        "resources": { "cpu": 0.4, "memory": "256Mi" },
        "stop_grace_period": "2500ms",
        "healthcheck": { "command": ["check"], "interval": "400ms", "start_period": "5s" },
        "restart": { "attempts": below(2), "within": "1m", "delay": "500ms" },
        "reschedule": { "delay": "500ms..8s" },
        "update": update(),
        "disconnect": { "replace_after": replace_after },
    });
    Wish { method: "POST", path: "/v1/jobs".to_owned(), body }
}

/// A node takes work again.
pub fn eligible(host: u64) -> Wish {
    let path = format!("/v1/nodes/{}/eligibility", host_name(host));
    Wish { method: "POST", path, body: json!({ "eligible": true }) }
}

/// A deployment goes on.
pub fn resume(deployment: impl std::fmt::Display) -> Wish {
    post(format!("/v1/deployments/{deployment}/resume"), json!({}))
}

fn post(path: String, body: Value) -> Wish {
    Wish { method: "POST", path, body }
}

/// Asks until somebody answers; a repeat does no harm. What can't be done is told, and left.
pub async fn ask(net: SharedNet, servers: usize, wish: Wish, desk: Desk) {
    let body = serde_json::to_vec(&wish.body).unwrap();
    loop {
        let addr = server_addr(below(servers as u64) as usize, API);
        let asked = http::ask(&net, addr, (wish.method, &wish.path), &body, LIMIT).await;
        match asked {
            Ok(answer) if answer.status < 300 => {
                desk.done.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(answer) if answer.status < 500 && answer.status != 429 => {
                let text = String::from_utf8_lossy(&answer.body).into_owned();
                tracing::info!(?wish, text, "can't be done");
                // A job file of the simulation's own must be right.
                assert!(wish.path != "/v1/jobs" || answer.status == 409, "{wish:?}: {text}");
                return;
            }
            _ => sleep(Duration::from_millis(50 + below(200))).await,
        }
    }
}

/// Acts until it is calm.
pub async fn user(net: SharedNet, servers: usize, desk: Desk) {
    for job in 0..JOBS {
        ask(net.clone(), servers, version(job, true), desk.clone()).await;
    }
    while !desk.is_calm.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(300 + below(6000))).await;
        if let Some(wish) = wish(&net, servers).await {
            tracing::info!(?wish, "the user");
            ask(net.clone(), servers, wish, desk.clone()).await;
        }
    }
}

async fn wish(net: &SharedNet, servers: usize) -> Option<Wish> {
    let number = below(JOBS);
    let job = job_id(number).name;
    let node = host_name(below(HOSTS));
    Some(match below(16) {
        0..6 => version(number, below(4) > 0),
        6 | 7 => Wish {
            method: "PUT",
            path: format!("/v1/jobs/{job}/scale"),
            body: json!({ "replicas": replicas(number) }),
        },
        8 | 9 => {
            let deadline = (below(2) == 0).then(|| millis(20_000));
            post(format!("/v1/nodes/{node}/drain"), json!({ "deadline": deadline }))
        }
        10..12 => eligible(below(HOSTS)),
        12 => post("/v1/rebalance".to_owned(), json!({ "max_moves": 1 + below(5) })),
        13 => post(format!("/v1/jobs/{job}/restart"), json!({})),
        14 => post(format!("/v1/jobs/{job}/rollback"), json!({})),
        _ => {
            let deployment = latest(net, servers, job.as_str()).await?;
            let (verb, body) = match below(4) {
                0 => ("promote", json!({})),
                1 => ("pause", json!({})),
                2 => ("resume", json!({})),
                _ => ("abort", json!({ "revert": below(2) == 0 })),
            };
            post(format!("/v1/deployments/{deployment}/{verb}"), body)
        }
    })
}

async fn latest(net: &SharedNet, servers: usize, job: &str) -> Option<String> {
    let addr = server_addr(below(servers as u64) as usize, API);
    let path = format!("/v1/deployments?job={job}&limit=1");
    let answer = http::ask(net, addr, ("GET", &path), &[], LIMIT).await.ok()?;
    let page: Value = serde_json::from_slice(&answer.body).ok()?;
    Some(page["items"][0]["id"].as_str()?.to_owned())
}
