//! Work survives its supervisors: servers, agents and engines go and come, containers run on.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::docker::{self, docker, need_image, work_of};
use crate::support::{Cluster, LONG, SHORT, wait_until};

/// A service of `replicas` that prints a number ten times a second.
fn counter(replicas: usize) -> String {
    format!(
        r#"
job: counter
replicas: {replicas}
image: {image}
command: ["sh", "-c", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done"]
resources: {{ cpu: 0.1, memory: 16Mi }}
stop_grace: 1s
"#,
        image = need_image()
    )
}

fn container_ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["container_id"].as_str().expect("an id").to_owned()).collect()
}

fn restarts(rows: &[Value]) -> u64 {
    rows.iter().map(|row| row["restarts"].as_u64().unwrap_or(0)).sum()
}

#[test]
fn containers_run_on_without_any_server() {
    let mut cluster = Cluster::start(3);
    cluster.agent("n1", &["--runtime", "docker"]);
    cluster.submit(&counter(2));
    let before = container_ids(&cluster.wait_healthy("counter", 2));
    for server in cluster.servers() {
        cluster.kill(&server);
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(before.iter().all(|id| docker::runs(id)), "they ended with the servers");
    assert!(cluster.process("n1").runs(), "the agent ended with the servers");
    for server in cluster.servers() {
        cluster.spawn(&server);
    }
    cluster.wait_for_voters(3);
    cluster.wait_for_node("n1", "ready");
    let after = cluster.wait_healthy("counter", 2);
    assert_eq!(container_ids(&after), before);
    assert_eq!(restarts(&after), 0);
}

#[test]
fn a_killed_agent_adopts_its_containers_and_their_logs_have_no_gap() {
    let mut cluster = Cluster::start(1);
    cluster.agent("n1", &["--runtime", "docker"]);
    cluster.submit(&counter(2));
    let before = container_ids(&cluster.wait_healthy("counter", 2));
    cluster.kill("n1");
    let lines = |id: &str| docker(&["logs", id]).unwrap_or_default().lines().count();
    let so_far = lines(&before[0]);
    wait_until("it to print without its agent", SHORT, || {
        if lines(&before[0]) > so_far + 15 { Ok(()) } else { Err("not yet".to_owned()) }
    });
    cluster.start_member("n1");
    cluster.wait_for_node("n1", "ready");
    let after = cluster.wait_healthy("counter", 2);
    assert_eq!(container_ids(&after), before, "adopted, not replaced");
    assert_eq!(restarts(&after), 0);
    let text = wait_until("its logs", SHORT, || {
        let output = cluster.orch(&["logs", "counter.0"]);
        if output.code == 0 { Ok(output.stdout) } else { Err(output.to_string()) }
    });
    let numbers: Vec<usize> =
        text.lines().filter_map(|line| line.rsplit("line ").next()?.trim().parse().ok()).collect();
    assert!(numbers.len() > so_far + 15, "{} lines", numbers.len());
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>(), "a gap or a repeat");
}

#[test]
fn a_killed_agent_adopts_its_processes() {
    let mut cluster = Cluster::single("process");
    cluster.submit(
        r#"
job: ticker
replicas: 2
command: ["sh", "-c", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.1; done"]
resources: { cpu: 0.1, memory: 16Mi }
stop_grace: 1s
"#,
    );
    let before = container_ids(&cluster.wait_healthy("ticker", 2));
    assert!(before.iter().all(|id| id.starts_with("pid:")), "{before:?}");
    cluster.restart("n1");
    cluster.wait_for_node("n1", "ready");
    let after = cluster.wait_healthy("ticker", 2);
    assert_eq!(container_ids(&after), before);
    assert_eq!(restarts(&after), 0);
}

#[test]
fn a_container_killed_from_outside_is_back() {
    let cluster = Cluster::single("docker");
    cluster.submit(&counter(1));
    let before = cluster.wait_healthy("counter", 1);
    let id = container_ids(&before).remove(0);
    let killed = Instant::now();
    docker(&["kill", &id]).unwrap();
    let ours = || work_of(&[before[0]["address"].as_str().unwrap_or_default().to_owned()], false);
    wait_until("a container to run again", SHORT, || {
        if ours().is_empty() { Err("none".to_owned()) } else { Ok(()) }
    });
    println!("from docker kill to a running container: {:?}", killed.elapsed());
    let after = wait_until("the restart to be counted", SHORT, || {
        let rows = cluster.ps("counter");
        let row = rows.iter().find(|row| row["state"] == "running").ok_or("none runs")?;
        if row["restarts"] == 1 { Ok(row.clone()) } else { Err(row.to_string()) }
    });
    assert_eq!(after["node"], "n1");
    assert_eq!(after["id"], before[0]["id"], "restarted in place");
}

#[test]
fn a_lost_host_that_returns_keeps_its_work_and_the_replacements_end() {
    let mut cluster = Cluster::start(1);
    let first = cluster.agent("n1", &["--runtime", "docker"]);
    cluster.submit(&counter(2));
    let before = container_ids(&cluster.wait_healthy("counter", 2));
    let second = cluster.agent("n2", &["--runtime", "docker"]);
    // As if the host were cut off: its containers run, nobody hears of it.
    let gone = Instant::now();
    cluster.process("n1").signal(Signal::STOP);
    cluster.wait_for_node("n1", "lost");
    println!("from the host's end to its node being lost: {:?}", gone.elapsed());
    wait_until("both to run on the other node", LONG, || {
        let rows = cluster.ps("counter");
        let there =
            rows.iter().filter(|row| row["state"] == "running" && row["node"] == "n2").count();
        if there == 2 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
    println!("from the host's end to its work running elsewhere: {:?}", gone.elapsed());
    assert!(before.iter().all(|id| docker::runs(id)), "the cut-off host goes on");
    cluster.process("n1").signal(Signal::CONT);
    cluster.wait_for_node("n1", "ready");
    wait_until("the replacements to be ended", LONG, || {
        match work_of(&[second.to_string()], false) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?} run")),
        }
    });
    assert_eq!(work_of(&[first.to_string()], false).len(), 2);
    assert_eq!(container_ids(&cluster.wait_healthy("counter", 2)), before);
}
