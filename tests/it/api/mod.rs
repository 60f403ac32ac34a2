//! The API over a real state, without a process: one server on a temporary directory, agents
//! that are made up.

mod aloud;
mod deployments;
mod drain;
mod endpoints;
mod events;
mod requests;
mod routes;
mod streams;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures::FutureExt;
use futures::future::BoxFuture;
use orch::api::{Agents, Context, router};
use orch::clock::SystemClock;
use orch::consensus::{Config, Consensus, Tuning};
use orch::ground::Ground;
use orch::model::allocation::{AllocReport, AllocStatus, Health};
use orch::model::name::NodeName;
use orch::model::node::NodeSpec;
use orch::model::resources::Resources;
use orch::model::time::Millis;
use orch::observe::metrics::Metrics;
use orch::planner::{Inputs, Scope, plan};
use orch::rpc::v1::{AllocUsage, NodeStats, SessionFrame, SessionRequest};
use orch::server::{NodeInfo, Session, SessionError, Usage};
use orch::state::{Command, State};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tower::ServiceExt;

/// For whatever a test waits for; far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// The agent's side of a session.
struct Opened {
    request: SessionRequest,
    feed: mpsc::Sender<SessionFrame>,
    heard: mpsc::Receiver<SessionFrame>,
}

/// Agents that do what a test says.
#[derive(Debug, Clone)]
struct MadeUpAgents {
    opened: Arc<Mutex<Option<mpsc::UnboundedSender<Opened>>>>,
}

impl Agents for MadeUpAgents {
    fn open_session(
        &self,
        request: SessionRequest,
    ) -> BoxFuture<'_, Result<Session, SessionError>> {
        let opened = self.opened.lock().unwrap().clone();
        async move {
            let node: NodeName = request.node.parse().unwrap();
            let Some(opened) = opened else { return Err(SessionError::NotConnected { node }) };
            let (to, heard) = mpsc::channel(64);
            let (feed, from) = mpsc::channel(64);
            opened.send(Opened { request, feed, heard }).unwrap();
            Ok(Session { to, from })
        }
        .boxed()
    }

    fn usage<'a>(&'a self, node: Option<&'a NodeName>) -> BoxFuture<'a, Option<Usage>> {
        assert_ne!(node.map(NodeName::as_str), Some("panic"), "as a test asked for");
        let allocs = [(1, 0.5), (2, 1.5)];
        let allocs = allocs.map(|(alloc, cpu)| AllocUsage {
            alloc,
            cpu,
            memory: 7,
            ..AllocUsage::default()
        });
        let stats = NodeStats { memory_used: 5, allocs: allocs.into(), ..NodeStats::default() };
        let info = |silent| NodeInfo {
            stats: Some(stats.clone()),
            silent: Millis(silent),
            connected: true,
        };
        let nodes = [("n1", 100), ("n2", 60_000)];
        let nodes = nodes.map(|(name, silent)| (name.parse().unwrap(), info(silent)));
        let usage = Usage { heartbeat: Millis(2000), nodes: nodes.into() };
        async move { Some(usage) }.boxed()
    }
}

struct TestApi {
    context: Context,
    router: Router,
    sessions: mpsc::UnboundedReceiver<Opened>,
    agents: MadeUpAgents,
    _directory: TempDir,
}

impl TestApi {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let consensus = within(one_server(directory.path())).await;
        let (opened, sessions) = mpsc::unbounded_channel();
        let agents = MadeUpAgents { opened: Arc::new(Mutex::new(Some(opened))) };
        let metrics = Metrics::new().unwrap();
        let shared: Arc<dyn Agents> = Arc::new(agents.clone());
        let context = Context::new(consensus, shared, metrics, SystemClock::shared());
        let router = router(context.clone());
        Self { context, router, sessions, agents, _directory: directory }
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Request<Body> {
        let mut request = Request::builder().method(method.parse::<Method>().unwrap()).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body).unwrap()
    }

    async fn answer(&self, request: Request<Body>) -> axum::response::Response {
        within(self.router.clone().oneshot(request)).await.unwrap()
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Reply {
        let response = self.answer(Self::request(method, path, headers, body.into())).await;
        let (parts, body) = response.into_parts();
        let body = within(axum::body::to_bytes(body, usize::MAX)).await.unwrap().to_vec();
        Reply { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], Body::empty()).await
    }

    async fn json(&self, method: &str, path: &str, body: Value) -> Reply {
        self.send(method, path, &[("content-type", "application/json")], body.to_string()).await
    }

    async fn submit(&self, file: &str) -> Reply {
        let headers = [("content-type", "application/yaml")];
        self.send("POST", "/v1/jobs", &headers, file.to_owned()).await
    }

    async fn put(&self, path: &str, value: &str) -> Reply {
        self.send("PUT", &format!("/v1/variables/{path}"), &[], value.to_owned()).await
    }

    async fn propose(&self, command: Command) {
        within(self.context.consensus.propose(command.into())).await.unwrap();
    }

    fn state(&self) -> Arc<State> {
        self.context.consensus.views().borrow().state.clone()
    }

    async fn node(&self, name: &str) {
        let spec = NodeSpec {
            name: name.parse().unwrap(),
            agent_id: 1,
            address: "127.0.0.1".into(),
            class: "web".into(),
            attributes: [("zone".to_owned(), "a".to_owned())].into(),
            resources: Resources { cpu_milli: 4000, memory: 8 << 30, disk: 100 << 30, gpu: 0 },
            runtimes: ["docker", "process"].map(str::to_owned).into(),
            volume_roots: vec!["/srv".into()],
            port_range: (20_000, 32_000),
            version: "0.1.0".into(),
        };
        self.propose(Command::RegisterNode { spec }).await;
    }

    /// One look of the planners, carried out.
    async fn plan(&self) {
        let inputs = Inputs {
            now: self.context.clock.now(),
            last_heard: Default::default(),
            node_timeout: Millis::from_secs(10),
        };
        let scope = Scope { all: true, ..Scope::default() };
        for command in plan(&self.state(), &inputs, &scope).commands {
            self.propose(command).await;
        }
    }

    /// Every agent says that all it has is running well.
    async fn all_run(&self) {
        let state = self.state();
        for alloc in state.allocs().filter(|alloc| !alloc.ended()) {
            let spec = state.job(&alloc.job).unwrap().spec_of(alloc.version).clone();
            let task = orch::model::allocation::TaskState {
                container_id: Some(format!("c{}", alloc.id.0)),
                started_at: Some(self.context.clock.now()),
                ..Default::default()
            };
            let report = AllocReport {
                id: alloc.id,
                generation: alloc.grant.generation,
                status: AllocStatus::Running,
                health: Health::Healthy,
                ready: true,
                tasks: spec.tasks.iter().map(|t| (t.name.clone(), task.clone())).collect(),
                message: String::new(),
            };
            let (node, agent_id) = (alloc.node.clone(), 1);
            self.propose(Command::ReportAllocs { node, agent_id, reports: vec![report] }).await;
        }
    }

    /// Serves on the loopback, for what needs a connection; the address comes back.
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(orch::api::serve(Box::new(listener), self.context.clone()));
        address
    }
}

async fn one_server(directory: &Path) -> Consensus {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config {
        data_dir: directory.to_owned(),
        name: "s1".parse().unwrap(),
        rpc_addr: listener.local_addr().unwrap().to_string(),
        api_addr: "127.0.0.1:7400".into(),
        join: Vec::new(),
        tuning: Tuning::default(),
    };
    let (ground, metrics) = (Ground::machine(), Metrics::new().unwrap());
    let (consensus, services) = Consensus::open(config, ground, metrics).await.unwrap();
    tokio::spawn(async move {
        let incoming = TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .add_service(services.raft)
            .add_service(services.cluster);
        let _ = server.serve_with_incoming(incoming).await;
    });
    consensus.start().await.unwrap();
    consensus
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    #[track_caller]
    fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text());
        self
    }

    /// Checks that it is a problem of that status and code, whole; its detail comes back.
    #[track_caller]
    fn problem(&self, status: u16, code: &str) -> String {
        let text = self.text();
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{text}");
        let value = self.value();
        assert_eq!(value["status"], status, "{text}");
        assert_eq!(value["code"], code, "{text}");
        assert_eq!(value["type"], format!("urn:orch:problem:{code}"), "{text}");
        assert!(!value["title"].as_str().unwrap().is_empty(), "{text}");
        value["detail"].as_str().unwrap().to_owned()
    }
}

/// Without a time for which a replica must have been ready: these tests have no patience.
const WEB: &str =
    "job: web\nreplicas: 2\nimage: nginx:1\nports: { http: 80 }\nupdate: { min_healthy: 0s }\n";
