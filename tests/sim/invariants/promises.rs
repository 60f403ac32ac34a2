//! Planners never stop a replica that the service's strategy promises to keep. What fails by
//! itself, is scaled down, or is still there at a drain's deadline breaks no promise; a plan that
//! came too late, after something else had failed, does.

use std::collections::{BTreeMap, BTreeSet};

use orch::model::allocation::{Allocation, Desired, StopReason};
use orch::model::job::{JobKind, UpdateOrder};
use orch::model::name::{AllocId, JobId};
use orch::state::State;

pub fn check(index: u64, before: &State, now: &State) {
    let mut stopped: BTreeMap<&JobId, BTreeSet<AllocId>> = BTreeMap::new();
    for alloc in now.allocs() {
        let Desired::Stop(reason) = alloc.desired else { continue };
        let was_wanted = before.alloc(alloc.id).is_some_and(|earlier| earlier.wanted());
        if was_wanted && bound(reason) && !overdue(now, alloc, reason) {
            stopped.entry(&alloc.job).or_default().insert(alloc.id);
        }
    }
    for (id, stopped) in stopped {
        let Some(job) = before.job(id).filter(|job| job.active()) else { continue };
        let JobKind::Service { replicas } = job.spec().kind else { continue };
        let promised = match job.spec().order() {
            UpdateOrder::StartFirst => replicas,
            UpdateOrder::StopFirst => replicas.saturating_sub(job.spec().update.max_parallel),
        };
        let available = |without: &BTreeSet<AllocId>| {
            let counts = |alloc: &&std::sync::Arc<Allocation>| {
                alloc.available() && alloc.index < replicas && !without.contains(&alloc.id)
            };
            let places: BTreeSet<u32> =
                before.allocs_of(id).filter(counts).map(|alloc| alloc.index).collect();
            places.len() as u32
        };
        let (were, are) = (available(&BTreeSet::new()), available(&stopped));
        assert!(
            are == were || are >= promised,
            "entry {index} breaks the promise of {id}: {were} of {replicas} were available, {are} \
             are left, {promised} were promised; stopped: {:#?}; all: {:#?}",
            stopped.iter().filter_map(|id| now.alloc(*id)).collect::<Vec<_>>(),
            before.allocs_of(id).filter(|alloc| !alloc.ended()).collect::<Vec<_>>(),
        );
    }
}

/// Whether planners stop for this reason only as far as the promise allows.
fn bound(reason: StopReason) -> bool {
    matches!(
        reason,
        StopReason::Updated
            | StopReason::Reverted
            | StopReason::Drained
            | StopReason::Moved
            | StopReason::Rebalanced
    )
}

fn overdue(now: &State, alloc: &Allocation, reason: StopReason) -> bool {
    let drain = now.node(&alloc.node).and_then(|node| node.drain.as_ref());
    let due = drain.and_then(|drain| Some(drain.since + drain.deadline?));
    reason == StopReason::Drained && due.is_some_and(|due| due <= now.stamp().at)
}
