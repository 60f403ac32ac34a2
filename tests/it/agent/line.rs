//! The line between agent and leader.

use orch::agent::{self, AgentError, RuntimeChoice};
use orch::ground::Ground;
use orch::model::allocation::{AllocReport, AllocStatus};
use orch::model::job::TaskRuntime::Process;
use tokio_util::sync::CancellationToken;

use super::leader::{CLUSTER, Leader};
use super::{Agent, config, service, shell, task};

fn running(report: &AllocReport) -> bool {
    report.status == AllocStatus::Running
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_finds_the_leader_and_comes_back_to_it() {
    let (follower, leader) = (Leader::start().await, Leader::start().await);
    follower.point_to(leader.address);
    let _agent = Agent::start(&follower, RuntimeChoice::Process);
    let (hello, spec) = leader.hello_number(1).await;
    assert_eq!((hello.cluster_id, hello.term), (0, 0));
    assert!(spec.agent_id != 0);
    leader.heartbeats(3).await;
    leader.set_term(2);
    leader.hang_up();
    let (hello, again) = leader.hello_number(2).await;
    assert_eq!((hello.cluster_id, hello.term), (CLUSTER, 1));
    assert_eq!(again.agent_id, spec.agent_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_an_older_term_is_refused() {
    let (old, new) = (Leader::start().await, Leader::start().await);
    new.set_term(5);
    old.assign(&[service(1, vec![task("web", Process, shell("sleep 600"))])]);
    let agent = Agent::start(&new, RuntimeChoice::Process);
    // Heard of it, so its word is kept.
    new.heartbeats(1).await;
    // The agent remembers it, and would go back to it.
    drop(new);
    let _agent = agent.again(&old, RuntimeChoice::Process).await;
    let (hello, _) = old.hello_number(1).await;
    assert_eq!(hello.term, 5);
    // It asks again and again, and takes no orders.
    old.hello_number(3).await;
    assert!(old.report(1).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_are_kept_until_the_leader_has_them() {
    let leader = Leader::start().await;
    leader.set_acknowledges(false);
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    leader.order(&[service(1, vec![task("web", Process, shell("sleep 600"))])], &[], &[]).await;
    leader.report_that(1, "any", |_| true).await;
    leader.forget_reports();
    leader.set_acknowledges(true);
    // As it is assigned there as well it goes on.
    leader.assign(&[service(1, vec![task("web", Process, shell("sleep 600"))])]);
    leader.hang_up();
    leader.report_that(1, "running", running).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_order_changes_nothing() {
    let leader = Leader::start().await;
    let _agent = Agent::start(&leader, RuntimeChoice::Process);
    let order = |generation| {
        let mut order = service(1, vec![task("web", Process, shell("sleep 600"))]);
        order.grant.generation = generation;
        order
    };
    leader.order(&[order(5)], &[], &[]).await;
    leader.report_that(1, "running", running).await;
    leader.order(&[], &[(1, 4), (9, 3)], &[]).await;
    // An answer to the second order says that the first one has been seen.
    leader.report_that(9, "stopped", |report| report.status == AllocStatus::Stopped).await;
    assert!(running(&leader.report(1).unwrap()));
    leader.order(&[], &[(1, 6)], &[]).await;
    leader.report_that(1, "stopped", |report| report.status == AllocStatus::Stopped).await;
    // Wanted once more.
    leader.order(&[order(7)], &[], &[]).await;
    leader.report_that(1, "running", |report| running(report) && report.generation == 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_agent() {
    let leader = Leader::start().await;
    let agent = Agent::start(&leader, RuntimeChoice::Process);
    leader.hello_number(1).await;
    let second = config(&leader, &agent.dir.path().join("agent"), RuntimeChoice::Process);
    let second = agent::run(second, Ground::machine(), CancellationToken::new()).await;
    assert!(matches!(second, Err(AgentError::InUse(_))), "{second:?}");
    agent.stop().await.unwrap();
    assert_eq!(leader.goodbyes(), 0, "work goes on, so there is no goodbye");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_was_asked_for_must_answer() {
    let leader = Leader::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&leader, dir.path(), RuntimeChoice::Docker);
    config.docker_socket = Some(dir.path().join("none").display().to_string());
    let error = agent::run(config, Ground::machine(), CancellationToken::new()).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("--runtime process") && text.contains("no such socket"), "{text}");
}
