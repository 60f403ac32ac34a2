//! Where work goes as time passes: room for what is more important, data that stays where it is,
//! better places on request, and nodes that come and go too often.

use serde_json::Value;

use crate::support::docker::{docker, need_image};
use crate::support::{Cluster, LONG, SHORT, wait_until};

const PROCESS: [&str; 2] = ["--runtime", "process"];

/// A service of processes that do nothing.
fn idle(job: &str, replicas: u32, cpu: &str, more: &str) -> String {
    format!(
        "job: {job}\nreplicas: {replicas}\ncommand: [sleep, 1d]\nshutdown_delay: 0s\n\
         resources: {{ cpu: {cpu}, memory: 16Mi }}\n{more}\n"
    )
}

fn on(rows: &[Value], node: &str) -> usize {
    rows.iter().filter(|row| row["node"] == node && row["state"] == "running").count()
}

/// A server that soon takes silent nodes for lost.
fn quick_cluster() -> Cluster {
    let mut cluster = Cluster::empty();
    cluster.server("s1", &["--node-timeout", "4s"]);
    cluster
}

fn node_state(cluster: &Cluster, node: &str) -> Value {
    cluster.orch(&["node", "status", node, "-o", "json"]).ok().json()
}

fn wait_for_state(cluster: &Cluster, node: &str, state: &str) -> Value {
    wait_until(&format!("{node} to be {state}"), SHORT, || {
        let row = node_state(cluster, node);
        if row["state"] == state { Ok(row) } else { Err(format!("{row}")) }
    })
}

fn wait_for_status(cluster: &Cluster, job: &str, words: &str) {
    wait_until(&format!("{words:?} in the status of {job}"), SHORT, || {
        let said = cluster.orch(&["status", job]).to_string();
        if said.contains(words) { Ok(()) } else { Err(said) }
    });
}

#[test]
fn the_more_important_gets_the_room_of_the_fewest_and_they_are_told_why() {
    let mut cluster = Cluster::start(1);
    cluster.agent("n1", &[PROCESS[0], PROCESS[1], "--cpu", "1"]);
    cluster.run(&idle("low", 3, "0.3", "priority: 10"));
    let equal = cluster.job_file(&idle("equal", 1, "0.5", "priority: 10"));
    cluster.orch(&["plan", &equal]).ok().says(&["cpu left"]);
    let high = cluster.job_file(&idle("high", 1, "0.6", "priority: 90"));
    let plan = cluster.orch(&["plan", &high]).ok();
    let plan = plan.says(&["low.", "preempted by high, whose priority is 90", "places 1 copy"]);
    assert_eq!(plan.stdout.matches("preempted by").count(), 2, "{plan}");
    cluster.orch(&["run", &high]).ok();
    cluster.wait_healthy("high", 1);
    let low = cluster.wait_healthy("low", 1);
    let events = cluster.orch(&["events", "--job", "low", "-o", "json"]).ok().stdout;
    let told = "preempted by high, whose priority is 90 and this one's 10";
    assert_eq!(events.matches(told).count(), 2, "{events}");
    wait_for_status(&cluster, "low", "cpu left");
    // The one that was spared goes on; the others come back when there is room.
    cluster.orch(&["stop", "high"]).ok();
    let again = cluster.wait_healthy("low", 3);
    assert!(again.iter().any(|row| row["id"] == low[0]["id"]), "{again:?}");
}

/// A named volume of the engine, removed at the end.
struct Volume(String);

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = docker(&["volume", "rm", "--force", &self.0]);
    }
}

#[test]
fn a_volume_keeps_its_replica_or_makes_it_wait() {
    // Before the cluster, so that it goes after the containers that use it.
    let volume = Volume(format!("orch-test-room-{}", std::process::id()));
    let mut cluster = quick_cluster();
    for node in ["n1", "n2"] {
        cluster.agent(node, &["--runtime", "docker"]);
    }
    let db = format!(
        "job: db\nimage: {}\nreplicas: 1\ncommand: [sleep, 1d]\nstop_signal: SIGKILL\n\
         shutdown_delay: 0s\nresources: {{ cpu: 0.1, memory: 16Mi }}\n\
         volumes: [\"{}:/data\"]\n",
        need_image(),
        volume.0
    );
    cluster.run(&db);
    let home = cluster.wait_healthy("db", 1)[0]["node"].as_str().unwrap().to_owned();
    let other = if home == "n1" { "n2" } else { "n1" };

    cluster.orch(&["node", "drain", &home, "--deadline", "100ms"]).ok();
    wait_for_status(&cluster, "db", &format!("is on {home}, which is being drained"));
    cluster.orch(&["node", "eligible", &home]).ok();
    assert_eq!(cluster.wait_healthy("db", 1)[0]["node"], home.as_str());

    cluster.kill(&home);
    wait_for_state(&cluster, &home, "lost");
    wait_for_status(&cluster, "db", &format!("is on {home}, which is lost"));
    cluster.orch(&["node", "remove", &home]).ok();
    let rows = cluster.wait_healthy("db", 1);
    assert_eq!(rows[0]["node"], other);
    let events = cluster.orch(&["events", "-o", "json"]).ok().stdout;
    assert!(events.contains("the data there is given up, that of db.0"), "{events}");
    cluster.orch(&["stop", "db", "--purge"]).ok();
}

#[test]
fn work_moves_to_better_places_when_asked_to() {
    let mut cluster = Cluster::start(1);
    cluster.agent("n1", &PROCESS);
    cluster.run(&idle("web", 4, "0.1", ""));
    let nothing = cluster.orch(&["rebalance"]).ok();
    nothing.says(&["nothing to move"]);
    cluster.agent("n2", &PROCESS);
    let before = cluster.wait_healthy("web", 4);
    let plan = cluster.orch(&["rebalance", "--dry-run", "-o", "json"]).ok().json();
    assert_eq!(plan.as_array().map(Vec::len), Some(2), "{plan}");
    cluster
        .orch(&["rebalance", "--dry-run"])
        .ok()
        .says(&["n1 has 4 of the replicas, n2 has 0", "nothing was moved"]);
    assert_eq!(cluster.ps("web"), before, "a dry run moves nothing");

    for moved in 1..=2 {
        // What has just arrived has to stay a moment before the next is moved.
        wait_until("the next move", LONG, || {
            let moves = cluster.orch(&["rebalance", "--max-moves", "1", "-o", "json"]).ok().json();
            if moves.as_array().map(Vec::len) == Some(1) { Ok(()) } else { Err(moves.to_string()) }
        });
        wait_until("the move", LONG, || {
            let rows = cluster.ps("web");
            let up = rows.iter().filter(|row| row["health"] == "healthy").count();
            assert!(up >= 4, "its replacement comes first: {rows:?}");
            let arrived = on(&rows, "n2") == moved && rows.len() == 4;
            if arrived { Ok(()) } else { Err(format!("{rows:?}")) }
        });
        wait_until("calm", SHORT, || {
            let rows = cluster.ps("web");
            let calm = rows.iter().all(|row| row["state"] == "running") && rows.len() == 4;
            if calm { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    }
    cluster.orch(&["rebalance"]).ok().says(&["nothing to move"]);
    cluster.orch(&["rebalance", "--max-moves", "1000"]).code(4).says(&["the most at once is 100"]);
}

#[test]
fn work_moves_by_itself_where_that_is_switched_on() {
    let mut cluster = Cluster::empty();
    cluster.server("s1", &["--rebalance-every", "500ms"]);
    cluster.agent("n1", &PROCESS);
    cluster.run(&idle("web", 4, "0.1", ""));
    cluster.agent("n2", &PROCESS);
    wait_until("an even share", LONG, || {
        let rows = cluster.ps("web");
        if on(&rows, "n1") == 2 && on(&rows, "n2") == 2 { Ok(()) } else { Err(format!("{rows:?}")) }
    });
}

#[test]
fn a_node_that_comes_and_goes_is_on_probation() {
    let mut cluster = quick_cluster();
    cluster.agent("n1", &PROCESS);
    for _ in 0..3 {
        cluster.kill("n1");
        wait_for_state(&cluster, "n1", "lost");
        cluster.spawn("n1");
        wait_until("n1 to be back", SHORT, || match &node_state(&cluster, "n1")["state"] {
            state if state == "lost" => Err("it is lost".to_owned()),
            _ => Ok(()),
        });
    }
    let row = wait_for_state(&cluster, "n1", "probation");
    assert!(row["probation_until"].is_string(), "{row}");
    let why = "lost 3 times within 10m";
    cluster.orch(&["node", "ls"]).ok().says(&["probation", why]);
    cluster.orch(&["node", "status", "n1"]).ok().says(&["on probation until", why]);
    let events = cluster.orch(&["events", "-o", "json"]).ok().stdout;
    assert!(events.contains(why), "{events}");
    cluster.submit(&idle("web", 1, "0.1", ""));
    wait_for_status(&cluster, "web", "on probation until");
    cluster.orch(&["node", "eligible", "n1"]).ok();
    assert_eq!(cluster.wait_healthy("web", 1)[0]["node"], "n1");
    wait_for_state(&cluster, "n1", "ready");
}
