//! What other rooms call.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;

use super::agents::Agents;
use super::hub::{Hub, HubEvent, Peers};
use super::majority;
use super::planners::Planners;
use super::rebalance;
use super::sessions::{Session, SessionError};
use super::usage::Usage;
use crate::clock::SharedClock;
use crate::consensus::{Consensus, Leadership};
use crate::limits::{HUB_QUEUE_MAX, RPC_MESSAGE_BYTES_MAX, SERVER_SESSIONS_MAX, USAGE_BYTES_MAX};
use crate::model::name::NodeName;
use crate::model::time::Millis;
use crate::observe::metrics::Metrics;
use crate::rpc::v1;
use crate::rpc::v1::agents_server::AgentsServer;

/// Settings of this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// A node whose agent is not heard for longer is lost.
    pub node_timeout: Millis,
    /// How often agents are asked to send a heartbeat.
    pub heartbeat: Millis,
    /// The longest time between two passes of the planners over everything.
    pub full_pass: Millis,
    /// How long a session may take to open.
    pub session_open: Millis,
    /// How often work is moved to where it is better off; zero: never by itself.
    pub rebalance_every: Millis,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_timeout: Millis::from_secs(10),
            heartbeat: Millis::from_secs(2),
            full_pass: Millis::from_secs(30),
            session_open: Millis::from_secs(5),
            rebalance_every: Millis(0),
        }
    }
}

/// The room's handle; clones are the same.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    inner: Arc<Inner>,
}

/// What the room's parts share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) consensus: Consensus,
    /// Without leaders in doubt; see `majority`.
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    pub(super) hub: mpsc::Sender<HubEvent>,
    pub(super) peers: watch::Receiver<Peers>,
    /// Room for sessions through this server.
    pub(super) sessions: Arc<Semaphore>,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// Starts planning (while this server leads) and taking agents, until `stop`. The service is to be
/// added to the server's gRPC door.
pub fn start(
    consensus: Consensus,
    config: Config,
    clock: SharedClock,
    metrics: Metrics,
    stop: CancellationToken,
) -> (ServerHandle, AgentsServer<Agents>) {
    let (hub, events) = mpsc::channel(HUB_QUEUE_MAX);
    let (peers_tx, peers) = watch::channel(Peers::new());
    let tasks = TaskTracker::new();
    let (leadership_tx, leadership) = watch::channel(Leadership::default());
    let doubt_after = majority::doubt_after(config.node_timeout.as_duration());
    tasks.spawn(majority::follow(consensus.clone(), doubt_after, leadership_tx, stop.clone()));
    let owner =
        Hub::new(consensus.clone(), leadership.clone(), config, clock, metrics.clone(), peers_tx);
    tasks.spawn(owner.run(events, stop.clone()));
    let planners = Planners {
        consensus: consensus.clone(),
        leadership: leadership.clone(),
        config,
        metrics: metrics.clone(),
        peers: peers.clone(),
    };
    tasks.spawn(planners.run(stop.clone()));
    if config.rebalance_every > Millis(0) {
        let (every, leadership) = (config.rebalance_every, leadership.clone());
        tasks.spawn(rebalance::run(consensus.clone(), leadership, every, stop.clone()));
    }
    tasks.close();
    let sessions = Arc::new(Semaphore::new(SERVER_SESSIONS_MAX));
    let inner = Arc::new(Inner {
        consensus,
        leadership,
        config,
        metrics,
        hub,
        peers,
        sessions,
        tasks,
        stop,
    });
    let service = AgentsServer::new(Agents { inner: inner.clone() })
        .max_decoding_message_size(RPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(USAGE_BYTES_MAX);
    (ServerHandle { inner }, service)
}

impl ServerHandle {
    /// Who leads, and word of every change; nobody does while a leader has no majority.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Opens a session (logs, exec) with the agent that has the request's allocation, wherever it
    /// is attached.
    ///
    /// # Errors
    /// See [`SessionError`]; after [`Config::session_open`] at the latest.
    pub async fn open_session(&self, request: v1::SessionRequest) -> Result<Session, SessionError> {
        self.inner.open_session(request).await
    }

    /// What agents measured last and when they were heard: of one node, or of all. The leader
    /// knows; another server asks it, but not for long: nothing if it gives no answer.
    pub async fn usage(&self, node: Option<&NodeName>) -> Option<Usage> {
        self.inner.usage(node).await
    }

    /// How many agents are attached to this server.
    pub fn connected(&self) -> usize {
        self.inner.peers.borrow().values().filter(|peer| peer.attached).count()
    }

    /// Waits until everything has ended after `stop`.
    pub async fn stopped(&self) {
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    /// Waits until this server has applied up to `index`.
    pub(super) async fn seen(&self, index: u64) -> Result<(), Status> {
        match self.consensus.views().wait_for(|view| view.applied_index >= index).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Status::unavailable("this server is stopping")),
        }
    }

    /// Asks the hub; no answer comes when this server is stopping.
    pub(super) async fn ask_hub<T>(
        &self,
        event: impl FnOnce(oneshot::Sender<T>) -> HubEvent,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.hub.send(event(reply)).await.ok()?;
        answer.await.ok()
    }
}
