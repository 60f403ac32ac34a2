//! The server room with agents that speak gRPC and do what each test says.

mod agents;
mod fake_agent;
mod nodes;
mod sessions;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use orch::clock::SystemClock;
use orch::consensus::{Consensus, Tuning};
use orch::ground::Ground;
use orch::model::job::{JobKind, JobSpec, TaskRuntime, TaskSpec};
use orch::model::time::Millis;
use orch::observe::metrics::Metrics;
use orch::server::{Config, ServerHandle};
use orch::state::{Command, Reply, State};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::server::TcpIncoming;

/// Waits for a bounded time: what takes longer here never comes.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("what was waited for did not come"),
    }
}

pub struct Member {
    pub consensus: Consensus,
    pub handle: ServerHandle,
    pub metrics: Metrics,
    pub addr: String,
    _stop: DropGuard,
    _data: tempfile::TempDir,
}

impl Member {
    /// Waits until this server's state is as wanted.
    pub async fn state(&self, wanted: impl Fn(&State) -> bool) -> Arc<State> {
        let mut views = self.consensus.views();
        within(views.wait_for(|view| wanted(&view.state))).await.unwrap().state.clone()
    }

    pub async fn propose(&self, command: Command) -> Reply {
        within(self.consensus.propose(command.into())).await.unwrap().reply
    }

    /// Submits the job `web` with that many replicas.
    pub async fn run(&self, replicas: u32) {
        let spec = Arc::new(job(replicas));
        self.propose(Command::SubmitJob { spec, if_version: None }).await;
    }
}

/// No node is lost in a test that is not about it.
pub fn config() -> Config {
    Config { node_timeout: Millis::from_secs(600), ..Config::default() }
}

pub async fn one(config: Config) -> Member {
    let mut members = cluster(1, config).await;
    members.remove(0)
}

/// Servers of one cluster; the first leads.
pub async fn cluster(count: usize, config: Config) -> Vec<Member> {
    let mut members: Vec<Member> = Vec::new();
    for number in 1..=count {
        let join = members.iter().map(|member| member.addr.clone()).collect();
        members.push(member(number, join, config).await);
    }
    let mut ready = members[0].consensus.leadership();
    within(ready.wait_for(|now| now.ready)).await.unwrap();
    for member in &members {
        let mut leadership = member.consensus.leadership();
        within(leadership.wait_for(|now| now.leader.is_some())).await.unwrap();
        member.state(|state| state.cluster_id() != 0).await;
    }
    members
}

async fn member(number: usize, join: Vec<String>, config: Config) -> Member {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let metrics = Metrics::new().unwrap();
    let (ground, clock) = (Ground::machine(), SystemClock::shared());
    let consensus_config = orch::consensus::Config {
        data_dir: data.path().to_owned(),
        name: format!("s{number}").parse().unwrap(),
        rpc_addr: addr.clone(),
        api_addr: addr.clone(),
        join,
        tuning: Tuning::default(),
    };
    let (consensus, services) =
        Consensus::open(consensus_config, ground, metrics.clone()).await.unwrap();
    let stop = CancellationToken::new();
    let (handle, agents) =
        orch::server::start(consensus.clone(), config, clock, metrics.clone(), stop.clone());
    let door = tonic::transport::Server::builder()
        .add_service(services.raft)
        .add_service(services.cluster)
        .add_service(agents)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.clone().cancelled_owned(),
        );
    tokio::spawn(door);
    within(consensus.start()).await.unwrap();
    Member { consensus, handle, metrics, addr, _stop: stop.drop_guard(), _data: data }
}

pub fn job(replicas: u32) -> JobSpec {
    let task = TaskSpec {
        command: vec!["sleep".into(), "1d".into()],
        ..TaskSpec::new("web".parse().unwrap(), TaskRuntime::Process)
    };
    JobSpec::new("web".parse().unwrap(), JobKind::Service { replicas }, vec![task])
}
