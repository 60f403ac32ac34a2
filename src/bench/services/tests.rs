//! What can be judged without an engine: rows, and what both sides answer.

use serde_json::json;

use super::measure::{Measured, all_of, ready};
use super::report::{Runs, row};
use super::sides::Copy;
use super::{BenchError, drain, swarm};
use crate::api::view::allocation::AllocationRow;
use crate::api::view::node::NodeRow;

fn a_copy(version: u64, ready: bool, ended: bool) -> Copy {
    Copy { run: String::new(), container: None, version, ready, ended }
}

/// As an engine of API 1.41 tells it, shortened.
fn a_task(state: &str, desired: &str) -> serde_json::Value {
    json!({
        "ID": "0kzzo1i0y4jz6027t0k7aezc7",
        "Version": { "Index": 71 },
        "Spec": {
            "ContainerSpec": {
                "Image": "busybox:1",
                "Args": ["sleep", "3600"],
                "Env": ["PATH_OF=x", "BENCH_VERSION=2"]
            },
            "Placement": {}
        },
        "Slot": 1,
        "Status": {
            "Timestamp": "2016-06-07T21:07:31.171892745Z",
            "State": state,
            "Message": "started",
            "ContainerStatus": { "ContainerID": "e5d62702a1b4", "PID": 677, "ExitCode": 0 }
        },
        "DesiredState": desired
    })
}

fn copy_of(task: serde_json::Value) -> Copy {
    swarm::copy(serde_json::from_value(task).unwrap())
}

#[test]
fn a_task_of_swarm_is_a_copy() {
    let copy = copy_of(a_task("running", "running"));
    let wanted = Copy {
        run: "0kzzo1i0y4jz6027t0k7aezc7".into(),
        container: Some("e5d62702a1b4".into()),
        version: 2,
        ready: true,
        ended: false,
    };
    assert_eq!(copy, wanted);
    let stopping = copy_of(a_task("running", "shutdown"));
    assert!(!stopping.ready && !stopping.ended, "{stopping:?}");
    let starting = copy_of(a_task("starting", "running"));
    assert!(!starting.ready && !starting.ended, "{starting:?}");
    for state in ["complete", "failed", "shutdown", "rejected", "orphaned", "remove"] {
        let ended = copy_of(a_task(state, "shutdown"));
        assert!(ended.ended && !ended.ready, "{ended:?}");
    }
}

#[test]
fn a_task_without_a_container_yet_has_none() {
    let mut task = a_task("new", "running");
    task["Status"] = json!({ "Timestamp": "2016-06-07T21:07:31Z", "State": "new" });
    task["Spec"]["ContainerSpec"] = json!({ "Image": "busybox:1" });
    let copy = copy_of(task);
    assert_eq!((copy.container, copy.version, copy.ready), (None, 0, false));
}

#[test]
fn swarm_says_when_it_goes_back() {
    let takes_back = |known: serde_json::Value| {
        serde_json::from_value::<swarm::Known>(known).unwrap().takes_back()
    };
    assert!(!takes_back(json!({ "ID": "x" })));
    assert!(!takes_back(json!({ "UpdateStatus": {} })));
    assert!(!takes_back(json!({ "UpdateStatus": { "State": "updating" } })));
    assert!(takes_back(json!({ "UpdateStatus": { "State": "rollback_started" } })));
    assert!(takes_back(json!({ "UpdateStatus": { "State": "rollback_completed" } })));
}

#[test]
fn an_update_is_over_when_nothing_else_lives() {
    let mut copies = vec![a_copy(2, true, false), a_copy(2, true, false), a_copy(1, false, true)];
    assert!(all_of(&copies, 2, |version| version == 2));
    assert!(!all_of(&copies, 3, |version| version == 2), "one is missing");
    copies.push(a_copy(1, false, false));
    assert!(!all_of(&copies, 2, |version| version == 2), "an old one is still stopping");
    assert!(!all_of(&copies, 3, |version| version == 2), "an old one is still stopping");
    copies[3] = a_copy(2, false, false);
    assert!(!all_of(&copies, 3, |version| version == 2), "one is not ready");
    assert_eq!(ready(&copies), 2);
}

fn measured(millis: f64, least: Option<u32>) -> Result<Measured, BenchError> {
    Ok(Measured { millis, least })
}

#[test]
fn a_row_has_both_sides() {
    let (mut swarm, mut orch) = (Runs::default(), Runs::default());
    for (millis, least) in [(400.0, 4), (200.0, 3), (300.0, 4)] {
        swarm.take(measured(millis, Some(least))).unwrap();
        orch.take(measured(millis / 2.0, Some(4))).unwrap();
    }
    let row = row("a thing".to_owned(), &swarm, &orch);
    let spread = row.swarm_ms.unwrap();
    assert_eq!((spread.median, spread.min, spread.max), (300.0, 200.0, 400.0));
    assert_eq!(row.ratio, Some(0.5));
    assert_eq!((row.swarm_least, row.orch_least), (Some(3), Some(4)));
    assert_eq!(row.note, "");
}

#[test]
fn what_can_not_be_measured_has_a_reason_and_no_figure() {
    let (mut swarm, mut orch) = (Runs::default(), Runs::default());
    swarm.take(measured(1.0, None)).unwrap();
    swarm.take(Err(BenchError::Slow("the end".to_owned(), 5))).unwrap();
    orch.take(measured(1.0, None)).unwrap();
    let row = row("a thing".to_owned(), &swarm, &orch);
    assert_eq!((row.swarm_ms, row.ratio), (None, None));
    assert!(row.orch_ms.is_some());
    assert_eq!(row.note, "Swarm: the end did not happen within 5 s");
    let stopped = orch.take(Err(BenchError::Interrupted));
    assert!(matches!(stopped, Err(BenchError::Interrupted)), "Ctrl-C ends all of it");
}

fn a_node(name: &str, allocations: u32) -> NodeRow {
    serde_json::from_value(json!({
        "name": name, "id": name, "state": "ready", "reason": "", "eligible": true, "class": "",
        "address": "", "attributes": {}, "allocations": allocations, "runtimes": ["docker"],
        "resources": { "cpu_milli": 0, "memory": 0, "disk": 0, "gpu": 0 },
        "allocated": { "cpu_milli": 0, "memory": 0, "disk": 0, "gpu": 0 },
        "version": "", "registered_at": "2026-01-01T00:00:00Z", "state_since": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

fn on_node(node: &str) -> AllocationRow {
    serde_json::from_value(json!({
        "project": "default", "job": "j", "index": 0, "id": "a1", "node": node, "version": 1,
        "state": "running", "health": "healthy", "container_id": null, "ports": {},
        "address": null, "restarts": 0, "started_at": null, "created_at": null, "message": "",
    }))
    .unwrap()
}

#[test]
fn only_a_node_with_nothing_else_on_it_is_drained() {
    let rows = [on_node("a"), on_node("b"), on_node("b")];
    let busiest = |nodes: &[NodeRow]| drain::busiest(nodes, &rows).map_err(|it| it.to_string());
    assert_eq!(busiest(&[a_node("a", 1), a_node("b", 2)]).unwrap(), "b");
    let refused = busiest(&[a_node("a", 1), a_node("b", 3)]).unwrap_err();
    assert!(refused.contains("b has other work"), "{refused}");
    let alone = busiest(&[a_node("b", 2)]).unwrap_err();
    assert!(alone.contains("needs two ready nodes"), "{alone}");
    let mut draining = a_node("a", 0);
    draining.state = "draining".to_owned();
    assert!(busiest(&[draining, a_node("b", 2)]).is_err());
}
