//! Pure functions from a state to commands: `(state, inputs, scope) -> commands`.
//!
//! A planner does no I/O and changes nothing; the leader proposes what it returns, and looks
//! again when that is applied. `plan` is the pass over all of them; the scheduler is one.

mod batch;
mod cleanup;
mod deployments;
mod drain;
mod liveness;
mod pass;
mod places;
mod probation;
pub mod progress;
mod replicas;
pub mod scheduler;
mod service;
mod system;

use std::collections::{BTreeMap, BTreeSet};

use self::pass::Pass;
pub use self::pass::plan;
pub use self::replicas::{Again, again};
pub use self::scheduler::rebalance;
use self::scheduler::{Refusal, Refusals};
use crate::model::name::{JobId, NodeName};
use crate::model::time::{Millis, Timestamp};
use crate::state::Command;

/// What a pass looks at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Everything; the jobs below need not be named then.
    pub all: bool,
    /// These jobs.
    pub jobs: BTreeSet<JobId>,
}

/// What planners know beside the state.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Time of day.
    pub now: Timestamp,
    /// When each node's agent was last heard by this leader.
    pub last_heard: BTreeMap<NodeName, Timestamp>,
    /// A node not heard for longer is lost.
    pub node_timeout: Millis,
}

/// Replicas of a job that fit nowhere now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unplaced {
    /// How many.
    pub count: u32,
    /// What the nodes said to the last of them.
    pub refusals: Refusals,
}

impl Unplaced {
    /// Whether room is being freed for the last of them.
    pub fn is_expected(&self) -> bool {
        matches!(self.refusals.main(), Some(Refusal::BeingFreed { .. }))
    }
}

/// What a pass came to.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// To be proposed in this order.
    pub commands: Vec<Command>,
    /// Jobs with replicas that fit nowhere now: look again when nodes change.
    pub unplaced: BTreeMap<JobId, Unplaced>,
    /// Look again at the latest then, for what waits for time to pass.
    pub next_look: Option<Timestamp>,
}

impl Plan {
    /// Asks for another look at `at`.
    fn look_at(&mut self, at: Timestamp) {
        self.next_look = Some(self.next_look.map_or(at, |known| known.min(at)));
    }
}

#[cfg(test)]
mod tests;
