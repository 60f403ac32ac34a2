//! What the room is told when it is opened, and why it may refuse.

use std::path::PathBuf;
use std::time::Duration;

use super::log_store::LogOpenError;
use crate::model::name::ServerName;

/// See the module.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the log and the snapshots are.
    pub data_dir: PathBuf,
    /// The operator's name for this server; once in a cluster.
    pub name: ServerName,
    /// `host:port` where other servers reach its gRPC door.
    pub rpc_addr: String,
    /// `host:port` where clients reach its REST door.
    pub api_addr: String,
    /// gRPC doors of a cluster to join; empty: with an empty directory, found one.
    pub join: Vec<String>,
    /// The rest.
    pub tuning: Tuning,
}

/// Numbers that rarely need another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Between two signs of life of a leader.
    pub heartbeat: Duration,
    /// A follower that hears nothing for this long, and then a random time up to
    /// `election_max`, stands for election.
    pub election_min: Duration,
    /// See `election_min`; also the leader's lease.
    pub election_max: Duration,
    /// How long a request waits for a leader, and for its answer.
    pub propose_deadline: Duration,
    /// Batches on their way at the same time.
    pub batches_in_flight: usize,
    /// A snapshot is made after so many entries ...
    pub snapshot_entries: u64,
    /// ... or so many bytes of them.
    pub snapshot_bytes: u64,
    /// Entries kept behind a snapshot, for followers that are a little late ...
    pub keep_entries: u64,
    /// ... and their bytes.
    pub keep_bytes: u64,
    /// Entries are kept for followers that still need them up to so many bytes in all.
    pub log_bytes_max: u64,
    /// Servers compare checksums of the state at every such index.
    pub checkpoint_every: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            propose_deadline: Duration::from_secs(10),
            batches_in_flight: 2,
            snapshot_entries: 50_000,
            snapshot_bytes: 64 << 20,
            keep_entries: 10_000,
            keep_bytes: 16 << 20,
            log_bytes_max: 256 << 20,
            checkpoint_every: 16_384,
        }
    }
}

impl Tuning {
    /// As openraft wants them.
    ///
    /// # Errors
    /// If the timings can't work together.
    pub fn raft(&self, name: &ServerName) -> Result<openraft::Config, OpenError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = openraft::Config {
            cluster_name: format!("orch, as {name} sees it"),
            heartbeat_interval: millis(self.heartbeat),
            // Replication under load says the same as a heartbeat.
            heartbeat_min_interval: Some(millis(self.heartbeat) / 2),
            election_timeout_min: millis(self.election_min),
            election_timeout_max: millis(self.election_max),
            enable_pre_vote: Some(true),
            // The state is in memory: after a start, only an election tells what is committed.
            enable_leader_restore: Some(false),
            max_payload_entries: 1024,
            // The keeper decides by bytes too; see `keeper`.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            replication_lag_threshold: self.snapshot_entries.saturating_mul(2),
            install_snapshot_timeout: 600_000,
            backoff: "50ms 100ms 200ms ...500ms".to_owned(),
            ..openraft::Config::default()
        };
        config.validate().map_err(|error| OpenError::Config(error.to_string()))
    }
}

/// Why consensus can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log is in use, damaged or unreadable.
    #[error(transparent)]
    Log(#[from] LogOpenError),
    /// A snapshot is damaged or unreadable, or the log does not fit to it.
    #[error("{0}")]
    State(String),
    /// Timings that can't work together.
    #[error("the timings can't work: {0}")]
    Config(String),
}

/// Why a server can't take part in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The cluster does not take it.
    #[error("{0}")]
    Refused(String),
    /// It stopped, or failed, meanwhile.
    #[error("{0}")]
    Stopped(String),
}
