//! What a service promises while planners change it: so many replicas that can take traffic. They
//! plan on a state that may be older by the time their commands are applied: what would break the
//! promise by then is left out, and planned anew from what has happened since.

use std::collections::BTreeSet;

use super::{Job, State};
use crate::model::allocation::{Allocation, StopReason};
use crate::model::job::{JobKind, UpdateOrder};
use crate::model::time::Timestamp;

impl Job {
    /// Replicas of a service that can take traffic at any time, if none fails by itself.
    pub fn promised(&self) -> u32 {
        let replicas = self.replicas();
        match self.spec().order() {
            UpdateOrder::StartFirst => replicas,
            UpdateOrder::StopFirst => replicas.saturating_sub(self.spec().update.max_parallel),
        }
    }
}

impl State {
    /// Whether a stop would break its service's promise.
    pub(super) fn breaks_promise(
        &self,
        alloc: &Allocation,
        reason: StopReason,
        at: Timestamp,
    ) -> bool {
        let Some(job) = self.job(&alloc.job) else { return false };
        let service = matches!(job.spec().kind, JobKind::Service { .. });
        let counts = self.serves(job, alloc) && alloc.index < job.replicas();
        if !service || !counts || !is_bound(reason) || self.overdue(alloc, reason, at) {
            return false;
        }
        // Places that can take traffic without it.
        let left: BTreeSet<u32> = self
            .allocs_of(&alloc.job)
            .filter(|other| other.id != alloc.id && self.serves(job, other))
            .map(|other| other.index)
            .filter(|index| *index < job.replicas())
            .collect();
        !left.contains(&alloc.index) && (left.len() as u32) < job.promised()
    }

    /// A drain's deadline comes before any promise.
    fn overdue(&self, alloc: &Allocation, reason: StopReason, at: Timestamp) -> bool {
        let drain = self.node(&alloc.node).and_then(|node| node.drain.as_ref());
        let due = drain.and_then(|drain| Some(drain.since + drain.deadline?));
        reason == StopReason::Drained && due.is_some_and(|due| due <= at)
    }
}

/// Whether planners stop for this reason only as far as the promise allows.
fn is_bound(reason: StopReason) -> bool {
    match reason {
        StopReason::Updated
        | StopReason::Reverted
        | StopReason::Drained
        | StopReason::Moved
        | StopReason::Rebalanced => true,
        StopReason::JobStopped
        | StopReason::ScaledDown
        | StopReason::NodeUnfit
        | StopReason::TimedOut
        | StopReason::NodeLost
        | StopReason::Preempted
        | StopReason::Reconnected => false,
    }
}
