//! Changing a service, as a user does it: versions that fail, canaries, going back, and nodes that
//! are emptied; through the command line, with processes.

use serde_json::json;

use crate::support::{Cluster, LONG, SHORT, wait_until};

/// A service of two processes that listen on nothing, and end soon if `mark` is `bad`.
fn service(mark: &str, more: &str) -> String {
    let last = if mark == "bad" { "exit 3" } else { "exec sleep 1000" };
    format!(
        "job: web\nreplicas: 2\ncommand: [sh, -c, 'echo {mark}; {last}']\nports: {{ http: auto }}\n\
         restart: {{ attempts: 1, delay: 100ms }}\nstop_grace: 1s\nshutdown_delay: 100ms\n{more}"
    )
}

fn images(cluster: &Cluster) -> String {
    cluster.orch(&["inspect", "web"]).ok().stdout
}

#[test]
fn a_version_that_fails_is_taken_back_and_says_why() {
    let cluster = Cluster::single("process");
    // One that ends at once runs for a moment.
    let settled = "update: { min_healthy: 2s }\n";
    cluster.run(&service("one", settled));
    let before: Vec<_> = cluster.ps("web").iter().map(|row| row["id"].clone()).collect();
    let bad = cluster.job_file(&service("bad", settled));
    cluster
        .orch(&["run", &bad])
        .code(1)
        .says(&["exit code 3", "the job went back to version 1: 2 of 2 ready"]);
    cluster.orch(&["status", "web"]).ok().says(&[
        "web went back to version 1, both replicas are ready; version 2 failed: web.0 on n1",
        "taken back by d3",
        "orch history web",
    ]);
    assert!(images(&cluster).contains("echo one"));
    // What ran all along was not touched.
    let after: Vec<_> = cluster.ps("web").iter().map(|row| row["id"].clone()).collect();
    assert_eq!(after, before);
    cluster.orch(&["history", "web"]).ok().says(&["reverted", "failed", "runs the same as 1"]);
    cluster.orch(&["deploy", "ls", "web"]).ok().says(&["d3", "d2", "d1", "failed", "successful"]);
    cluster.orch(&["deploy", "ls"]).ok().says(&["no deployment is under way"]);
    cluster.orch(&["deploy", "status", "d2", "-w"]).code(1).says(&["going back to version 1"]);
    cluster.orch(&["deploy", "status", "d99"]).code(3);
    cluster.orch(&["deploy", "promote", "web"]).code(4);
}

#[test]
fn a_canary_waits_until_it_is_promoted() {
    let cluster = Cluster::single("process");
    let canary = "update: { canary: 1, promote: manual }\n";
    cluster.run(&service("one", canary));
    let next = cluster.job_file(&service("two", canary));
    cluster.orch(&["run", &next]).ok().says(&[
        "waits to be promoted",
        "orch deploy promote web",
        "orch deploy abort web",
    ]);
    cluster.orch(&["status", "web"]).ok().says(&[
        "web runs version 1 and tries version 2 beside it in 1 canary: ready",
        "canary from version 1 to 2, is running",
        "orch deploy promote web",
    ]);
    // Of a canary both versions take traffic.
    let endpoints = cluster.orch(&["endpoints", "web", "-o", "json"]).ok().json();
    assert_eq!(endpoints["endpoints"].as_array().map(Vec::len), Some(3), "{endpoints}");
    cluster.orch(&["deploy", "pause", "web"]).ok().says(&["is held"]);
    cluster.orch(&["status", "web"]).ok().says(&["web is held between version 1 and 2"]);
    cluster.orch(&["deploy", "resume", "d2"]).ok();
    cluster.orch(&["deploy", "promote", "web"]).ok().says(&["version 2 of web is promoted"]);
    cluster.orch(&["deploy", "status", "web", "--wait"]).ok().says(&["was successful"]);
    let rows = cluster.wait_healthy("web", 2);
    assert!(rows.iter().all(|row| row["version"] == 2 && row["ready"] == true), "{rows:?}");

    cluster.orch(&["rollback", "web", "--detach"]).ok().says(&["as version 3"]);
    // A newer submission takes the place of one that waits.
    let third = cluster.job_file(&service("three", canary));
    cluster.orch(&["run", "-d", &third]).ok();
    cluster.orch(&["deploy", "abort", "web"]).ok().says(&["aborted by a user"]);
    wait_until("all to be well again", LONG, || {
        let status = cluster.orch(&["status", "web", "-o", "json"]).ok().json();
        if status["state"] == "running" { Ok(()) } else { Err(status.to_string()) }
    });
}

#[test]
fn a_restart_replaces_every_copy_and_waiting_verbs_wait() {
    let cluster = Cluster::single("process");
    cluster.run(&service("one", ""));
    let ids = || -> Vec<_> { cluster.ps("web").iter().map(|row| row["id"].clone()).collect() };
    let before = ids();
    cluster.orch(&["restart", "web"]).ok().says(&["web version 2 is up: 2 of 2 healthy"]);
    let after = wait_until("the old ones to be gone", LONG, || {
        let after = ids();
        if after.len() == 2 { Ok(after) } else { Err(format!("{after:?}")) }
    });
    assert!(after.iter().all(|id| !before.contains(id)), "{before:?} {after:?}");
    cluster.orch(&["scale", "web=3", "--wait"]).ok().says(&["web version 3 is up: 3 of 3"]);
    let endpoints = cluster.orch(&["endpoints", "web", "--port", "http"]).ok();
    assert_eq!(endpoints.stdout.lines().count(), 4, "{endpoints}");
    endpoints.says(&["PORT", "http", "web.2", "n1"]);
    cluster.orch(&["endpoints", "web", "--port", "htpp"]).code(3).says(&["it has http"]);
    cluster.orch(&["stop", "web", "--wait"]).ok().says(&["web has ended"]);
    let status = cluster.orch(&["status", "web", "-o", "json"]).ok().json();
    assert_eq!(status["state"], json!("stopped"), "{status}");
    cluster.orch(&["endpoints", "web"]).ok().says(&["no endpoint"]);
    cluster.orch(&["restart", "web"]).ok();
    cluster.orch(&["stop", "web", "--purge", "--wait"]).ok();
}

#[test]
fn status_of_jobs_that_do_not_run_can_be_read_aloud() {
    let cluster = Cluster::single("process");
    cluster.submit(&service("bad", ""));
    wait_until("the loop to be told", LONG, || {
        let status = cluster.orch(&["status", "web"]).ok();
        let first = status.stdout.lines().next().unwrap_or_default();
        let told = first.starts_with("web is in a crash loop: none of its 2 replicas is ready;")
            && first.contains("keeps ending")
            && first.contains("exit code 3");
        if told { Ok(()) } else { Err(status.to_string()) }
    });
    cluster.submit("job: large\nreplicas: 1\ncommand: sleep 1000\nresources: { memory: 100Ti }\n");
    cluster.submit(
        "job: picky\nreplicas: 1\ncommand: sleep 1000\nplacement: { require: [\"attr.zone == z\"] }\n",
    );
    for (job, said) in [
        ("large", "it asks for 100Ti of memory, and the largest node, n1, has "),
        ("picky", "no node keeps its rule \"attr.zone == z\" (no node has attr.zone)"),
    ] {
        let status = cluster.orch(&["status", job]).ok();
        let first = status.stdout.lines().next().unwrap_or_default();
        assert!(first.contains(said), "{status}");
        assert!(status.stdout.contains("What to do next"), "{status}");
    }
}

#[test]
fn a_drain_says_what_stays_and_ends_with_the_deadline() {
    let cluster = Cluster::single("process");
    cluster.run(&service("one", ""));
    cluster
        .orch(&["node", "drain", "n1"])
        .ok()
        .says(&["n1 is being drained", "web.0 can't move: there is no other node"]);
    cluster.orch(&["node", "status", "n1"]).ok().says(&[
        "draining",
        "without a deadline",
        "web.1 can't move: there is no other node",
    ]);
    cluster.orch(&["node", "drain", "n1", "--deadline", "1s", "--wait"]).code(1).says(&[
        "2 left on n1",
        "the deadline passed",
        "web.0, web.1",
    ]);
    wait_until("the job to say what it waits for", SHORT, || {
        let status = cluster.orch(&["status", "web"]).ok();
        let told = status.stdout.contains("no node takes new work (n1 is being drained)");
        if told { Ok(()) } else { Err(status.to_string()) }
    });
    cluster.orch(&["node", "eligible", "n1"]).ok();
    cluster.wait_healthy("web", 2);
}
