//! Finds the best node for one more replica, or says why there is none.
//!
//! `refusal` holds what keeps a replica off a node, `score` what draws it to one. Start at
//! `fleet` for how a node is chosen, at `explain` for why none is.

mod explain;
mod fleet;
mod ports;
mod preempt;
pub mod rebalance;
mod refusal;
mod score;

pub use self::explain::{Explanation, explain, explain_replica};
pub(super) use self::fleet::Fleet;
pub(super) use self::preempt::Room;
pub use self::refusal::{Refusal, Refusals, refusal_when_empty};
use crate::model::allocation::{AllocStatus, Allocation, Desired, Move};
use crate::model::job::{JobKind, JobSpec};
use crate::model::name::{JobId, NodeName};
use crate::state::State;

/// A replica that wants a node.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'s> {
    pub(crate) id: &'s JobId,
    pub(crate) version: u64,
    pub(crate) spec: &'s JobSpec,
    pub(crate) index: u32,
    /// A system job's replica belongs to one node.
    pub(crate) node: Option<&'s NodeName>,
    /// The one before it in this place. If that has not ended, this one is its successor: where
    /// it is counts as free of it, and it is left alone if it is to move.
    pub(crate) previous: Option<&'s Allocation>,
}

impl<'s> Ask<'s> {
    /// The one that it will take over from.
    pub(crate) fn predecessor(&self) -> Option<&'s Allocation> {
        self.previous.filter(|previous| !previous.ended())
    }

    /// The node that its predecessor is to leave.
    fn avoid(&self) -> Option<&'s NodeName> {
        self.predecessor().filter(|alloc| alloc.moving.is_some()).map(|alloc| &alloc.node)
    }

    /// The one before it was to go elsewhere, and stopped for that or is about to.
    fn moved(&self) -> Option<&'s Move> {
        let previous = self.previous?;
        let moving = previous.moving.as_ref()?;
        let for_that = previous.desired == Desired::Stop(moving.reason);
        (for_that || !previous.ended()).then_some(moving)
    }

    /// The node that was chosen when the one before it was asked to move.
    fn wish(&self) -> Option<&'s NodeName> {
        self.moved()?.to.as_ref()
    }

    /// The one before it did badly on this node, or was to leave it.
    fn is_better_elsewhere(&self, node: &NodeName) -> bool {
        self.previous.is_some_and(|last| {
            last.node == *node && (last.status == AllocStatus::Failed || self.moved().is_some())
        })
    }

    /// Where its data is: it can't go anywhere else.
    fn home(&self, state: &'s State) -> Option<&'s NodeName> {
        if !self.spec.has_local_data() || self.spec.kind == JobKind::System {
            return None;
        }
        state.job(self.id)?.homes.get(&self.index)
    }

    /// Whether what no node says yes to for this one, none says yes to for the job's others.
    pub(crate) fn is_like_others(&self, state: &'s State) -> bool {
        // Only a limit for each node tells a successor from one more.
        let successor = self.predecessor().is_some() && self.spec.placement.max_per_node.is_some();
        let anywhere = self.node.is_none() && self.home(state).is_none();
        anywhere && self.avoid().is_none() && !successor
    }
}

#[cfg(test)]
mod tests;
