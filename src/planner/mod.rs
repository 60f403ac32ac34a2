//! Pure functions from a state to commands: `(state, inputs, scope) -> commands`.
//!
//! A planner does no I/O and changes nothing; the leader proposes what it returns, and looks
//! again when that is applied. `plan` is the pass over all of them; the scheduler is one.

mod cleanup;
mod drain;
mod liveness;
mod replicas;
mod rollout;
pub mod scheduler;

use std::collections::{BTreeMap, BTreeSet};

use self::scheduler::{Ask, Fleet, Refusals};
use crate::limits::PLACEMENTS_PER_COMMAND_MAX;
use crate::model::allocation::StopReason;
use crate::model::name::{AllocId, JobId, NodeName};
use crate::model::time::{Millis, Timestamp};
use crate::state::{Command, Job, Placements, State};

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

/// What planners of one pass hand to one another.
struct Pass<'s> {
    state: &'s State,
    inputs: &'s Inputs,
    plan: Plan,
    stops: Vec<(AllocId, StopReason)>,
    asks: Vec<Ask<'s>>,
}

impl<'s> Pass<'s> {
    fn stop(&mut self, alloc: AllocId, reason: StopReason) {
        self.stops.push((alloc, reason));
    }

    fn jobs(&self, scope: &Scope) -> Vec<(&'s JobId, &'s Job)> {
        if scope.all {
            return self.state.jobs().map(|(id, job)| (id, &**job)).collect();
        }
        let state = self.state;
        scope
            .jobs
            .iter()
            .filter_map(|id| state.jobs_from(id).next())
            .filter(|(id, _)| scope.jobs.contains(*id))
            .map(|(id, job)| (id, &**job))
            .collect()
    }

    /// How many of the job's places are without a healthy replica now: what a promise such as
    /// "one at a time" counts.
    fn in_flight(&self, id: &JobId, job: &Job) -> u32 {
        let healthy = self
            .state
            .allocs_of(id)
            .filter(|alloc| alloc.healthy() && job.runs_current(alloc.version))
            .filter(|alloc| {
                let since = self.inputs.now.since(alloc.health_since);
                since >= job.spec().update.min_healthy
            })
            .count() as u32;
        let old = self
            .state
            .allocs_of(id)
            .filter(|alloc| alloc.healthy() && !job.runs_current(alloc.version));
        job.replicas().saturating_sub(healthy + old.count() as u32)
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
    place(state, asks, &mut plan);
    plan
}

/// Finds a node for each ask, the most important first.
fn place(state: &State, mut asks: Vec<Ask<'_>>, plan: &mut Plan) {
    if asks.is_empty() {
        return;
    }
    asks.sort_by(|left, right| {
        let key = |ask: &Ask<'_>| (std::cmp::Reverse(ask.spec.priority), ask.id.clone(), ask.index);
        key(left).cmp(&key(right))
    });
    let mut fleet = Fleet::new(state);
    let mut placements = Placements::default();
    let mut full: BTreeSet<JobId> = BTreeSet::new();
    for ask in asks {
        // Where one replica found no room, its equals find none either.
        let equal = ask.node.is_none();
        if equal && full.contains(ask.id) {
            if let Some(unplaced) = plan.unplaced.get_mut(ask.id) {
                unplaced.count += 1;
            }
            continue;
        }
        match fleet.place(&ask) {
            Ok(row) => placements.push(row),
            Err(refusals) => {
                let known = plan
                    .unplaced
                    .entry(ask.id.clone())
                    .or_insert_with(|| Unplaced { count: 0, refusals: Refusals::default() });
                known.count += 1;
                known.refusals = refusals;
                if equal {
                    full.insert(ask.id.clone());
                }
            }
        }
        if placements.len() == PLACEMENTS_PER_COMMAND_MAX {
            plan.commands.push(Command::Place(Box::new(std::mem::take(&mut placements))));
        }
    }
    if !placements.is_empty() {
        plan.commands.push(Command::Place(Box::new(placements)));
    }
}

#[cfg(test)]
mod tests;
