//! How work leaves: after its callers, without a server, and when nobody remembers it.

use std::sync::Arc;

use orch::agent::RuntimeChoice;
use orch::model::allocation::{AllocReport, AllocStatus, Assignment};
use orch::model::job::TaskRuntime::Process;
use orch::model::job::{PortSpec, Protocol};
use orch::model::time::Millis;
use orch::rpc::v1::LogsRequest;

use super::leader::Leader;
use super::{Agent, free_port, image, log_of, service, shell, task};
use crate::support::docker::{docker, need_image, runs};
use crate::support::{SHORT, wait_until};

fn running(report: &AllocReport) -> bool {
    report.status == AllocStatus::Running
}

fn stopped(report: &AllocReport) -> bool {
    report.status == AllocStatus::Stopped
}

fn handle(report: &AllocReport) -> String {
    report.tasks.values().next().unwrap().container_id.clone().unwrap()
}

fn lives(report: &AllocReport) -> bool {
    let pid = handle(report).strip_prefix("pid:").unwrap().to_owned();
    std::path::Path::new("/proc").join(pid).exists()
}

/// Where the agent has written what it was told about the first allocation, once it has.
fn kept(agent: &Agent) -> std::path::PathBuf {
    let dir = agent.dir.path().join("agent/allocs");
    wait_for(&dir.join("a1"));
    dir
}

fn wait_for(file: &std::path::Path) {
    wait_until("what it was told", SHORT, || {
        if file.exists() { Ok(()) } else { Err("it is not written".to_owned()) }
    });
}

/// Says when it is asked to end, and ends.
fn polite(id: u64, with_port: bool) -> Assignment {
    let script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.02; done";
    let mut order = service(id, vec![task("web", Process, shell(script))]);
    if with_port {
        let spec = Arc::make_mut(&mut order.spec);
        let name: orch::model::name::PortName = "http".parse().unwrap();
        let port =
            PortSpec { name: name.clone(), container: None, host: None, protocol: Protocol::Tcp };
        spec.tasks[0].ports = vec![port];
        spec.shutdown_delay = Millis(5000);
        order.grant.ports.insert(name, free_port());
    }
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_have_time_before_the_stop_signal() {
    let leader = Leader::start().await;
    let agent = Agent::start(&leader, RuntimeChoice::Process);
    let orders = [polite(1, true), polite(2, false)];
    leader.assign(&orders[..1]);
    leader.order(&orders, &[], &[]).await;
    leader.report_that(2, "running", running).await;
    let first = leader.report_that(1, "ready", |report| report.ready).await;
    leader.order(&[], &[(1, 2), (2, 2)], &[]).await;
    leader.report_that(1, "leaving", |report| running(report) && !report.ready).await;
    // Who has no port has no callers, and is long gone.
    leader.report_that(2, "stopped", stopped).await;
    let lines = log_of(&leader, 1, LogsRequest::default()).await;
    assert!(lives(&first) && !lines.contains(&"asked".to_owned()), "{lines:?}");
    assert!(!stopped(&leader.report(1).unwrap()));
    // Another agent goes on with it.
    kept(&agent);
    leader.assign(&[]);
    leader.assign_stops(&[(1, 2)]);
    let _agent = agent.again(&leader, RuntimeChoice::Process).await;
    leader.report_that(1, "stopped", stopped).await;
    let lines = log_of(&leader, 1, LogsRequest::default()).await;
    assert!(lines.contains(&"asked".to_owned()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_run_without_a_server_ends_until_there_is_one() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let mut cut_off = polite(1, true);
    Arc::make_mut(&mut cut_off.spec).disconnect.stop_after = Some(Millis(1000));
    let orders = [cut_off, polite(2, false)];
    leader.assign(&orders);
    leader.order(&orders, &[], &[]).await;
    let first = leader.report_that(1, "running", running).await;
    let other = leader.report_that(2, "running", running).await;
    leader.point_to("127.0.0.1:1".parse().unwrap());
    leader.hang_up();
    wait_until("its end", SHORT, || if lives(&first) { Err("it lives".into()) } else { Ok(()) });
    assert!(lives(&other), "nobody said that it may not");
    leader.forget_reports();
    leader.lead();
    let again = leader.report_that(1, "running again", |report| report.ready).await;
    assert_ne!(handle(&again), handle(&first));
    assert_eq!(again.tasks.values().map(|task| task.restarts).sum::<u32>(), 0);
    let other_now = leader.report_that(2, "running on", running).await;
    assert_eq!(handle(&other_now), handle(&other));
    let lines = log_of(&leader, 1, LogsRequest::default()).await;
    assert!(lines.contains(&"asked".to_owned()), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_does_not_remember_has_ended_before_it_says_so() {
    let name = need_image();
    let leader = Leader::start().await;
    let agent = Agent::start(&leader, RuntimeChoice::Docker);
    let web = task("web", image(name), shell("trap '' TERM; while :; do sleep 0.1; done"));
    leader.order(&[service(1, vec![web])], &[], &[]).await;
    let id = handle(&leader.report_that(1, "running", running).await);
    leader.forget_reports();
    leader.assign_stops(&[(1, 2)]);
    // It keeps who it is, and loses what it was told.
    let dir = kept(&agent);
    std::fs::rename(&dir, agent.dir.path().join("lost")).unwrap();
    let _agent = agent.again(&leader, RuntimeChoice::Docker).await;
    leader.report_that(1, "stopped", stopped).await;
    assert!(!runs(&id), "it was said to have ended");
    let removed = docker(&["container", "inspect", &id]).is_err();
    assert!(removed, "nothing of it is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_written_is_written_later() {
    let leader = Leader::start().await;
    let agent = Agent::start(&leader, RuntimeChoice::Process);
    leader.order(&[polite(1, false)], &[], &[]).await;
    let dir = kept(&agent);
    let aside = agent.dir.path().join("aside");
    std::fs::rename(&dir, &aside).unwrap();
    leader.order(&[polite(2, false)], &[], &[]).await;
    leader.report_that(2, "running", running).await;
    // Long enough for it to have tried.
    leader.heartbeats(leader.heard() + 5).await;
    std::fs::rename(&aside, &dir).unwrap();
    wait_for(&dir.join("a2"));
}
