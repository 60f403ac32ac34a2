//! What must hold of the state after every entry of the log, one file each with its reason.

mod capacity;
mod places;
mod promises;

use std::collections::{BTreeMap, BTreeSet};

use orch::consensus::state_machine::Checkpoint;
use orch::model::allocation::{AllocStatus, Desired};
use orch::model::name::AllocId;
use orch::state::State;

use super::world::Observer;

/// Follows the state, entry by entry, whichever server has applied it first.
#[derive(Default)]
pub struct Invariants {
    last: Option<(u64, State)>,
    /// Allocations that were lost and came back with their node.
    returned: BTreeSet<AllocId>,
    /// Whether what happens is printed.
    tells: bool,
    /// Entries that were looked at.
    pub entries: u64,
    /// What planners asked to stop, by reason.
    pub stops: BTreeMap<String, usize>,
}

impl Invariants {
    /// Nothing seen yet.
    pub fn new(tells: bool) -> Self {
        Self { tells, ..Self::default() }
    }
}

impl Observer for Invariants {
    fn look(&mut self, checkpoint: &Checkpoint) {
        let (index, now) = (checkpoint.index, &checkpoint.state);
        if let Some((last, before)) = &self.last {
            // Another server was there first.
            if index <= *last {
                return;
            }
            if self.tells {
                tell(index, before, now);
            }
            for alloc in now.allocs() {
                let Some(earlier) = before.alloc(alloc.id) else { continue };
                if earlier.status == AllocStatus::Lost && !alloc.ended() {
                    self.returned.insert(alloc.id);
                }
                if let (Desired::Run, Desired::Stop(reason)) = (&earlier.desired, &alloc.desired) {
                    *self.stops.entry(format!("{reason:?}")).or_default() += 1;
                }
            }
            // A server that takes a snapshot leaps over entries, and is followed from there.
            if index == last + 1 {
                self.entries += 1;
                promises::check(index, before, now);
            }
        }
        places::check(index, now, &self.returned);
        capacity::check(index, now);
        self.last = Some((index, now.clone()));
    }
}

fn tell(index: u64, before: &State, now: &State) {
    let at = now.stamp().at;
    for record in now.events_after(before.last_event()).unwrap_or_default() {
        println!("{index} at {}: {:?}", at.0, record.event);
    }
}
