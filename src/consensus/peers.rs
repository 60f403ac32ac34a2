//! What servers ask of each other beside Raft itself, and how it can fail. gRPC in life, a
//! simulated network in simulation.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::model::server::Server;
use crate::state::{Rejected, Reply};

/// A question.
#[derive(Debug, Clone)]
pub enum Call {
    /// To the leader: propose these encoded requests, in one entry.
    Propose(Vec<Bytes>),
    /// To the leader: how far must a server have applied to read linearizably?
    ReadIndex,
    /// To anyone: who are you, and what have you?
    Status,
    /// A server wants to become a member, or to tell where it is now.
    Join(JoinCall),
    /// Take a member out.
    Remove {
        /// Its name.
        name: String,
    },
    /// Hand leadership over.
    Transfer {
        /// To whom, by name; empty: to whoever is furthest.
        to: String,
    },
}

/// What a server says that joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinCall {
    /// Itself.
    pub server: Server,
    /// Of the cluster it knows itself to be in; 0: none.
    pub cluster_id: u64,
    /// Its release.
    pub version: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// To [`Call::Propose`].
    Proposed {
        /// Index of the entry.
        index: u64,
        /// What the state answered, in order.
        replies: Vec<Result<Reply, Rejected>>,
    },
    /// To [`Call::ReadIndex`].
    ReadIndex(u64),
    /// To [`Call::Status`].
    Status(Box<PeerStatus>),
    /// To [`Call::Join`].
    Joined {
        /// Of the cluster.
        cluster_id: u64,
    },
    /// To [`Call::Remove`].
    Removed,
    /// To [`Call::Transfer`].
    Transferred {
        /// The new leader's name.
        leader: String,
    },
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Itself.
    pub server: Server,
    /// Of its cluster; 0: none yet.
    pub cluster_id: u64,
    /// Its term.
    pub term: u64,
    /// Whom it takes for the leader.
    pub leader: Option<Server>,
    /// Index of its last entry.
    pub last_log_index: u64,
    /// Index of the last one applied.
    pub applied_index: u64,
    /// Of the state right after `checksum_index`.
    pub checksum: u64,
    /// 0: none yet.
    pub checksum_index: u64,
    /// Its release.
    pub version: String,
    /// Where ZooKeeper's clients reach it.
    pub zk: ZkAddrs,
}

/// Where ZooKeeper's clients reach a server, if they do: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ZkAddrs {
    /// In the clear.
    pub plain: Option<String>,
    /// With TLS.
    pub tls: Option<String>,
}

/// Why a question was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nothing was done, and it may be asked again: no connection, or not the leader.
    #[error("{0}")]
    NotDone(String),
    /// Nothing was done, nor will it ever be.
    #[error("{0}")]
    Refused(String),
    /// This server was taken out of the cluster: it must stop.
    #[error("{0}")]
    Retired(String),
    /// It may or may not have been done.
    #[error("{0}")]
    Unknown(String),
}

/// The way to other servers.
pub trait Peers: Send + Sync + Debug + 'static {
    /// Asks the server with `id` (0: whoever it is) at `addr`. A question that a server has passed
    /// on is not passed on again.
    ///
    /// # Errors
    /// See [`CallError`].
    fn call(
        &self,
        addr: &str,
        id: u64,
        call: Call,
        passed_on: bool,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Answer, CallError>>;
}
