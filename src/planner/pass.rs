//! One pass: every planner looks, then what they ask for is placed and put into commands.

use std::collections::BTreeSet;

use super::scheduler::{Ask, Fleet, Refusals, Room};
use super::{
    Inputs, Plan, Scope, Unplaced, cleanup, deployments, drain, liveness, probation, replicas,
};
use crate::limits::{PLACEMENTS_PER_COMMAND_MAX, REQUEST_BYTES_MAX, STOPS_PER_COMMAND_MAX};
use crate::model::allocation::StopReason;
use crate::model::name::{AllocId, JobId};
use crate::state::{Command, Job, Placements, State};

/// What planners of one pass hand to one another.
pub(super) struct Pass<'s> {
    pub(super) state: &'s State,
    pub(super) inputs: &'s Inputs,
    pub(super) plan: Plan,
    pub(super) asks: Vec<Ask<'s>>,
    pub(super) stops: Vec<(AllocId, StopReason)>,
    pub(super) given_up: Vec<(AllocId, String)>,
}

impl<'s> Pass<'s> {
    pub(super) fn stop(&mut self, alloc: AllocId, reason: StopReason) {
        self.stops.push((alloc, reason));
    }

    pub(super) fn give_up(&mut self, alloc: AllocId, why: String) {
        self.given_up.push((alloc, why));
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
}

/// One pass of all planners.
pub fn plan(state: &State, inputs: &Inputs, scope: &Scope) -> Plan {
    let plan = Plan::default();
    let (asks, stops, given_up) = (Vec::new(), Vec::new(), Vec::new());
    let mut pass = Pass { state, inputs, plan, asks, stops, given_up };
    liveness::look(&mut pass);
    if !pass.plan.commands.is_empty() {
        // What to do about it is planned on the state that knows of it.
        return pass.plan;
    }
    let jobs = pass.jobs(scope);
    for (id, job) in &jobs {
        // Where a deployment takes another turn, its replicas follow on the state that knows of it.
        if !deployments::turns(&mut pass, id, job) {
            replicas::look(&mut pass, id, job);
        }
    }
    drain::look(&mut pass);
    for (id, job) in &jobs {
        cleanup::look(&mut pass, id, job);
    }
    if scope.all {
        probation::look(&mut pass);
        cleanup::replies(&mut pass);
    }
    let Pass { mut plan, mut stops, given_up, asks, .. } = pass;
    for allocs in given_up.chunks(STOPS_PER_COMMAND_MAX) {
        plan.commands.push(Command::GiveUpAllocs { allocs: allocs.to_vec() });
    }
    if !stops.is_empty() {
        stops.sort_by_key(|(alloc, _)| *alloc);
        stops.dedup_by_key(|(alloc, _)| *alloc);
        for stops in stops.chunks(STOPS_PER_COMMAND_MAX) {
            plan.commands.push(Command::StopAllocs { stops: stops.to_vec() });
        }
    }
    place(state, asks, &mut plan);
    plan
}

/// Bytes of a placement in the log beside its ports and devices.
const ROW_BYTES: usize = 64;

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
    let mut weight = 0;
    let mut full: BTreeSet<JobId> = BTreeSet::new();
    for ask in asks {
        // Where one replica found no room, its equals find none either.
        let equal = ask.is_like_others(state);
        if equal && full.contains(ask.id) {
            if let Some(unplaced) = plan.unplaced.get_mut(ask.id) {
                unplaced.count += 1;
            }
            continue;
        }
        match fleet.place(&ask) {
            Ok(row) => {
                // About what it takes in the log.
                weight += ROW_BYTES + 3 * row.ports.len() + 5 * row.gpus.len();
                placements.push(row);
            }
            Err(refusals) => {
                let known = plan
                    .unplaced
                    .entry(ask.id.clone())
                    .or_insert_with(|| Unplaced { count: 0, refusals: Refusals::default() });
                known.count += 1;
                let room = fleet.make_room(&ask);
                known.refusals = room.as_ref().map_or(refusals, Room::refusals);
                let found = room.is_some();
                if let Some(Room { victims, .. }) = room.filter(|room| !room.victims.is_empty()) {
                    let by = ask.id.clone();
                    plan.commands.push(Command::PreemptAllocs { victims, by });
                }
                if equal && !found {
                    full.insert(ask.id.clone());
                }
            }
        }
        if placements.len() == PLACEMENTS_PER_COMMAND_MAX || weight >= REQUEST_BYTES_MAX / 4 {
            weight = 0;
            plan.commands.push(Command::Place(Box::new(std::mem::take(&mut placements))));
        }
    }
    if !placements.is_empty() {
        plan.commands.push(Command::Place(Box::new(placements)));
    }
}
