//! What other rooms call.

use std::sync::Arc;

use tokio::sync::watch;

use crate::model::server::Server;
use crate::state::{Rejected, Reply, Request, State};

/// A consistent picture of the state; cheap to clone and to keep.
#[derive(Debug, Clone)]
pub struct View {
    /// The state.
    pub state: Arc<State>,
    /// Index of the last log entry in it, of whatever kind.
    pub applied_index: u64,
}

/// A request that is in the log of a majority and applied.
#[derive(Debug, Clone)]
pub struct Committed {
    /// What the state answered.
    pub reply: Reply,
    /// Index of the log entry that held it.
    pub index: u64,
}

/// Why a request was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// The state refused it; nothing changed.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// No leader could be reached in time; the request was never proposed.
    #[error("no leader: {0}")]
    NoLeader(String),
    /// It was proposed, but the answer did not come: it may or may not be carried out.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// It can't be encoded within the bounds.
    #[error("the request is too large: {0}")]
    TooLarge(String),
    /// This server is stopping or has failed.
    #[error("this server is stopping: {0}")]
    Stopping(String),
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Sees everything acknowledged before it began.
    #[default]
    Linearizable,
    /// Whatever this server has.
    Stale,
}

/// Why a read was not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// No leader could be reached in time.
    #[error("no leader: {0}")]
    NoLeader(String),
    /// This server is stopping or has failed.
    #[error("this server is stopping: {0}")]
    Stopping(String),
}

/// Who leads, as this server knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// Who leads; none while nobody is known to.
    pub leader: Option<Server>,
    /// This server leads and has applied everything from before its term: it may plan.
    pub ready: bool,
}

/// A member as seen from this server.
#[derive(Debug, Clone)]
pub struct ServerStatus {
    /// The member.
    pub server: Server,
    /// `leader`, `follower`, `learner`.
    pub role: &'static str,
    /// Index of its last log entry, if it could be asked.
    pub last_log_index: Option<u64>,
    /// Index of the last entry it has applied, if it could be asked.
    pub applied_index: Option<u64>,
    /// It answered just now.
    pub reachable: bool,
    /// Its release, if it could be asked.
    pub version: Option<String>,
}

/// The handle that other rooms hold; clones are the same.
#[derive(Debug, Clone)]
pub struct Consensus {
    views: watch::Receiver<View>,
    leadership: watch::Receiver<Leadership>,
}

impl Consensus {
    /// Has `request` carried out, wherever the leader is, and waits for the answer.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, _request: Request) -> Result<Committed, ProposeError> {
        Err(ProposeError::Stopping("not built yet".into()))
    }

    /// A picture of the state.
    ///
    /// # Errors
    /// See [`ReadError`]; a stale read never fails.
    pub async fn read(&self, _consistency: Consistency) -> Result<View, ReadError> {
        Ok(self.views.borrow().clone())
    }

    /// The newest picture, and word of every newer one.
    pub fn views(&self) -> watch::Receiver<View> {
        self.views.clone()
    }

    /// Who leads, and word of every change.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// This server.
    pub fn me(&self) -> Server {
        Server {
            id: 0,
            name: "s1".parse().unwrap_or_else(|_| unreachable!()),
            rpc_addr: String::new(),
            api_addr: String::new(),
        }
    }

    /// All members, each asked for its state.
    pub async fn servers(&self) -> Vec<ServerStatus> {
        Vec::new()
    }

    /// The gRPC addresses of all members.
    pub fn server_addrs(&self) -> Vec<String> {
        Vec::new()
    }

    /// Takes a member out.
    ///
    /// # Errors
    /// If there is none of that name, or the others would be no majority.
    pub async fn remove_server(&self, _name: &str) -> Result<(), ProposeError> {
        Err(ProposeError::Stopping("not built yet".into()))
    }

    /// Hands leadership to a member (to whoever is furthest, if none is named); its name comes back.
    ///
    /// # Errors
    /// If there is none of that name, or it did not take over in time.
    pub async fn transfer_leadership(&self, _to: Option<&str>) -> Result<String, ProposeError> {
        Err(ProposeError::Stopping("not built yet".into()))
    }
}
