//! What other rooms call.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::core::Core;
use super::peers::{Answer, Call, CallError, ZkAddrs};
use super::proposer::Pending;
use crate::ground::Ground;
use crate::model::server::Server;
use crate::model::time::Timestamp;
use crate::state::{Rejected, RejectedCode, Reply, Request, State, codec};

/// For an answer from a member that is up.
const STATUS_TIMEOUT: Duration = Duration::from_millis(700);
/// Pause before the leader is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

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
    /// Where ZooKeeper's clients reach it, if it could be asked.
    pub zk: ZkAddrs,
}

/// The handle that other rooms hold; clones are the same.
#[derive(Debug, Clone)]
pub struct Consensus {
    core: Arc<Core>,
}

impl Consensus {
    pub(super) fn of(core: Arc<Core>) -> Self {
        Self { core }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Has `request` carried out, wherever the leader is, and waits for the answer.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, request: Request) -> Result<Committed, ProposeError> {
        let answer = self.queue(&request).await?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Has all of `requests` carried out and waits for all answers. They reach the log in this
    /// order; others' requests may come between them.
    ///
    /// # Errors
    /// Each has its own; see [`ProposeError`].
    pub async fn propose_many(
        &self,
        requests: Vec<Request>,
    ) -> Vec<Result<Committed, ProposeError>> {
        let mut answers = Vec::with_capacity(requests.len());
        for request in &requests {
            answers.push(self.queue(request).await);
        }
        let mut outcomes = Vec::with_capacity(answers.len());
        for answer in answers {
            outcomes.push(match answer {
                Ok(answer) => answer.await.unwrap_or_else(|_| Err(stopping())),
                Err(error) => Err(error),
            });
        }
        outcomes
    }

    async fn queue(
        &self,
        request: &Request,
    ) -> Result<oneshot::Receiver<Result<Committed, ProposeError>>, ProposeError> {
        let request = codec::encode_request(request)
            .map_err(|error| ProposeError::TooLarge(error.to_string()))?;
        if self.core.stopping.is_cancelled() {
            return Err(stopping());
        }
        let bytes = u32::try_from(request.len()).unwrap_or(u32::MAX);
        let permit = self.core.proposal_bytes.clone().acquire_many_owned(bytes).await;
        let permit = permit.map_err(|_| stopping())?;
        let (answer, receiver) = oneshot::channel();
        let pending = Pending { request: request.into(), answer, _permit: permit };
        self.core.proposals.send(pending).await.map_err(|_| stopping())?;
        Ok(receiver)
    }

    /// A picture of the state.
    ///
    /// # Errors
    /// See [`ReadError`]; a stale read never fails.
    pub async fn read(&self, consistency: Consistency) -> Result<View, ReadError> {
        if consistency == Consistency::Stale {
            return Ok(self.core.view());
        }
        let gone = || ReadError::Stopping("it was asked to".to_owned());
        let (reader, view) = oneshot::channel();
        self.core.readers.send(reader).await.map_err(|_| gone())?;
        view.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The newest picture, and word of every newer one.
    pub fn views(&self) -> watch::Receiver<View> {
        self.core.views.clone()
    }

    /// Who leads, and word of every change.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.core.leadership.clone()
    }

    /// This server.
    pub fn me(&self) -> Server {
        self.core.me.clone()
    }

    /// Says where ZooKeeper's clients reach this server, so that others can be told; the first
    /// word holds.
    pub fn tell_zk_addrs(&self, addrs: ZkAddrs) {
        let _ = self.core.zk_addrs.set(addrs);
    }

    /// What this server stands on.
    pub fn ground(&self) -> &Ground {
        &self.core.ground
    }

    /// Of the cluster; 0 until this server knows.
    pub fn cluster_id(&self) -> u64 {
        self.core.identity().cluster_id
    }

    /// All members, each asked for its state.
    pub async fn servers(&self) -> Vec<ServerStatus> {
        let asked = self.core.members().into_iter().map(|server| async move {
            let status = if server.id == self.core.me.id {
                Some(self.core.status())
            } else {
                match self.core.ask(&server, Call::Status, true, STATUS_TIMEOUT).await {
                    Ok(Answer::Status(status)) => Some(*status),
                    _ => None,
                }
            };
            ServerStatus {
                role: self.core.role(server.id),
                server,
                last_log_index: status.as_ref().map(|status| status.last_log_index),
                applied_index: status.as_ref().map(|status| status.applied_index),
                reachable: status.is_some(),
                version: status.as_ref().map(|status| status.version.clone()),
                zk: status.map(|status| status.zk).unwrap_or_default(),
            }
        });
        let mut servers = futures::future::join_all(asked).await;
        servers.sort_by(|a, b| a.server.name.cmp(&b.server.name));
        servers
    }

    /// The gRPC addresses of all members.
    pub fn server_addrs(&self) -> Vec<String> {
        self.core.members().into_iter().map(|server| server.rpc_addr).collect()
    }

    /// Takes a member out, for good.
    ///
    /// # Errors
    /// If there is none of that name, or the others would be no majority.
    pub async fn remove_server(&self, name: &str) -> Result<(), ProposeError> {
        self.ask_leader(Call::Remove { name: name.to_owned() }).await.map(|_| ())
    }

    /// Hands leadership to a member (to whoever is furthest, if none is named); its name comes back.
    ///
    /// # Errors
    /// If there is none of that name, or it did not take over in time.
    pub async fn transfer_leadership(&self, to: Option<&str>) -> Result<String, ProposeError> {
        let call = Call::Transfer { to: to.unwrap_or_default().to_owned() };
        match self.ask_leader(call).await? {
            Answer::Transferred { leader } => Ok(leader),
            _ => Err(ProposeError::Unknown("the leader answered something else".to_owned())),
        }
    }

    async fn ask_leader(&self, call: Call) -> Result<Answer, ProposeError> {
        let deadline = Instant::now() + self.core.tuning().propose_deadline;
        let answer = loop {
            match self.core.answer(call.clone(), false).await {
                // Just elected, or just handed over.
                Err(CallError::NotDone(_)) if Instant::now() < deadline => {
                    self.core.leader_change(RETRY_PAUSE).await;
                }
                answer => break answer,
            }
        };
        answer.map_err(|error| match error {
            CallError::NotDone(message) => ProposeError::NoLeader(message),
            CallError::Refused(message) => {
                ProposeError::Rejected(Rejected::new(RejectedCode::Conflict, message))
            }
            CallError::Retired(message) => ProposeError::Stopping(message),
            CallError::Unknown(message) => ProposeError::Unknown(message),
        })
    }

    /// Index of the first entry in this server's log; what was before it is in a snapshot.
    pub fn log_begins_at(&self) -> u64 {
        self.core.raft_metrics(|metrics| metrics.purged.map_or(0, |id| id.index + 1))
    }

    /// Index and checksum of the state as it is now on this server.
    ///
    /// # Errors
    /// If the process is stopping.
    pub async fn checksum_now(&self) -> std::io::Result<(u64, u64)> {
        let view = self.core.view();
        let (index, state) = (view.applied_index, view.state);
        Ok((index, self.core.ground.offload.run(move || state.checksum()).await?))
    }

    /// The time that the state lives in: the time of day, unless a leader's clock was ahead of it.
    pub fn state_time(&self) -> Timestamp {
        self.core.state_time()
    }

    /// Waits until this server can't go on, and says why. The process must end then.
    pub async fn fatal(&self) -> String {
        let mut fatal = self.core.fatal.subscribe();
        let message = fatal.wait_for(Option::is_some).await.map(|message| message.clone());
        match message {
            Ok(message) => message.unwrap_or_default(),
            // The sender lives as long as this handle.
            Err(_) => std::future::pending().await,
        }
    }
}

fn stopping() -> ProposeError {
    ProposeError::Stopping("it was asked to".to_owned())
}
