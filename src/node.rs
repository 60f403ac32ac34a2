//! Composition root: starts a process's parts in order, stops them in reverse.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::agent;
use crate::api;
use crate::config::{Process, ServerPart};
use crate::consensus::{self, Consensus, Storage};
use crate::ground::Ground;
use crate::limits::{RPC_CONNECTION_WINDOW_BYTES, RPC_STREAM_WINDOW_BYTES};
use crate::migrate;
use crate::net::{self, Listener};
use crate::observe::metrics::{self, Metrics};
use crate::server;
use crate::zookeeper::endpoint as zookeeper;

/// Why a process can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A port is taken or not allowed.
    #[error("can't listen on {addr} for {what}: {source}; choose another with --{flag}")]
    Listen {
        /// What for.
        what: &'static str,
        /// The flag that names it.
        flag: &'static str,
        /// Where.
        addr: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The log or the snapshots.
    #[error(transparent)]
    Open(#[from] consensus::OpenError),
    /// Files for the encrypted connections of ZooKeeper's clients.
    #[error(transparent)]
    Tls(#[from] crate::zookeeper::tls::TlsError),
    /// Founding, joining or coming back to the cluster.
    #[error(transparent)]
    Start(#[from] consensus::StartError),
    /// The server can't go on.
    #[error("this server stopped itself: {0}")]
    Fatal(String),
    /// The agent can't start or go on.
    #[error(transparent)]
    Agent(#[from] agent::AgentError),
    /// Signals can't be followed.
    #[error("can't follow signals: {0}")]
    Signals(std::io::Error),
    /// A metric's name is used twice.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// A part ended that should not.
    #[error("{0} ended by itself; see the log above")]
    Ended(&'static str),
    /// The operator would not wait.
    #[error("stopped at once, as asked a second time")]
    StoppedAtOnce,
}

/// What the operator asks of a running process.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// End in order: hand leadership over, leave work running.
    pub orderly: CancellationToken,
    /// End now.
    pub now: CancellationToken,
}

/// Runs the parts of `process` until asked to stop; `started` is called once all of them work.
///
/// # Errors
/// See [`NodeError`].
pub async fn run(process: Process, stop: Stop, started: impl FnOnce()) -> Result<(), NodeError> {
    let now = stop.now.clone();
    tokio::select! {
        ended = run_parts(process, stop.orderly, started) => ended,
        () = now.cancelled() => Err(NodeError::StoppedAtOnce),
    }
}

async fn run_parts(
    process: Process,
    stop: CancellationToken,
    started: impl FnOnce(),
) -> Result<(), NodeError> {
    let ground = Ground::machine();
    let metrics = Metrics::new()?;
    let server = match process.server {
        Some(part) => Some(Server::start(part, ground.clone(), metrics, &stop).await?),
        None => None,
    };
    let agent_stop = CancellationToken::new();
    let mut agent =
        process.agent.map(|config| tokio::spawn(agent::run(config, ground, agent_stop.clone())));
    started();

    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = wait_agent(&mut agent) => Err(ended),
        ended = wait_server(server.as_ref()) => Err(ended),
    };
    // In reverse: the agent says goodbye while there still is a server to say it to.
    agent_stop.cancel();
    if let Some(agent) = agent
        && !agent.is_finished()
    {
        match agent.await {
            Ok(Err(error)) => tracing::warn!("the agent ended badly: {error}"),
            Err(error) => tracing::warn!("the agent ended badly: {error}"),
            Ok(Ok(())) => {}
        }
    }
    if let Some(server) = server {
        server.stop(ended.is_ok()).await;
    }
    ended
}

async fn wait_agent(agent: &mut Option<JoinHandle<Result<(), agent::AgentError>>>) -> NodeError {
    let Some(running) = agent else { return std::future::pending().await };
    match running.await {
        Ok(Err(error)) => error.into(),
        Ok(Ok(())) | Err(_) => NodeError::Ended("the agent"),
    }
}

async fn wait_server(server: Option<&Server>) -> NodeError {
    let Some(server) = server else { return std::future::pending().await };
    NodeError::Fatal(server.consensus.fatal().await)
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    consensus: Consensus,
    /// Ends planners and the agents' lines.
    planners: CancellationToken,
    /// Ends the listeners.
    doors: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Server {
    async fn start(
        part: ServerPart,
        ground: Ground,
        metrics: Metrics,
        stop: &CancellationToken,
    ) -> Result<Self, NodeError> {
        // Ports first: a server that can't be reached must not touch the log.
        let doors = Doors::open(&part, &ground).await?;
        let (dir, new_id) = (&part.consensus.data_dir, ground.clock.random());
        let storage = Storage::open(dir, new_id, metrics.clone()).await?;
        Self::start_on(storage, doors, part, ground, metrics, stop).await
    }

    /// Starts a server on what `storage` holds; it is done once the server is a member of its
    /// cluster, or `stop` is cancelled.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub async fn start_on(
        storage: Storage,
        Doors { rpc, api }: Doors,
        part: ServerPart,
        ground: Ground,
        metrics: Metrics,
        stop: &CancellationToken,
    ) -> Result<Self, NodeError> {
        let clock = ground.clock.clone();
        let (consensus, services) =
            Consensus::open_on(storage, part.consensus, ground, metrics.clone()).await?;
        let planners = CancellationToken::new();
        let doors = CancellationToken::new();
        let (handle, agents) = server::start(
            consensus.clone(),
            part.server,
            clock.clone(),
            metrics.clone(),
            planners.clone(),
        );
        if let Some(config) = &part.zookeeper {
            let host = consensus.me().api_addr;
            consensus.tell_zk_addrs(config.reached_at(&host));
        }
        // A port that is taken now is tried on: an ensemble may still have it, which is to be
        // replaced.
        let zookeeper = zookeeper::start(
            consensus.clone(),
            handle.leadership(),
            part.zookeeper,
            clock.clone(),
            metrics.clone(),
            doors.clone(),
        )?;
        tokio::spawn(migrate::zookeeper::run(consensus.clone(), planners.clone()));
        let grpc = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(std::time::Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(std::time::Duration::from_secs(10)))
            // All sessions of an agent share a connection: one that nobody reads must leave room.
            .initial_stream_window_size(Some(RPC_STREAM_WINDOW_BYTES))
            .initial_connection_window_size(Some(RPC_CONNECTION_WINDOW_BYTES))
            .add_service(services.raft)
            .add_service(services.cluster)
            .add_service(agents)
            .add_service(zookeeper)
            .serve_with_incoming_shutdown(net::incoming(rpc), doors.clone().cancelled_owned());
        let grpc = tokio::spawn(async move {
            if let Err(error) = grpc.await {
                tracing::error!("the gRPC listener failed: {error}");
            }
        });
        let mut context = api::Context::new(consensus.clone(), Arc::new(handle), metrics, clock);
        context.stop = doors.clone();
        let rest = api::serve(api, context);
        let rest = tokio::spawn(rest);
        let server = Self { consensus, planners, doors, tasks: vec![grpc, rest] };
        let joined = tokio::select! {
            joined = server.consensus.start() => joined,
            // Asked to stop while still looking for the cluster.
            () = stop.cancelled() => Ok(()),
        };
        if let Err(error) = joined {
            server.stop(false).await;
            return Err(error.into());
        }
        Ok(server)
    }

    /// The door to the cluster's state.
    pub fn consensus(&self) -> &Consensus {
        &self.consensus
    }

    /// Stops; in order, leadership is handed over first.
    pub async fn stop(self, orderly: bool) {
        match orderly {
            // Agents are told who leads now when leadership is handed over.
            true => self.consensus.shutdown().await,
            false => self.consensus.stop_at_once().await,
        }
        self.planners.cancel();
        self.doors.cancel();
        for task in self.tasks {
            // Streams of clients that don't let go are cut.
            let most = std::time::Duration::from_secs(2);
            if tokio::time::timeout(most, task).await.is_err() {
                tracing::debug!("a listener was cut off");
            }
        }
    }
}

/// Where a server is reached.
#[derive(Debug)]
pub struct Doors {
    rpc: Listener,
    api: Listener,
}

impl Doors {
    /// Opens them where `part` says.
    ///
    /// # Errors
    /// If a port is taken or not allowed.
    pub async fn open(part: &ServerPart, ground: &Ground) -> Result<Self, NodeError> {
        let rpc = listen(ground, "servers and agents", "rpc-addr", part.rpc_addr).await?;
        let api = listen(ground, "REST", "api-addr", part.api_addr).await?;
        Ok(Self { rpc, api })
    }
}

async fn listen(
    ground: &Ground,
    what: &'static str,
    flag: &'static str,
    addr: SocketAddr,
) -> Result<Listener, NodeError> {
    let listener = ground.net.listen(addr).await;
    listener.map_err(|source| NodeError::Listen { what, flag, addr, source })
}
