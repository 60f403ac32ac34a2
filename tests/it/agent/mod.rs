//! The agent against a leader that says what each test says: with the real engine and real
//! processes.

mod checks;
mod containers;
mod leaving;
mod leader;
mod line;
mod processes;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use orch::agent::{self, AgentError, RuntimeChoice};
use orch::ground::Ground;
use orch::model::allocation::{Assignment, Grant};
use orch::model::job::{JobKind, JobSpec, PullPolicy, TaskRuntime, TaskSpec};
use orch::model::name::{AllocId, NodeName};
use orch::rpc::v1::session_frame::Frame;
use orch::rpc::v1::session_request::Kind;
use orch::rpc::v1::{LogsRequest, SessionRequest};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::docker::docker;
use leader::{Leader, SessionEnds};

/// An agent in this process. What it runs is ended when it is dropped.
pub struct Agent {
    pub name: NodeName,
    pub dir: Arc<tempfile::TempDir>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), AgentError>>,
}

static NODES: AtomicU64 = AtomicU64::new(1);

pub fn config(leader: &Leader, dir: &Path, runtime: RuntimeChoice) -> agent::Config {
    let number = NODES.fetch_add(1, Ordering::Relaxed);
    let name = format!("it-{}-{number}", std::process::id()).parse().unwrap();
    agent::Config {
        runtime,
        program: Some(env!("CARGO_BIN_EXE_orch").into()),
        ..agent::Config::new(name, dir.to_owned(), vec![leader.address.to_string()])
    }
}

impl Agent {
    pub fn start(leader: &Leader, runtime: RuntimeChoice) -> Self {
        Self::start_with(leader, runtime, |_| {})
    }

    pub fn start_with(
        leader: &Leader,
        runtime: RuntimeChoice,
        change: impl FnOnce(&mut agent::Config),
    ) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut config = config(leader, &dir.path().join("agent"), runtime);
        change(&mut config);
        Self::run(config, dir)
    }

    fn run(config: agent::Config, dir: Arc<tempfile::TempDir>) -> Self {
        let stop = CancellationToken::new();
        let name = config.name.clone();
        let task = tokio::spawn(agent::run(config, Ground::machine(), stop.clone()));
        Self { name, dir, stop, task }
    }

    /// The agent is gone at once, without a chance to say or write anything; another one takes
    /// its place on the same data directory.
    pub async fn again(mut self, leader: &Leader, runtime: RuntimeChoice) -> Self {
        self.task.abort();
        let _ = (&mut self.task).await;
        // Its tasks let go of the data directory when they are dropped.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let mut config = config(leader, &self.dir.path().join("agent"), runtime);
        config.name = self.name.clone();
        Self::run(config, self.dir.clone())
    }

    /// An orderly stop.
    pub async fn stop(mut self) -> Result<(), AgentError> {
        self.stop.cancel();
        (&mut self.task).await.unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
        if Arc::strong_count(&self.dir) > 1 {
            return;
        }
        let node = format!("label=orch.node={}", self.name);
        if let Ok(ids) = docker(&["ps", "--all", "--quiet", "--filter", &node]) {
            for id in ids.lines() {
                let _ = docker(&["rm", "--force", "--volumes", id]);
            }
        }
        processes::end_all(&self.dir.path().join("agent/tasks"));
    }
}

pub fn shell(script: &str) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()]
}

pub fn task(name: &str, runtime: TaskRuntime, command: Vec<String>) -> TaskSpec {
    TaskSpec {
        command,
        stop_grace: orch::model::time::Millis(2000),
        ..TaskSpec::new(name.parse().unwrap(), runtime)
    }
}

pub fn image(name: &str) -> TaskRuntime {
    TaskRuntime::Docker { image: name.to_owned(), pull: PullPolicy::Missing, registry: None }
}

pub fn service(id: u64, tasks: Vec<TaskSpec>) -> Assignment {
    let spec = JobSpec::new("web".parse().unwrap(), JobKind::Service { replicas: 1 }, tasks);
    Assignment {
        id: AllocId(id),
        version: 1,
        index: 0,
        grant: Grant { generation: 1, ..Grant::default() },
        spec: Arc::new(spec),
    }
}

pub fn batch(id: u64, tasks: Vec<TaskSpec>) -> Assignment {
    let mut assignment = service(id, tasks);
    Arc::make_mut(&mut assignment.spec).kind = JobKind::once(None);
    assignment
}

/// A port of the host that nobody has now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// All lines of an allocation's log as text.
pub async fn log_of(leader: &Leader, alloc: u64, request: LogsRequest) -> Vec<String> {
    static SESSIONS: AtomicU64 = AtomicU64::new(1000);
    let session = SESSIONS.fetch_add(1, Ordering::Relaxed);
    let request =
        SessionRequest { alloc, kind: Some(Kind::Logs(request)), ..SessionRequest::default() };
    let mut ends = leader.open(session, request).await;
    let mut lines = Vec::new();
    loop {
        match next(&mut ends).await {
            Frame::Logs(logs) => lines.extend(
                logs.lines.iter().map(|line| String::from_utf8_lossy(&line.text).into_owned()),
            ),
            Frame::Exit(_) => return lines,
            other => panic!("{other:?}"),
        }
    }
}

pub async fn next(ends: &mut SessionEnds) -> Frame {
    let frame = tokio::time::timeout(std::time::Duration::from_secs(20), ends.from.message());
    frame.await.unwrap().unwrap().unwrap().frame.unwrap()
}
