//! A leader whose process has ended is replaced at once: its connections end with it, and whoever
//! then finds nobody at its address need not wait until its lease runs out. A host that falls
//! silent ends no connection; for that there is the election time-out.
//!
//! Nothing is less safe for it. The lease only keeps a server that hears nothing from disturbing
//! the others; who may lead, and what is committed, is decided by votes and logs as ever, and a
//! read asks a majority.

use std::sync::Arc;
use std::time::Duration;

use openraft::raft::TransferLeaderRequest;
use tokio::time::Instant;

use super::core::Core;
use super::peers::{Answer, Call, CallError};
use crate::model::server::Server;

/// For a sign of life of the leader.
const LOOK_TIMEOUT: Duration = Duration::from_millis(150);
/// A connection that ended just now may answer in its own name once or twice.
const LOOKS: u32 = 5;
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Until it is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// One server after the other stands for election, so that they don't split the votes.
const STAGGER: Duration = Duration::from_millis(40);
/// The others find out at about the same time, not at the same moment.
const ROUND_PAUSE: Duration = Duration::from_millis(40);
const ROUNDS: u32 = 12;

/// Looks after the leader whenever a connection of its ends.
pub(super) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            biased;
            () = core.stopping.cancelled() => return,
            () = core.line_ended.notified() => {}
        }
        let cut = Instant::now();
        // Until it is heard again, or another leads: one look may be too soon on a busy machine.
        while let Some(leader) = core.other_leader()
            && core.heard() < cut
            && !core.stopping.is_cancelled()
        {
            if core.has_ended(&leader).await {
                core.replace(&leader).await;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// A line on which a leader speaks. Dropped before its end, it was cut.
pub(super) struct LeaderLine {
    core: Arc<Core>,
    ended: bool,
}

impl LeaderLine {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, ended: false }
    }

    /// The leader has said something.
    pub(super) fn hear(&self) {
        self.core.hear();
    }

    /// The leader has closed it in order.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }
}

impl Drop for LeaderLine {
    fn drop(&mut self) {
        if !self.ended {
            self.core.line_ended.notify_one();
        }
    }
}

impl Core {
    /// Whether nobody is at the leader's address, or whoever is there does not lead.
    async fn has_ended(&self, leader: &Server) -> bool {
        for _ in 0..LOOKS {
            match self.ask(leader, Call::Status, true, LOOK_TIMEOUT).await {
                Ok(Answer::Status(status)) => {
                    return status.leader.is_none_or(|now| now.id != leader.id);
                }
                Err(CallError::NotDone(_) | CallError::Refused(_)) => return true,
                Ok(_) | Err(_) => tokio::time::sleep(LOOK_PAUSE).await,
            }
        }
        // It is there and does not answer: the lease decides.
        false
    }

    /// Has a server elected in the place of `leader`: this one, or another that was quicker.
    async fn replace(&self, leader: &Server) {
        let vote = self.raft_metrics(|metrics| metrics.vote);
        if !vote.committed || vote.leader_id.voted_for != leader.id {
            return;
        }
        let membership = self.membership();
        let mut successors: Vec<_> =
            membership.voter_ids().filter(|voter| *voter != leader.id).collect();
        successors.sort_unstable();
        let place = successors.iter().position(|voter| *voter == self.me.id);
        tracing::info!(leader = %leader.name, "the leader is gone; another is elected at once");
        let mut turn = place.map(|place| STAGGER * u32::try_from(place).unwrap_or(ROUNDS));
        for _ in 0..ROUNDS {
            // As when a leader hands over: to this server's mind its lease has run out.
            let released = TransferLeaderRequest::new(vote, leader.id, None);
            if self.raft.handle_transfer_leader(released).await.is_err() {
                return;
            }
            if let Some(wait) = turn {
                tokio::time::sleep(wait).await;
                turn = Some(Duration::ZERO);
            }
            if self.raft_metrics(|metrics| metrics.vote != vote) {
                return;
            }
            if turn.is_some() && self.raft.trigger().elect(true).await.is_err() {
                return;
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }
}
