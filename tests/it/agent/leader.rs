//! A leader that says what each test says, and remembers what agents said.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::Stream;
use orch::model::allocation::{AllocReport, Assignment};
use orch::model::node::NodeSpec;
use orch::rpc;
use orch::rpc::v1::agents_server::{Agents, AgentsServer};
use orch::rpc::v1::{
    FromAgent, HeartbeatReply, Hello, OpenSession, Orders, ReportsAck, SessionFrame,
    SessionRequest, StopOrder, Sync, ToAgent, Welcome, from_agent, session_frame, to_agent,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub const CLUSTER: u64 = 0xc1;

#[derive(Default)]
struct Inner {
    hellos: Vec<(Hello, NodeSpec)>,
    reports: BTreeMap<u64, AllocReport>,
    /// Reports on each allocation so far.
    said: BTreeMap<u64, usize>,
    goodbyes: usize,
    heartbeats: usize,
    sync: Sync,
    line: Option<mpsc::Sender<Result<ToAgent, Status>>>,
    acknowledges: bool,
    term: u64,
    leader: Option<String>,
    sessions: BTreeMap<u64, mpsc::Sender<SessionEnds>>,
}

pub struct SessionEnds {
    pub to: mpsc::Sender<Result<SessionFrame, Status>>,
    pub from: Streaming<SessionFrame>,
}

#[derive(Clone)]
pub struct Leader {
    inner: Arc<Mutex<Inner>>,
    pub address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Leader {
    fn drop(&mut self) {
        if Arc::strong_count(&self.inner) <= 2 {
            self.stop.cancel();
        }
    }
}

impl Leader {
    /// Listens; welcomes whoever attaches, in the first term.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    pub async fn start_at(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let inner = Inner { acknowledges: true, term: 1, ..Inner::default() };
        let leader = Self {
            inner: Arc::new(Mutex::new(inner)),
            address: listener.local_addr().unwrap(),
            stop: CancellationToken::new(),
        };
        let (service, stop) = (Service(leader.inner.clone()), leader.stop.clone());
        tokio::spawn(async move {
            let serve = tonic::transport::Server::builder()
                .add_service(AgentsServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener));
            tokio::select! {
                served = serve => served.unwrap(),
                () = stop.cancelled() => {}
            }
        });
        leader
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Sends every agent to another leader.
    pub fn point_to(&self, leader: SocketAddr) {
        self.inner().leader = Some(leader.to_string());
    }

    /// Takes agents in once more.
    pub fn lead(&self) {
        self.inner().leader = None;
    }

    pub fn set_term(&self, term: u64) {
        self.inner().term = term;
    }

    pub fn set_acknowledges(&self, acknowledges: bool) {
        self.inner().acknowledges = acknowledges;
    }

    /// What an agent that attaches from now on is told.
    pub fn assign(&self, run: &[Assignment]) {
        self.inner().sync.run = run.iter().map(packed).collect();
    }

    /// What an agent that attaches from now on is told to stop.
    pub fn assign_stops(&self, stop: &[(u64, u64)]) {
        let stop = stop
            .iter()
            .map(|(alloc, generation)| StopOrder { alloc: *alloc, generation: *generation });
        self.inner().sync.stop = stop.collect();
    }

    pub fn hellos(&self) -> Vec<(Hello, NodeSpec)> {
        self.inner().hellos.clone()
    }

    pub fn goodbyes(&self) -> usize {
        self.inner().goodbyes
    }

    pub fn report(&self, alloc: u64) -> Option<AllocReport> {
        self.inner().reports.get(&alloc).cloned()
    }

    pub fn said(&self, alloc: u64) -> usize {
        self.inner().said.get(&alloc).copied().unwrap_or_default()
    }

    pub fn forget_reports(&self) {
        self.inner().reports.clear();
    }

    /// Sends orders on the line that is up.
    pub async fn order(&self, run: &[Assignment], stop: &[(u64, u64)], forget: &[u64]) {
        let stop = stop
            .iter()
            .map(|(alloc, generation)| StopOrder { alloc: *alloc, generation: *generation });
        let orders = Orders {
            run: run.iter().map(packed).collect(),
            stop: stop.collect(),
            forget: forget.to_vec(),
        };
        self.send(to_agent::Message::Orders(orders)).await;
    }

    /// Breaks the line.
    pub fn hang_up(&self) {
        self.inner().line = None;
    }

    async fn send(&self, message: to_agent::Message) {
        let line = self.wait("a line", |inner| inner.line.clone()).await;
        line.send(Ok(ToAgent { message: Some(message) })).await.unwrap();
    }

    /// Opens a session.
    pub async fn open(&self, session: u64, request: SessionRequest) -> SessionEnds {
        let (there, mut ends) = mpsc::channel(1);
        self.inner().sessions.insert(session, there);
        let open = OpenSession { session, request: Some(request) };
        self.send(to_agent::Message::OpenSession(open)).await;
        tokio::time::timeout(Duration::from_secs(20), ends.recv()).await.unwrap().unwrap()
    }

    async fn wait<T>(&self, what: &str, probe: impl Fn(&Inner) -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let found = probe(&self.inner());
            match found {
                Some(found) => return found,
                None if tokio::time::Instant::now() > end => {
                    panic!("waited for {what}; reports: {:#?}", self.inner().reports)
                }
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Waits for a report on an allocation that will do.
    pub async fn report_that(
        &self,
        alloc: u64,
        what: &str,
        fits: impl Fn(&AllocReport) -> bool,
    ) -> AllocReport {
        let probe = |inner: &Inner| inner.reports.get(&alloc).filter(|r| fits(r)).cloned();
        self.wait(&format!("a{alloc}: {what}"), probe).await
    }

    pub async fn hello_number(&self, count: usize) -> (Hello, NodeSpec) {
        let probe = |inner: &Inner| inner.hellos.get(count - 1).cloned();
        self.wait(&format!("hello number {count}"), probe).await
    }

    pub async fn heartbeats(&self, count: usize) {
        let probe = |inner: &Inner| (inner.heartbeats >= count).then_some(());
        self.wait("heartbeats", probe).await;
    }

    /// Heartbeats so far.
    pub fn heard(&self) -> usize {
        self.inner().heartbeats
    }

    pub async fn goodbye(&self) {
        self.wait("goodbye", |inner| (inner.goodbyes > 0).then_some(())).await;
    }
}

fn packed(assignment: &Assignment) -> bytes::Bytes {
    rpc::pack(assignment).unwrap().into()
}

struct Service(Arc<Mutex<Inner>>);

type Answers<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Agents for Service {
    async fn usage(
        &self,
        _: Request<orch::rpc::v1::UsageRequest>,
    ) -> Result<Response<orch::rpc::v1::UsageReply>, Status> {
        Err(Status::unimplemented("no server asks this one"))
    }

    type AttachStream = Answers<ToAgent>;
    type SessionStream = Answers<SessionFrame>;
    type RelayStream = Answers<SessionFrame>;

    async fn attach(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut incoming = request.into_inner();
        let Some(FromAgent { message: Some(from_agent::Message::Hello(hello)) }) =
            incoming.message().await?
        else {
            return Err(Status::invalid_argument("no hello"));
        };
        let spec = rpc::unpack(&hello.node).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let (line, queue) = mpsc::channel(64);
        let message = |message| Ok(ToAgent { message: Some(message) });
        {
            let mut inner = self.0.lock().unwrap();
            if let Some(leader) = &inner.leader {
                let mut status = Status::failed_precondition("not the leader");
                status.metadata_mut().insert("orch-leader", leader.parse().unwrap());
                return Err(status);
            }
            inner.hellos.push((hello, spec));
            let welcome = Welcome {
                cluster_id: CLUSTER,
                term: inner.term,
                heartbeat_millis: 200,
                servers: Vec::new(),
            };
            line.try_send(message(to_agent::Message::Welcome(welcome))).unwrap();
            line.try_send(message(to_agent::Message::Sync(inner.sync.clone()))).unwrap();
            inner.line = Some(line.clone());
        }
        let (inner, weak) = (self.0.clone(), line.downgrade());
        drop(line);
        tokio::spawn(async move {
            while let Ok(Some(FromAgent { message: Some(said) })) = incoming.message().await {
                let answer = {
                    let mut inner = inner.lock().unwrap();
                    match said {
                        from_agent::Message::Heartbeat(beat) => {
                            inner.heartbeats += 1;
                            let reply = HeartbeatReply { sequence: beat.sequence };
                            Some(to_agent::Message::Heartbeat(reply))
                        }
                        from_agent::Message::Reports(reports) => {
                            for report in &reports.reports {
                                let report: AllocReport = rpc::unpack(report).unwrap();
                                *inner.said.entry(report.id.0).or_default() += 1;
                                inner.reports.insert(report.id.0, report);
                            }
                            let ack = ReportsAck { sequence: reports.sequence };
                            inner.acknowledges.then_some(to_agent::Message::ReportsAck(ack))
                        }
                        from_agent::Message::Goodbye(_) => {
                            inner.goodbyes += 1;
                            inner.line = None;
                            None
                        }
                        from_agent::Message::Hello(_) => None,
                    }
                };
                if let (Some(answer), Some(line)) = (answer, weak.upgrade()) {
                    let _ = line.send(Ok(ToAgent { message: Some(answer) })).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn session(
        &self,
        request: Request<Streaming<SessionFrame>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut from = request.into_inner();
        let Some(SessionFrame { frame: Some(session_frame::Frame::Session(session)) }) =
            from.message().await?
        else {
            return Err(Status::invalid_argument("no session"));
        };
        let there = self.0.lock().unwrap().sessions.remove(&session);
        let there = there.ok_or_else(|| Status::not_found("no such session"))?;
        let (to, queue) = mpsc::channel(16);
        let _ = there.send(SessionEnds { to, from }).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn relay(
        &self,
        _: Request<Streaming<SessionFrame>>,
    ) -> Result<Response<Self::RelayStream>, Status> {
        Err(Status::unimplemented("agents are not asked to relay"))
    }
}
