//! Traffic that never stops while a service is changed, moved and hit: callers that use the
//! watched endpoints as a load balancer does lose nothing but what was under way on a victim.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::docker::{docker, need_image, work_of};
use crate::support::{Cluster, LONG, SHORT, command, wait_until};

const CALLERS: usize = 4;
/// Between two calls of one caller.
const PAUSE: Duration = Duration::from_millis(4);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a call can go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    allocation: String,
    address: SocketAddr,
}

/// A call that did not go as it should.
#[derive(Debug, Clone)]
struct Trouble {
    allocation: String,
    /// It was sent; otherwise nobody took the connection, and another replica got it.
    sent: bool,
    error: String,
    after: Duration,
}

impl Trouble {
    fn line(&self) -> String {
        let what = if self.sent { "broke under way" } else { "was not taken" };
        format!("after {:?} a call to {} {what}: {}", self.after, self.allocation, self.error)
    }
}

#[derive(Debug, Default)]
struct Tally {
    answered: u64,
    /// No replica took it.
    lost: u64,
    troubles: Vec<Trouble>,
}

/// Callers of one job's endpoints.
struct Traffic {
    watch: Child,
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    callers: Vec<std::thread::JoinHandle<()>>,
}

impl Traffic {
    fn start(cluster: &Cluster, job: &str) -> Self {
        let servers: Vec<String> = cluster
            .servers()
            .iter()
            .map(|server| format!("http://{}", cluster.api_address(server)))
            .collect();
        let mut watch = command(
            &[("ORCH_ADDR", &servers.join(","))],
            &["endpoints", job, "--port", "http", "--follow", "-o", "json"],
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
        let targets: Arc<Mutex<Vec<Target>>> = Arc::default();
        let known = targets.clone();
        let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let list: Value = serde_json::from_str(&line).unwrap();
                let rows = list["endpoints"].as_array().unwrap();
                *known.lock().unwrap() = rows
                    .iter()
                    .map(|row| Target {
                        allocation: row["allocation"].as_str().unwrap().to_owned(),
                        address: row["address"].as_str().unwrap().parse().unwrap(),
                    })
                    .collect();
            }
        });
        wait_until("the first endpoints", SHORT, || {
            if targets.lock().unwrap().is_empty() { Err("none".into()) } else { Ok(()) }
        });
        let stop: Arc<AtomicBool> = Arc::default();
        let tally: Arc<Mutex<Tally>> = Arc::default();
        let began = Instant::now();
        let callers = (0..CALLERS)
            .map(|first| {
                let (targets, stop, tally) = (targets.clone(), stop.clone(), tally.clone());
                std::thread::spawn(move || {
                    let mut turn = first;
                    while !stop.load(Ordering::Relaxed) {
                        turn += 1;
                        let targets = targets.lock().unwrap().clone();
                        call(&targets, turn, began, &tally);
                        std::thread::sleep(PAUSE);
                    }
                })
            })
            .collect();
        Self { watch, stop, tally, callers }
    }

    /// What happened since the last time this was asked.
    fn take(&self) -> Tally {
        std::mem::take(&mut self.tally.lock().unwrap())
    }

    /// Nothing may have gone wrong.
    #[track_caller]
    fn assert_flawless(&self, what: &str) {
        let tally = self.take();
        println!("{what}: {} calls answered", tally.answered);
        assert!(tally.answered > 0, "{what}: no call was answered");
        let troubles: Vec<String> = tally.troubles.iter().map(Trouble::line).collect();
        assert!(
            tally.lost == 0 && troubles.is_empty(),
            "{what}: {} lost {troubles:#?}",
            tally.lost
        );
    }

    /// Only calls to the victims may have gone wrong, those that they had taken: the engine's own
    /// relay takes connections for a container until it has noticed that it is gone. Whatever was
    /// not taken was answered by another replica.
    #[track_caller]
    fn assert_only(&self, what: &str, victims: &BTreeSet<String>) {
        let tally = self.take();
        let sent = tally.troubles.iter().filter(|trouble| trouble.sent).count();
        println!(
            "{what}: {} calls answered, {sent} broken under way, {} connections refused",
            tally.answered,
            tally.troubles.len() - sent
        );
        assert!(tally.answered > 0 && tally.lost == 0, "{what}: {} lost", tally.lost);
        let others = tally.troubles.iter().filter(|t| !victims.contains(&t.allocation));
        let others: Vec<String> = others.map(Trouble::line).collect();
        assert!(others.is_empty(), "{what}: victims were {victims:?}, but: {others:#?}");
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers.drain(..) {
            let _ = caller.join();
        }
        let _ = self.watch.kill();
        let _ = self.watch.wait();
    }
}

/// One call, to the next replica that takes the connection.
fn call(targets: &[Target], turn: usize, began: Instant, tally: &Mutex<Tally>) {
    for offset in 0..targets.len() {
        let target = &targets[(turn + offset) % targets.len()];
        let (sent, error) = match exchange(target.address) {
            Ok(()) => {
                tally.lock().unwrap().answered += 1;
                return;
            }
            Err(failed) => failed,
        };
        let allocation = target.allocation.clone();
        let trouble = Trouble { allocation, sent, error, after: began.elapsed() };
        tally.lock().unwrap().troubles.push(trouble);
        if sent {
            // Nobody can tell whether it was carried out: a caller may not repeat it.
            return;
        }
    }
    tally.lock().unwrap().lost += 1;
}

fn exchange(address: SocketAddr) -> Result<(), (bool, String)> {
    let refused = |error: std::io::Error| (false, error.to_string());
    let mut stream = TcpStream::connect_timeout(&address, CALL_TIMEOUT).map_err(refused)?;
    let broken = |error: std::io::Error| (true, error.to_string());
    stream.set_read_timeout(Some(CALL_TIMEOUT)).map_err(broken)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(broken)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(broken)?;
    match answer.contains(" 200 ") && answer.contains("version ") {
        true => Ok(()),
        false => Err((true, format!("the answer was {answer:?}"))),
    }
}

fn web(version: u32) -> String {
    format!(
        r#"
job: web
replicas: 4
image: {image}
command: ["sh", "-c", "echo version {version} >/www/index.html; exec httpd -f -p 8080 -h /www"]
ports: {{ http: 8080 }}
resources: {{ cpu: 0.05, memory: 16Mi }}
stop_grace: 2s
readiness: {{ http: /, interval: 200ms }}
update: {{ max_parallel: 2, order: start-first }}
"#,
        image = need_image()
    )
}

/// The allocations of a job on a node, or all.
fn allocations(cluster: &Cluster, node: Option<&str>) -> BTreeSet<String> {
    let rows = cluster.ps("web");
    let there = rows.iter().filter(|row| node.is_none_or(|node| row["node"] == node));
    there.filter_map(|row| row["id"].as_str().map(str::to_owned)).collect()
}

#[track_caller]
fn wait_ready(cluster: &Cluster, without: Option<&str>) {
    wait_until("four ready replicas", LONG, || {
        let output = cluster.orch(&["endpoints", "web", "-o", "json"]);
        if output.code != 0 {
            return Err(output.to_string());
        }
        let list = output.json();
        let rows = list["endpoints"].as_array().ok_or("no list")?;
        let elsewhere = rows.iter().all(|row| without.is_none_or(|node| row["node"] != node));
        if rows.len() == 4 && elsewhere { Ok(()) } else { Err(output.stdout) }
    });
}

#[test]
fn callers_lose_nothing_through_rollouts_and_drain_and_only_the_victims_calls_in_kills() {
    let mut cluster = Cluster::start(3);
    for name in ["n1", "n2", "n3"] {
        cluster.agent(name, &["--runtime", "docker"]);
    }
    cluster.run(&web(0));
    wait_ready(&cluster, None);
    let traffic = Traffic::start(&cluster, "web");

    for version in 1..=10 {
        cluster.run(&web(version));
    }
    wait_ready(&cluster, None);
    traffic.assert_flawless("ten rollouts");

    cluster.orch(&["node", "drain", "n1", "--wait"]).ok();
    wait_ready(&cluster, Some("n1"));
    cluster.orch(&["node", "eligible", "n1"]).ok();
    traffic.assert_flawless("a drain");

    let rows = cluster.ps("web");
    let victim = rows.iter().find(|row| row["state"] == "running").unwrap();
    let id = victim["id"].as_str().unwrap().to_owned();
    docker(&["kill", victim["container_id"].as_str().unwrap()]).unwrap();
    wait_until("the container to be restarted", SHORT, || {
        let rows = cluster.ps("web");
        let hit = rows.iter().any(|row| row["id"] == id && row["restarts"] == 1);
        if hit { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    wait_ready(&cluster, None);
    traffic.assert_only("a container killed", &BTreeSet::from([id]));

    let victims = allocations(&cluster, Some("n2"));
    let address = cluster.member("n2").address.to_string();
    cluster.kill("n2");
    let containers = work_of(&[address], false);
    assert!(!containers.is_empty(), "nothing ran on n2");
    let mut arguments = vec!["kill"];
    arguments.extend(containers.iter().map(String::as_str));
    docker(&arguments).unwrap();
    cluster.wait_for_node("n2", "lost");
    wait_ready(&cluster, Some("n2"));
    traffic.assert_only("a host killed", &victims);

    let leader = cluster.leader();
    cluster.kill(&leader);
    wait_until("another leader", SHORT, || {
        let next = cluster.leader();
        if next == leader { Err(format!("{next} is named")) } else { Ok(()) }
    });
    wait_ready(&cluster, Some("n2"));
    cluster.run(&web(11));
    traffic.assert_flawless("a leader killed, and a rollout under the next one");
}

#[test]
fn an_image_that_does_not_exist_replaces_nothing_and_is_taken_back() {
    let cluster = Cluster::single("docker");
    cluster.run(&web(0));
    let before = containers(&cluster);
    assert_eq!(before.len(), 4);
    let bad = web(1).replace(need_image(), "orch-test-none:1\npull_policy: never");
    cluster
        .orch(&["run", &cluster.job_file(&bad)])
        .code(1)
        .says(&["orch-test-none:1", "the job went back to version 1"]);
    assert_eq!(containers(&cluster), before, "nothing was replaced or restarted");
    cluster.orch(&["status", "web"]).ok().says(&["web went back to version 1", "version 2 failed"]);
}

/// Containers of the replicas that run.
fn containers(cluster: &Cluster) -> BTreeSet<String> {
    let rows = cluster.ps("web");
    let running = rows.iter().filter(|row| row["state"] == "running" && row["restarts"] == 0);
    running.filter_map(|row| row["container_id"].as_str().map(str::to_owned)).collect()
}
