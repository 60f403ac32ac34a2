//! What the room's tasks share: Raft itself and the ways in and out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{Raft, RaftMetrics, ServerState};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::config::{Config, Tuning};
use super::handle::{Leadership, ReadError, View};
use super::log_disk::Identity;
use super::peers::{Answer, Call, CallError, Peers, ZkAddrs};
use super::proposer::Pending;
use super::raft_log::RaftLog;
use super::snapshot_store::SnapshotStore;
use super::state_machine::StateMachine;
use super::types::{StoredMembership, TypeConfig};
use crate::ground::Ground;
use crate::model::server::Server;
use crate::model::time::{Millis, Timestamp};
use crate::observe::metrics::Metrics;

/// Someone who waits for a linearizable view.
pub(super) type Reader = oneshot::Sender<Result<View, ReadError>>;

/// Checksums of the state at the last checkpoints, oldest first.
pub(super) type Checksums = VecDeque<(u64, u64)>;

pub(super) struct Core {
    pub(super) me: Server,
    pub(super) config: Config,
    pub(super) raft: Raft<TypeConfig, StateMachine>,
    pub(super) log: RaftLog,
    pub(super) snapshots: SnapshotStore,
    pub(super) views: watch::Receiver<View>,
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) checksums: watch::Receiver<Checksums>,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) proposals: mpsc::Sender<Pending>,
    pub(super) proposal_bytes: Arc<Semaphore>,
    pub(super) readers: mpsc::Sender<Reader>,
    pub(super) fatal: watch::Sender<Option<String>>,
    pub(super) identity: Mutex<Identity>,
    /// The same as in `identity`, for the transport.
    pub(super) cluster_id: Arc<AtomicU64>,
    /// When a leader was last heard.
    pub(super) heard: Mutex<Instant>,
    /// A line on which a leader spoke was cut.
    pub(super) line_ended: Notify,
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) ground: Ground,
    /// The state's time as this server began to lead, and when that was; see `state_time`.
    pub(super) led_from: Mutex<Option<(Timestamp, Instant)>>,
    pub(super) metrics: Metrics,
    /// Told to whoever asks for this server's state.
    pub(super) zk_addrs: OnceLock<ZkAddrs>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Core {
    pub(super) fn tuning(&self) -> &Tuning {
        &self.config.tuning
    }

    /// Looks at Raft's own figures.
    pub(super) fn raft_metrics<T>(&self, look: impl FnOnce(&RaftMetrics<TypeConfig>) -> T) -> T {
        look(&self.raft.metrics().borrow_watched())
    }

    /// The members, the newest set there is, committed or not.
    pub(super) fn membership(&self) -> Arc<StoredMembership> {
        self.raft_metrics(|metrics| metrics.membership_config.clone())
    }

    /// All members.
    pub(super) fn members(&self) -> Vec<Server> {
        let membership = self.membership();
        let servers = membership.nodes().filter_map(|(id, member)| member.server(*id).ok());
        servers.collect()
    }

    pub(super) fn leads(&self) -> bool {
        self.raft_metrics(|metrics| metrics.state == ServerState::Leader)
    }

    /// The newest view.
    pub(super) fn view(&self) -> View {
        self.views.borrow().clone()
    }

    /// The leader, if it is another server.
    pub(super) fn other_leader(&self) -> Option<Server> {
        let leader = self.leadership.borrow().leader.clone();
        leader.filter(|leader| leader.id != self.me.id)
    }

    /// The time of day as this server began to lead, but never behind the state's, and always going
    /// on: a leader before this one may have had a clock that was ahead, and a clock that is set
    /// while this one leads would stop every deadline, or let it pass at once.
    pub(super) fn state_time(&self) -> Timestamp {
        match *self.led_from.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((at, since)) => at + millis(since.elapsed()),
            None => self.ground.clock.now(),
        }
    }

    /// Finds out which time it is to the state, as this server begins to lead.
    pub(super) fn take_over_time(&self) {
        let at = self.view().state.stamp().at.max(self.ground.clock.now());
        let from = Some((at, Instant::now()));
        *self.led_from.lock().unwrap_or_else(PoisonError::into_inner) = from;
    }

    pub(super) async fn ask(
        &self,
        server: &Server,
        call: Call,
        passed_on: bool,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        self.peers.call(&server.rpc_addr, server.id, call, passed_on, timeout).await
    }

    /// Changes what is known of this server's identity, durably.
    pub(super) async fn change_identity(&self, change: impl FnOnce(&mut Identity)) {
        let mut changed = self.identity();
        change(&mut changed);
        if changed == self.identity() {
            return;
        }
        if let Err(error) = self.log.save_identity(changed).await {
            self.fail(format!("this server's identity can't be kept: {error}"));
        }
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = changed;
        self.cluster_id.store(changed.cluster_id, Ordering::Relaxed);
    }

    pub(super) fn identity(&self) -> Identity {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a leader was last heard.
    pub(super) fn heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A leader is heard now.
    pub(super) fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// The server can't go on: whoever runs it is told why.
    pub(super) fn fail(&self, message: String) {
        self.fatal.send_if_modified(|known| {
            if known.is_some() {
                return false;
            }
            tracing::error!("{message}");
            *known = Some(message);
            true
        });
    }

    /// Why nothing can be done here any more.
    pub(super) fn why_stopping(&self) -> Option<String> {
        let asked = || self.stopping.is_cancelled().then(|| "it was asked to".to_owned());
        self.fatal.borrow().clone().or_else(asked)
    }

    /// Waits until this server has applied `index`.
    pub(super) async fn applied(&self, index: u64) -> Result<View, ReadError> {
        let mut views = self.views.clone();
        let view = views.wait_for(|view| view.applied_index >= index).await;
        view.map(|view| view.clone()).map_err(|_| ReadError::Stopping("it has failed".to_owned()))
    }

    /// Waits until who leads changes, at most for `pause`.
    pub(super) async fn leader_change(&self, pause: Duration) {
        let mut leadership = self.leadership.clone();
        leadership.mark_unchanged();
        let _ = tokio::time::timeout(pause, leadership.changed()).await;
    }
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
