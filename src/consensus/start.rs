//! Opening the room, taking part in the cluster, and leaving it in order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use openraft::network::NetSnapshot;
use openraft::{Raft, RaftNetworkFactory};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::channels::Channels;
use super::config::{Config, OpenError, StartError};
use super::core::Core;
use super::directory::{Directory, OsDirectory};
use super::grpc_peers::GrpcPeers;
use super::handle::{Consensus, Leadership, View};
use super::log_disk::{Identity, Loaded, LogDisk};
use super::log_store::{LogOpenError, LogStore};
use super::peers::{Answer, Call, CallError, Peers};
use super::raft_log::RaftLog;
use super::runtime::Offload;
use super::services::Services;
use super::snapshot_store::{SnapshotData, SnapshotStore};
use super::state_machine::{StateMachine, Surroundings};
use super::transport::Transport;
use super::types::{Member, TypeConfig};
use super::{keeper, proposer, reader, succession};
use crate::clock::SharedClock;
use crate::limits::{PROPOSALS_BYTES_MAX, PROPOSALS_MAX, READS_MAX};
use crate::model::server::Server;
use crate::observe::metrics::Metrics;
use crate::state::State;

/// For one answer to a request to join: the leader waits until the new member has caught up.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
const JOIN_PAUSE_MIN: Duration = Duration::from_millis(100);
const JOIN_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Tasks that don't end by then are left behind.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a server stands on: disks and network in life, simulated ones in simulation.
pub struct Parts<N> {
    /// Where the log is kept.
    pub disk: Box<dyn LogDisk>,
    /// What it held.
    pub loaded: Loaded,
    /// Who the server is.
    pub identity: Identity,
    /// Where snapshots are kept.
    pub directory: Arc<dyn Directory>,
    /// The way for Raft's messages.
    pub network: N,
    /// The way for questions.
    pub peers: Arc<dyn Peers>,
    /// The cluster's id, for the network to send along.
    pub cluster_id: Arc<AtomicU64>,
    /// Where long work goes.
    pub offload: Offload,
}

impl Consensus {
    /// Opens the data directory. The services must be reachable at the advertised address before
    /// [`Consensus::start`] is called.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        config: Config,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Result<(Self, Services), OpenError> {
        let (new_id, log_dir) = (clock.random(), config.data_dir.join("raft"));
        let (snapshot_dir, log_metrics) = (config.data_dir.join("snapshots"), metrics.clone());
        let failed = |error: &dyn std::fmt::Display| OpenError::State(error.to_string());
        let opened = tokio::task::spawn_blocking(move || {
            let opened = LogStore::open(&log_dir, new_id, log_metrics)?;
            let directory = OsDirectory::open(&snapshot_dir)
                .map_err(|error| LogOpenError::Io { dir: snapshot_dir, error })?;
            Ok::<_, LogOpenError>((opened, directory))
        });
        let (opened, directory) = opened.await.map_err(|error| failed(&error))??;
        let cluster_id = Arc::new(AtomicU64::new(opened.identity.cluster_id));
        let channels = Channels::default();
        let peers = GrpcPeers { channels: channels.clone(), cluster_id: cluster_id.clone() };
        let parts = Parts {
            disk: Box::new(opened.store),
            loaded: opened.loaded,
            identity: opened.identity,
            directory: Arc::new(directory),
            network: Transport { channels, cluster_id: cluster_id.clone() },
            peers: Arc::new(peers),
            cluster_id,
            offload: Offload::Threads,
        };
        let consensus = Self::open_on(parts, config, clock, metrics).await?;
        let services = Services::new(consensus.core().clone());
        Ok((consensus, services))
    }

    /// Opens a server on these parts.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_on<N>(
        parts: Parts<N>,
        config: Config,
        clock: SharedClock,
        metrics: Metrics,
    ) -> Result<Self, OpenError>
    where
        N: RaftNetworkFactory<TypeConfig>,
        N::Network: NetSnapshot<TypeConfig, SnapshotData = SnapshotData>,
    {
        let raft_config = Arc::new(config.tuning.raft(&config.name)?);
        let failed = |error: &dyn std::fmt::Display| OpenError::State(error.to_string());
        let directory = parts.directory.clone();
        let snapshots = parts.offload.run(move || SnapshotStore::open(directory)).await;
        let snapshots =
            snapshots.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let log = RaftLog::new(parts.disk, parts.loaded);
        let empty = View { state: Arc::new(State::default()), applied_index: 0 };
        let (publish_view, views) = watch::channel(empty);
        let (publish_leadership, leadership) = watch::channel(Leadership::default());
        let (publish_checksum, checksums) = watch::channel(VecDeque::new());
        let (checkpoints, checkpoints_made) = mpsc::channel(1);
        let (proposals, proposed) = mpsc::channel(PROPOSALS_MAX);
        let (readers, reading) = mpsc::channel(READS_MAX);
        let state_machine = StateMachine::new(Surroundings {
            snapshots: snapshots.clone(),
            offload: parts.offload,
            views: publish_view,
            checkpoints,
            checkpoint_every: config.tuning.checkpoint_every.max(1),
            metrics: metrics.clone(),
        });
        let id = parts.identity.server_id;
        let raft = Raft::new(id, raft_config, parts.network, log.clone(), state_machine).await;
        let raft = match raft {
            Ok(raft) => raft,
            Err(error) => {
                let _ = log.close().await;
                return Err(failed(&error));
            }
        };
        let core = Arc::new(Core {
            me: Server {
                id,
                name: config.name.clone(),
                rpc_addr: config.rpc_addr.clone(),
                api_addr: config.api_addr.clone(),
            },
            config,
            raft,
            log,
            snapshots,
            views,
            leadership,
            checksums,
            peers: parts.peers,
            proposals,
            proposal_bytes: Arc::new(Semaphore::new(PROPOSALS_BYTES_MAX)),
            readers,
            fatal: watch::Sender::new(None),
            identity: Mutex::new(parts.identity),
            cluster_id: parts.cluster_id,
            heard: Mutex::new(Instant::now()),
            line_ended: Notify::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            clock,
            led_from: Mutex::new(None),
            metrics,
            offload: parts.offload,
            zk_addrs: OnceLock::new(),
        });
        core.tasks.spawn(keeper::follow_raft(core.clone(), publish_leadership));
        core.tasks.spawn(proposer::run(core.clone(), proposed));
        core.tasks.spawn(reader::run(core.clone(), reading));
        core.tasks.spawn(succession::run(core.clone()));
        core.tasks.spawn(keeper::compact(core.clone()));
        core.tasks.spawn(keeper::checksum(core.clone(), checkpoints_made, publish_checksum));
        core.tasks.spawn(keeper::compare_checksums(core.clone()));
        Ok(Self::of(core))
    }

    /// Takes part in the cluster: an empty directory founds one, or joins one, and waits until
    /// that is done; another goes on where it was, and does not wait for the others.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(&self) -> Result<(), StartError> {
        let core = self.core();
        let started = tokio::select! {
            biased;
            () = core.stopping.cancelled() => Err(StartError::Stopped("it was asked to stop".to_owned())),
            message = self.fatal() => Err(StartError::Stopped(message)),
            started = core.start() => started,
        };
        if started.is_ok() {
            core.tasks.spawn(keeper::stay_member(core.clone()));
        }
        started
    }

    /// Stops in order: hands leadership over, lets what is on its way come to its end, and closes
    /// the log.
    pub async fn shutdown(&self) {
        let core = self.core();
        if core.leads() && core.membership().voter_ids().count() > 1 {
            match core.transfer("").await {
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "leadership could not be handed over"),
            }
        }
        self.stop_at_once().await;
    }

    /// Stops without handing leadership over.
    pub async fn stop_at_once(&self) {
        let core = self.core();
        core.stopping.cancel();
        core.tasks.close();
        if let Err(error) = core.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop in order");
        }
        if tokio::time::timeout(STOP_TIMEOUT, core.tasks.wait()).await.is_err() {
            tracing::warn!("some of consensus' tasks did not end in time");
        }
        if let Err(error) = core.log.close().await {
            tracing::warn!(%error, "the log could not be closed in order");
        }
    }
}

impl Core {
    async fn start(&self) -> Result<(), StartError> {
        let identity = self.identity();
        if !self.log.is_pristine() {
            return Ok(());
        }
        if !self.config.join.is_empty() {
            return self.join().await;
        }
        if identity.joining || identity.cluster_id != 0 {
            return Err(StartError::Refused(
                "this server began to join a cluster and did not get to the end; start it with \
                 --join again, or empty its data directory to found a new cluster"
                    .to_owned(),
            ));
        }
        let stopped = |error: &dyn std::fmt::Display| StartError::Stopped(error.to_string());
        let founders = BTreeMap::from([(self.me.id, Member::from(&self.me))]);
        self.raft.initialize(founders).await.map_err(|error| stopped(&error))?;
        let mut leadership = self.leadership.clone();
        let led = leadership.wait_for(|now| now.ready).await.map(|_| ());
        led.map_err(|error| stopped(&error))?;
        self.found_cluster().await.map_err(|error| stopped(&error))
    }

    async fn join(&self) -> Result<(), StartError> {
        self.change_identity(|identity| identity.joining = true).await;
        let mut pause = JOIN_PAUSE_MIN;
        for addr in self.config.join.iter().cycle() {
            let call = Call::Join(self.join_call());
            match self.peers.call(addr, 0, call, false, JOIN_TIMEOUT).await {
                Ok(Answer::Joined { cluster_id }) => {
                    self.change_identity(|identity| {
                        identity.cluster_id = cluster_id;
                        identity.joining = false;
                    })
                    .await;
                    return Ok(());
                }
                Ok(_) => tracing::warn!(addr, "joining: the server answered something else"),
                Err(CallError::Refused(message) | CallError::Retired(message)) => {
                    return Err(StartError::Refused(message));
                }
                Err(CallError::NotDone(message) | CallError::Unknown(message)) => {
                    tracing::warn!(addr, message, "joining the cluster: trying again");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(JOIN_PAUSE_MAX);
        }
        Ok(())
    }
}
