//! A new version takes the old one's place, at most `max_parallel` replicas at a time: one is
//! stopped, its place is filled with the new version, and when that is healthy the next follows.

use super::Pass;
use crate::model::allocation::{Allocation, StopReason};
use crate::model::job::JobKind;
use crate::model::name::JobId;
use crate::state::Job;

pub(super) fn look<'s>(pass: &mut Pass<'s>, id: &'s JobId, job: &'s Job) {
    if !job.active() {
        return;
    }
    let wanted_places = match job.spec().kind {
        JobKind::System => u32::MAX,
        _ => job.replicas(),
    };
    let mut old: Vec<&Allocation> = pass
        .state
        .allocs_of(id)
        .filter(|alloc| alloc.wanted() && !job.runs_current(alloc.version))
        .filter(|alloc| alloc.index < wanted_places)
        .map(|alloc| &**alloc)
        .collect();
    if old.is_empty() {
        return;
    }
    // One that serves nobody costs nothing to replace.
    for alloc in old.extract_if(.., |alloc| !alloc.healthy()) {
        pass.stop(alloc.id, StopReason::Updated);
    }
    let in_flight = match job.spec().kind {
        JobKind::System => system_in_flight(pass, id, job),
        _ => pass.in_flight(id, job),
    };
    let budget = job.spec().update.max_parallel.saturating_sub(in_flight) as usize;
    old.sort_by_key(|alloc| alloc.index);
    for alloc in old.into_iter().take(budget) {
        pass.stop(alloc.id, StopReason::Updated);
    }
    wait_for_min_healthy(pass, id, job);
}

/// Nodes whose copy is not healthy yet, or is on its way out.
fn system_in_flight(pass: &Pass<'_>, id: &JobId, job: &Job) -> u32 {
    let min_healthy = job.spec().update.min_healthy;
    pass.state
        .allocs_of(id)
        .filter(|alloc| !alloc.ended())
        .filter(|alloc| {
            let settled = pass.inputs.now.since(alloc.health_since) >= min_healthy;
            let old = !job.runs_current(alloc.version);
            !(alloc.healthy() && (old || settled))
        })
        .count() as u32
}

/// Nothing tells us when a replica has been healthy for long enough but the clock.
pub(super) fn wait_for_min_healthy(pass: &mut Pass<'_>, id: &JobId, job: &Job) {
    let min_healthy = job.spec().update.min_healthy;
    let next = pass
        .state
        .allocs_of(id)
        .filter(|alloc| alloc.healthy() && job.runs_current(alloc.version))
        .map(|alloc| alloc.health_since + min_healthy)
        .filter(|at| *at > pass.inputs.now)
        .min();
    if let Some(at) = next {
        pass.plan.look_at(at);
    }
}
