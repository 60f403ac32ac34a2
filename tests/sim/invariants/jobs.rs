//! Follows the state entry by entry, whichever server has applied it first, and shows each step
//! to what must hold of jobs.

use std::collections::{BTreeMap, BTreeSet};

use orch::model::allocation::{AllocStatus, Desired, StopReason};
use orch::model::name::AllocId;
use orch::state::State;

use super::{capacity, places, promises};

/// What has been seen.
#[derive(Default)]
pub struct Jobs {
    last: Option<(u64, State)>,
    /// Allocations that were lost with their node, whatever became of them.
    lost: BTreeSet<AllocId>,
    /// Allocations that were lost and came back with their node.
    returned: BTreeSet<AllocId>,
    /// What planners asked to stop, by reason.
    pub stops: BTreeMap<&'static str, u64>,
}

impl Jobs {
    /// A server has applied an entry.
    pub fn applied(&mut self, index: u64, now: &State) {
        if let Some((last, before)) = &self.last {
            // Another server was there first.
            if index <= *last {
                return;
            }
            for alloc in now.allocs() {
                if alloc.status == AllocStatus::Lost {
                    self.lost.insert(alloc.id);
                }
                let Some(earlier) = before.alloc(alloc.id) else { continue };
                if earlier.status == AllocStatus::Lost && !alloc.ended() {
                    self.returned.insert(alloc.id);
                }
                if let (Desired::Run, Desired::Stop(reason)) = (&earlier.desired, &alloc.desired) {
                    *self.stops.entry(word(*reason)).or_default() += 1;
                }
            }
            // A server that takes a snapshot leaps over entries, and is followed from there.
            if index == last + 1 {
                promises::check(index, before, now);
            }
        }
        places::check(index, now, &self.returned);
        capacity::check(index, now);
        self.last = Some((index, now.clone()));
    }

    /// The newest state that any server has.
    pub fn state(&self) -> Option<&State> {
        self.last.as_ref().map(|(_, state)| state)
    }

    /// Whether this was ever given up with its node.
    pub fn was_lost(&self, id: AllocId) -> bool {
        self.lost.contains(&id)
    }
}

fn word(reason: StopReason) -> &'static str {
    match reason {
        StopReason::JobStopped => "stops: job stopped",
        StopReason::ScaledDown => "stops: scaled down",
        StopReason::Updated => "stops: updated",
        StopReason::Drained => "stops: drained",
        StopReason::NodeUnfit => "stops: node unfit",
        StopReason::TimedOut => "stops: timed out",
        StopReason::NodeLost => "stops: node lost",
        StopReason::Moved => "stops: moved",
        StopReason::Preempted => "stops: preempted",
        StopReason::Rebalanced => "stops: rebalanced",
        StopReason::Reverted => "stops: reverted",
        StopReason::Reconnected => "stops: reconnected",
    }
}
