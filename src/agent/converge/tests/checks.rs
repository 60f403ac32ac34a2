//! Liveness, readiness, and leaving before the end.

use super::*;
use crate::model::allocation::CheckResult;
use crate::model::job::PortSpec;

/// A service with a readiness check, on a port, with a delay of two seconds.
fn ready_checked() -> Assignment {
    let mut order = service(1, 1);
    let spec = Arc::make_mut(&mut order.spec);
    spec.tasks[0].readiness = Some(check());
    with_port(spec);
    order
}

pub(super) fn with_port(spec: &mut JobSpec) {
    spec.tasks[0].ports = vec![PortSpec {
        name: "http".parse().unwrap(),
        container: Some(80),
        host: None,
        protocol: crate::model::job::Protocol::Tcp,
    }];
}

fn readiness(bench: &mut Bench, run: u64, finding: Finding) {
    bench.hear(checked_event(run, CheckKind::Readiness, finding));
}

fn fails(text: &str) -> Finding {
    Finding::Fails(text.to_owned())
}

fn state(bench: &Bench) -> &crate::model::allocation::TaskState {
    bench.report(1).tasks.values().next().unwrap()
}

#[test]
fn readiness_decides_who_is_called_and_restarts_nothing() {
    let mut bench = synced();
    bench.order(vec![ready_checked()], Vec::new());
    bench.settle();
    assert_eq!(bench.world.probed, [(key(1, "web"), CheckKind::Readiness)].into());
    let report = bench.report(1);
    // Alive, since it runs, but not known to be ready.
    assert_eq!((report.health, report.ready), (Health::Healthy, false));
    readiness(&mut bench, 1, Finding::Passes);
    assert!(bench.report(1).ready);
    bench.world.now = 9000;
    readiness(&mut bench, 1, fails("GET /ready answered 503"));
    bench.settle();
    let report = bench.report(1);
    assert_eq!((report.status, report.ready), (AllocStatus::Running, false));
    assert_eq!(report.message, "not ready: GET /ready answered 503");
    let result = CheckResult {
        passing: false,
        message: "GET /ready answered 503".to_owned(),
        since: Timestamp(9000),
    };
    assert_eq!((&state(&bench).readiness, state(&bench).restarts), (&Some(result), 0));
    readiness(&mut bench, 1, Finding::Passes);
    assert!(bench.report(1).ready && bench.report(1).message.is_empty());
    // A new run is not ready before it says so.
    bench.die(key(1, "web"), exit(1));
    assert!(bench.runs(&key(1, "web")) && !bench.report(1).ready);
    readiness(&mut bench, 1, Finding::Passes);
    assert!(!bench.report(1).ready, "that was about the run before");
    readiness(&mut bench, 2, Finding::Passes);
    assert!(bench.report(1).ready);
}

#[test]
fn without_readiness_it_is_ready_when_healthy_and_without_both_when_it_runs() {
    let mut bench = synced();
    let mut alive = service(1, 1);
    Arc::make_mut(&mut alive.spec).tasks[0].healthcheck = Some(check());
    bench.order(vec![alive, service(2, 1)], Vec::new());
    bench.settle();
    assert!(!bench.report(1).ready && bench.report(2).ready);
    let not_yet = Finding::NotYet("connection refused on port 80".to_owned());
    bench.hear(checked_event(1, CheckKind::Liveness, not_yet));
    bench.settle();
    let report = bench.report(1);
    assert_eq!((report.health, report.restarts()), (Health::Unknown, 0), "it may still come up");
    assert_eq!(report.message, "not healthy: connection refused on port 80");
    bench.hear(checked_event(1, CheckKind::Liveness, Finding::Passes));
    assert!(bench.report(1).ready);
    bench.hear(checked_event(1, CheckKind::Liveness, fails("GET / answered 500")));
    assert!(!bench.report(1).ready && !bench.report(1).message.is_empty());
}

#[test]
fn all_tasks_must_be_ready() {
    let mut bench = synced();
    let mut order = assignment(1, 1, JobKind::Service { replicas: 1 }, &["web", "side"]);
    Arc::make_mut(&mut order.spec).tasks[0].readiness = Some(check());
    bench.order(vec![order], Vec::new());
    bench.settle();
    assert!(!bench.report(1).ready);
    readiness(&mut bench, 1, Finding::Passes);
    assert!(bench.report(1).ready);
    bench.die(key(1, "side"), exit(1));
    bench.settle();
    assert!(bench.report(1).ready, "back at once");
}

#[test]
fn a_reason_that_changes_all_the_time_is_told_now_and_then() {
    let mut bench = synced();
    bench.order(vec![ready_checked()], Vec::new());
    bench.settle();
    let before = bench.world.said;
    // For a minute, another text each 100 ms.
    for count in 0..600 {
        readiness(&mut bench, 1, fails(&format!("GET /ready answered 503, try {count}")));
        bench.pass(100);
    }
    let said = bench.world.said - before;
    assert!((10..=14).contains(&said), "{said}");
    bench.pass(10_000);
    let last = state(&bench).readiness.clone().unwrap();
    assert_eq!(
        (last.message.as_str(), last.since),
        ("GET /ready answered 503, try 599", Timestamp(0))
    );
    // Of two texts in turn the one that is told may stay.
    let before = bench.world.said;
    readiness(&mut bench, 1, fails("other"));
    readiness(&mut bench, 1, fails("GET /ready answered 503, try 599"));
    bench.pass(10_000);
    assert!(bench.world.said <= before + 2);
    assert!(bench.report(1).message.ends_with("try 599"));
}

#[test]
fn who_is_called_leaves_first_and_stops_later() {
    let mut bench = synced();
    bench.order(vec![ready_checked()], Vec::new());
    bench.settle();
    readiness(&mut bench, 1, Finding::Passes);
    bench.world.now = 10_000;
    bench.order(Vec::new(), vec![(1, 2)]);
    let report = bench.report(1);
    assert_eq!((report.status, report.ready), (AllocStatus::Running, false), "at once");
    bench.pass(1999);
    assert!(bench.runs(&key(1, "web")));
    // A repeated order does not begin anew.
    bench.order(Vec::new(), vec![(1, 2)]);
    bench.pass(60_000);
    assert_eq!(bench.world.stopped_at, Some(12_000));
    assert_eq!(bench.report(1).status, AllocStatus::Stopped);
}

#[test]
fn who_was_not_called_or_has_no_port_does_not_linger() {
    let mut bench = synced();
    let mut never_ready = ready_checked();
    never_ready.id = AllocId(1);
    let mut batch = assignment(3, 1, JobKind::once(None), &["web"]);
    with_port(Arc::make_mut(&mut batch.spec));
    bench.order(vec![never_ready, service(2, 1), batch], Vec::new());
    bench.settle();
    for id in 1..=3 {
        bench.order(Vec::new(), vec![(id, 2)]);
        bench.settle();
        assert_eq!(bench.report(id).status, AllocStatus::Stopped, "{id}");
    }
}

#[test]
fn who_left_long_ago_does_not_linger() {
    let mut bench = synced();
    bench.order(vec![ready_checked()], Vec::new());
    bench.settle();
    readiness(&mut bench, 1, Finding::Passes);
    readiness(&mut bench, 1, fails("GET /ready answered 503"));
    bench.pass(1000);
    bench.order(Vec::new(), vec![(1, 2)]);
    bench.settle();
    assert!(bench.runs(&key(1, "web")), "a second ago it was called");
    bench.pass(1000);
    assert_eq!(bench.world.stopped_at, Some(2000));
}

#[test]
fn a_kill_and_the_end_of_the_agent_do_not_linger() {
    let mut bench = synced();
    let mut order = ready_checked();
    Arc::make_mut(&mut order.spec).tasks[0].healthcheck = Some(check());
    bench.order(vec![order], Vec::new());
    bench.settle();
    readiness(&mut bench, 1, Finding::Passes);
    bench.hear(checked_event(1, CheckKind::Liveness, Finding::Passes));
    bench.hear(checked_event(1, CheckKind::Liveness, fails("GET / answered 500")));
    bench.settle();
    assert_eq!((bench.world.stopped_at, bench.report(1).restarts()), (Some(0), 1));
    readiness(&mut bench, 2, Finding::Passes);
    assert!(bench.report(1).ready);
    bench.hear(Event::EndAll);
    bench.settle();
    assert!(bench.world.tasks.is_empty());
}

#[test]
fn a_new_agent_lingers_no_longer_than_is_left() {
    let mut bench = synced();
    bench.order(vec![ready_checked()], Vec::new());
    bench.settle();
    readiness(&mut bench, 1, Finding::Passes);
    bench.order(Vec::new(), vec![(1, 2)]);
    bench.pass(1500);
    bench.restart();
    bench.list();
    bench.pass(60_000);
    assert_eq!(bench.world.stopped_at, Some(2000));
    assert_eq!(bench.report(1).status, AllocStatus::Stopped);
}

#[test]
fn a_new_agent_knows_who_is_ready() {
    let mut bench = synced();
    bench.order(vec![ready_checked()], Vec::new());
    bench.settle();
    readiness(&mut bench, 1, Finding::Passes);
    bench.restart();
    bench.list();
    bench.settle();
    assert!(bench.report(1).ready);
    assert_eq!(bench.world.probed.len(), 1, "and checks on");
}

#[test]
fn what_is_wanted_again_on_its_way_down_begins_again_and_that_is_no_failure() {
    let mut bench = synced();
    bench.order(vec![service(1, 1)], Vec::new());
    bench.settle();
    bench.order(Vec::new(), vec![(1, 2)]);
    // The stop is on its way.
    assert_eq!(bench.waiting.len(), 1);
    bench.order(vec![service(1, 3)], Vec::new());
    bench.settle();
    let report = bench.report(1);
    assert_eq!((report.status, report.restarts()), (AllocStatus::Running, 0));
    assert!(bench.runs(&key(1, "web")));
}
