//! Pure functions from a state to commands: `(state, inputs, scope) -> commands`.
//!
//! A planner does no I/O and changes nothing; the leader proposes what it returns, and looks
//! again when that is applied. `plan` is the pass over all of them; the scheduler is one.

mod cleanup;
mod drain;
mod liveness;
mod pass;
mod placing;
mod replicas;
mod rollout;
pub mod scheduler;

use std::collections::{BTreeMap, BTreeSet};

use self::pass::Pass;
use self::scheduler::Refusals;
use crate::model::name::{JobId, NodeName};
use crate::model::time::{Millis, Timestamp};
use crate::state::{Command, State};

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

/// One pass of all planners.
pub fn plan(state: &State, inputs: &Inputs, scope: &Scope) -> Plan {
    let plan = Plan::default();
    let mut pass = Pass { state, inputs, plan, stops: Vec::new(), asks: Vec::new() };
    liveness::look(&mut pass);
    if !pass.plan.commands.is_empty() {
        // What to do about it is planned on the state that knows of it.
        return pass.plan;
    }
    let jobs = pass.jobs(scope);
    for (id, job) in &jobs {
        replicas::look(&mut pass, id, job);
        rollout::look(&mut pass, id, job);
    }
    drain::look(&mut pass);
    for (id, job) in &jobs {
        cleanup::look(&mut pass, id, job);
    }
    if scope.all {
        cleanup::replies(&mut pass);
    }
    let Pass { mut plan, mut stops, asks, .. } = pass;
    if !stops.is_empty() {
        stops.sort_by_key(|(alloc, _)| *alloc);
        stops.dedup_by_key(|(alloc, _)| *alloc);
        plan.commands.push(Command::StopAllocs { stops });
    }
    placing::place(state, asks, &mut plan);
    plan
}

#[cfg(test)]
mod tests;
