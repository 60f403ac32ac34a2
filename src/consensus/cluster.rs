//! Answers what other servers ask, whichever way the question came.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use tokio::time::Instant;

use super::core::Core;
use super::peers::{Answer, Call, CallError, PeerStatus};
use crate::limits::{BATCH_REQUESTS_MAX, REQUEST_BYTES_MAX};
use crate::state::codec::{self, BatchWriter};

/// For what a server passes on to the leader.
const PASS_ON_TIMEOUT: Duration = Duration::from_secs(60);

impl Core {
    /// Answers `call`. What only the leader can do is passed on to it, unless it was already.
    pub(super) async fn answer(
        self: &Arc<Self>,
        call: Call,
        passed_on: bool,
    ) -> Result<Answer, CallError> {
        match call {
            Call::Status => Ok(Answer::Status(Box::new(self.status()))),
            Call::Propose(requests) => self.propose_for_another(&requests).await,
            Call::ReadIndex => self.read_index().await.map(Answer::ReadIndex),
            call if self.leads() => match call {
                Call::Join(join) => self.admit(join).await,
                Call::Remove { name } => self.remove(&name).await,
                Call::Transfer { to } => self.transfer(&to).await,
                Call::Status | Call::Propose(_) | Call::ReadIndex => {
                    Err(CallError::NotDone("asked in a roundabout way".to_owned()))
                }
            },
            call => match self.other_leader() {
                Some(leader) if !passed_on => self.ask(&leader, call, true, PASS_ON_TIMEOUT).await,
                _ => Err(CallError::NotDone("this server knows of no leader".to_owned())),
            },
        }
    }

    /// What this server says of itself.
    pub(super) fn status(&self) -> PeerStatus {
        let (term, last_log_index) = self.raft_metrics(|metrics| {
            (metrics.current_term, metrics.last_log_index.unwrap_or_default())
        });
        let (checksum_index, checksum) =
            self.checksums.borrow().back().copied().unwrap_or_default();
        PeerStatus {
            server: self.me.clone(),
            cluster_id: self.identity().cluster_id,
            term,
            leader: self.leadership.borrow().leader.clone(),
            last_log_index,
            applied_index: self.views.borrow().applied_index,
            checksum,
            checksum_index,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            zk: self.zk_addrs.get().cloned().unwrap_or_default(),
        }
    }

    async fn propose_for_another(&self, requests: &[Bytes]) -> Result<Answer, CallError> {
        if requests.is_empty() || requests.len() > BATCH_REQUESTS_MAX {
            let message = format!("{} requests are no batch", requests.len());
            return Err(CallError::Refused(message));
        }
        let mut writer = BatchWriter::new(self.state_time());
        for request in requests {
            let fits = request.len() <= REQUEST_BYTES_MAX && writer.has_room(request.len());
            // What can't be read would stop every server when it is applied.
            if !fits || codec::decode_request(request).is_err() {
                let message = "the leader can't read a request; are all servers of one release?";
                return Err(CallError::Refused(message.to_owned()));
            }
            writer.push(request);
        }
        let deadline = Instant::now() + self.tuning().propose_deadline;
        let (index, replies) = self.write(writer.finish().into(), deadline).await?;
        Ok(Answer::Proposed { index, replies })
    }

    /// What `orch server ls` calls a member.
    pub(super) fn role(&self, id: u64) -> &'static str {
        let leader = self.leadership.borrow().leader.as_ref().map(|leader| leader.id);
        let membership = self.membership();
        if leader == Some(id) {
            "leader"
        } else if membership.voter_ids().any(|voter| voter == id) {
            "follower"
        } else {
            "learner"
        }
    }

    /// Whether this server is a voter, as far as it knows.
    pub(super) fn votes(&self) -> bool {
        self.raft_metrics(|metrics| {
            matches!(
                metrics.state,
                ServerState::Leader | ServerState::Follower | ServerState::Candidate
            )
        })
    }
}
