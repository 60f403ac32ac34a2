//! `orch top` and suspect nodes: what agents measure, on every server.

use rustix::process::Signal;
use serde_json::Value;

use super::terminal::Terminal;
use crate::support::docker::need_image;
use crate::support::{Cluster, LONG, wait_until};

#[test]
fn what_is_used_is_known_on_every_server() {
    let mut cluster = Cluster::start(2);
    cluster.agent("n1", &["--runtime", "auto"]);
    // One that keeps a core busy, one that holds 32 MB and sleeps.
    cluster.run(&format!(
        "job: busy\nreplicas: 1\nimage: {}\nresources: {{ cpu: 0.5, memory: 64Mi }}\n\
         command: [sh, -c, 'while :; do :; done']\nstop_signal: SIGKILL\n",
        need_image()
    ));
    let busybox = crate::support::docker::static_busybox().unwrap();
    cluster.run(&format!(
        "job: holds\nreplicas: 1\nstop_grace: 1s\n\
         command: ['{busybox}', awk, 'BEGIN {{ x = sprintf(\"%32000000s\", \"\"); while (1) system(\"sleep 1000\") }}']\n"
    ));
    let rows = |server: &str, more: &[&str]| {
        let output = cluster.orch_at(server, &[&["top", "-o", "json"], more].concat()).ok();
        output.json()
    };
    let of = |value: &Value, job: &str| {
        let rows = value["allocations"].as_array().unwrap();
        rows.iter().find(|row| row["job"] == job).cloned().unwrap_or_default()
    };
    for server in ["s1", "s2"] {
        wait_until("both to be measured", LONG, || {
            let value = rows(server, &[]);
            let (busy, holds) = (of(&value, "busy"), of(&value, "holds"));
            let fine = busy["cpu"].as_f64().is_some_and(|cpu| cpu > 0.1 && cpu < 1.0)
                && busy["memory_limit"] == 64 << 20
                && busy["memory"].as_u64().is_some_and(|bytes| bytes > 0)
                && holds["memory"].as_u64().is_some_and(|bytes| bytes > 30_000_000)
                && holds["cpu"].as_f64().is_some_and(|cpu| cpu < 0.5)
                && holds["node"] == "n1";
            if fine { Ok(()) } else { Err(value.to_string()) }
        });
        let value = rows(server, &["busy"]);
        assert_eq!(value["allocations"].as_array().unwrap().len(), 1, "{value}");
        let node = &rows(server, &[])["nodes"][0];
        assert!(node["usage"]["memory_used"].as_u64().unwrap() > 0, "{node}");
        let status = cluster.orch_at(server, &["node", "status", "n1", "-o", "json"]).ok().json();
        assert!(status["usage"]["memory_used"].as_u64().unwrap() > 0, "{status}");
        assert!(status["last_heard"].is_string(), "{status}");
        cluster.orch_at(server, &["top"]).ok().says(&["NODE", "n1", "busy.0", "64Mi"]);
        let nodes = cluster.orch_at(server, &["top", "nodes"]).ok();
        assert!(!nodes.stdout.contains("busy"), "{nodes}");
    }
    // On a terminal it is drawn again and again.
    let mut live = Terminal::start(&cluster, "s2", &["top"]);
    for _ in 0..3 {
        live.shows("busy.0");
    }
    live.types("\x03");
    assert_eq!(live.end(), 0);
    cluster.orch(&["top", "none"]).code(3);
    cluster.orch(&["stop", "holds"]).ok();
    wait_until("what has ended to leave the list", LONG, || {
        let value = rows("s1", &[]);
        if of(&value, "holds").is_null() { Ok(()) } else { Err(value.to_string()) }
    });
}

#[test]
fn a_node_that_is_silent_is_suspect_before_it_is_lost() {
    let mut cluster = Cluster::empty();
    cluster.server("s1", &["--node-timeout", "30s"]);
    cluster.server("s2", &["--node-timeout", "30s"]);
    cluster.wait_for_voters(2);
    cluster.agent("n1", &["--runtime", "process"]);
    cluster.process("n1").signal(Signal::STOP);
    for server in ["s1", "s2"] {
        wait_until("it to be suspect", LONG, || {
            let rows = cluster.orch_at(server, &["node", "ls", "-o", "json"]).ok().json();
            let row = &rows[0];
            if row["state"] == "suspect"
                && row["reason"].as_str().unwrap().contains("not heard for")
            {
                Ok(())
            } else {
                Err(row.to_string())
            }
        });
    }
    cluster.orch(&["node", "status", "n1"]).ok().says(&["suspect", "not heard for"]);
    cluster.orch(&["top", "nodes"]).ok().says(&["suspect"]);
    cluster.process("n1").signal(Signal::CONT);
    cluster.wait_for_node("n1", "ready");
}
