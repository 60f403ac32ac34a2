//! Opening the room, taking part in the cluster, and leaving it in order.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use openraft::Raft;
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
use super::peers::{Answer, Call, CallError};
use super::raft_log::RaftLog;
use super::services::Services;
use super::snapshot_store::SnapshotStore;
use super::state_machine::{StateMachine, Surroundings};
use super::transport::Transport;
use super::types::Member;
use super::{keeper, proposer, reader, succession};
use crate::ground::Ground;
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

/// Where a server keeps what must outlive it: disks in life, simulated ones in simulation.
pub struct Storage {
    /// Where the log is kept.
    pub disk: Box<dyn LogDisk>,
    /// What it held.
    pub loaded: Loaded,
    /// Who the server is.
    pub identity: Identity,
    /// Where snapshots are kept.
    pub directory: Arc<dyn Directory>,
}

impl Storage {
    /// Opens a data directory, which gets `new_id` if it is empty.
    ///
    /// # Errors
    /// If it is in use, damaged or not to be read.
    pub async fn open(data_dir: &Path, new_id: u64, metrics: Metrics) -> Result<Self, OpenError> {
        let (log_dir, snapshot_dir) = (data_dir.join("raft"), data_dir.join("snapshots"));
        let opened = tokio::task::spawn_blocking(move || {
            let opened = LogStore::open(&log_dir, new_id, metrics)?;
            let directory = OsDirectory::open(&snapshot_dir)
                .map_err(|error| LogOpenError::Io { dir: snapshot_dir, error })?;
            Ok::<_, LogOpenError>((opened, directory))
        });
        let opened = opened.await.map_err(|error| OpenError::State(error.to_string()))?;
        let (opened, directory) = opened?;
        Ok(Self {
            disk: Box::new(opened.store),
            loaded: opened.loaded,
            identity: opened.identity,
            directory: Arc::new(directory),
        })
    }
}

impl Consensus {
    /// Opens the data directory. The services must be reachable at the advertised address before
    /// [`Consensus::start`] is called.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        config: Config,
        ground: Ground,
        metrics: Metrics,
    ) -> Result<(Self, Services), OpenError> {
        let new_id = ground.clock.random();
        let storage = Storage::open(&config.data_dir, new_id, metrics.clone()).await?;
        Self::open_on(storage, config, ground, metrics).await
    }

    /// Opens a server on what `storage` holds.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_on(
        storage: Storage,
        config: Config,
        ground: Ground,
        metrics: Metrics,
    ) -> Result<(Self, Services), OpenError> {
        let cluster_id = Arc::new(AtomicU64::new(storage.identity.cluster_id));
        let channels = Channels::new(ground.net.clone());
        let peers = GrpcPeers { channels: channels.clone(), cluster_id: cluster_id.clone() };
        let offload = ground.offload;
        let network = Transport { channels, cluster_id: cluster_id.clone(), offload };
        let raft_config = Arc::new(config.tuning.raft(&config.name)?);
        let failed = |error: &dyn std::fmt::Display| OpenError::State(error.to_string());
        let directory = storage.directory;
        let snapshots = offload.run(move || SnapshotStore::open(directory)).await;
        let snapshots =
            snapshots.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let log = RaftLog::new(storage.disk, storage.loaded);
        let empty = View { state: Arc::new(State::default()), applied_index: 0 };
        let (publish_view, views) = watch::channel(empty);
        let (publish_leadership, leadership) = watch::channel(Leadership::default());
        let (publish_checksum, checksums) = watch::channel(VecDeque::new());
        let (checkpoints, checkpoints_made) = mpsc::channel(1);
        let (proposals, proposed) = mpsc::channel(PROPOSALS_MAX);
        let (readers, reading) = mpsc::channel(READS_MAX);
        let state_machine = StateMachine::new(Surroundings {
            snapshots: snapshots.clone(),
            offload,
            views: publish_view,
            checkpoints,
            checkpoint_every: config.tuning.checkpoint_every.max(1),
            witness: ground.witness.clone(),
            metrics: metrics.clone(),
        });
        let id = storage.identity.server_id;
        let raft = Raft::new(id, raft_config, network, log.clone(), state_machine).await;
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
            peers: Arc::new(peers),
            proposals,
            proposal_bytes: Arc::new(Semaphore::new(PROPOSALS_BYTES_MAX)),
            readers,
            fatal: watch::Sender::new(None),
            identity: Mutex::new(storage.identity),
            cluster_id,
            heard: Mutex::new(Instant::now()),
            line_ended: Notify::new(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            ground,
            led_from: Mutex::new(None),
            metrics,
            zk_addrs: OnceLock::new(),
        });
        core.tasks.spawn(keeper::follow_raft(core.clone(), publish_leadership));
        core.tasks.spawn(proposer::run(core.clone(), proposed));
        core.tasks.spawn(reader::run(core.clone(), reading));
        core.tasks.spawn(succession::run(core.clone()));
        core.tasks.spawn(keeper::compact(core.clone()));
        core.tasks.spawn(keeper::checksum(core.clone(), checkpoints_made, publish_checksum));
        core.tasks.spawn(keeper::compare_checksums(core.clone()));
        let services = Services::new(core.clone());
        Ok((Self::of(core), services))
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
