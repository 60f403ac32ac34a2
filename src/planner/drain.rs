//! Moves work away from nodes that are being drained: services within their promises, batch work
//! only at the deadline, system jobs when nothing else is left.

use std::collections::BTreeMap;

use super::Pass;
use super::rollout::wait_for_min_healthy;
use super::scheduler::explain;
use crate::model::allocation::{Allocation, StopReason};
use crate::model::job::JobKind;
use crate::model::name::JobId;
use crate::model::node::Node;

pub(super) fn look(pass: &mut Pass<'_>) {
    let state = pass.state;
    // Stops asked for in this pass count against each job's promise too.
    let mut asked: BTreeMap<&JobId, u32> = BTreeMap::new();
    for (id, _) in &pass.stops {
        if let Some(alloc) = state.alloc(*id).filter(|alloc| alloc.healthy()) {
            *asked.entry(&alloc.job).or_default() += 1;
        }
    }
    for node in state.nodes() {
        let Some(drain) = &node.drain else { continue };
        let left: Vec<&Allocation> =
            state.allocs_on(&node.name).filter(|alloc| !alloc.ended()).map(|a| &**a).collect();
        if left.is_empty() {
            continue;
        }
        let due = drain.deadline.map(|deadline| drain.since + deadline);
        let overdue = due.is_some_and(|due| due <= pass.inputs.now);
        if let Some(due) = due.filter(|_| !overdue) {
            pass.plan.look_at(due);
        }
        let is_system = |alloc: &Allocation| {
            state.job(&alloc.job).is_some_and(|job| job.spec().kind == JobKind::System)
        };
        let only_system = left.iter().all(|alloc| is_system(alloc));
        for alloc in left.iter().filter(|alloc| alloc.wanted()) {
            if overdue || (is_system(alloc) && only_system) || may_move(pass, alloc, node, &asked) {
                pass.stop(alloc.id, StopReason::Drained);
                *asked.entry(&alloc.job).or_default() += 1;
            } else if let Some(job) = state.job(&alloc.job) {
                wait_for_min_healthy(pass, &alloc.job, job);
            }
        }
    }
}

/// Whether an allocation may be stopped now: its job keeps its promise, and there is another place.
fn may_move(
    pass: &Pass<'_>,
    alloc: &Allocation,
    node: &Node,
    asked: &BTreeMap<&JobId, u32>,
) -> bool {
    let Some(job) = pass.state.job(&alloc.job) else { return true };
    match job.spec().kind {
        JobKind::System | JobKind::Batch { .. } => return false,
        JobKind::Service { .. } if !alloc.healthy() => return true,
        JobKind::Service { .. } => {}
    }
    let under_way = pass.in_flight(&alloc.job, job) + asked.get(&alloc.job).copied().unwrap_or(0);
    let promised = under_way < job.spec().update.max_parallel;
    promised && explain(pass.state, job.spec()).fits.iter().any(|other| *other != node.name)
}
