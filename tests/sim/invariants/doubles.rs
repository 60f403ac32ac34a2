//! What really runs: no replica of a version runs twice at once, on two machines or on one, since
//! both would take a client's request or write the same data. Only where the state has told so
//! before: a successor that is to be ready before its predecessor stops, and a replica that was
//! given up with its node, of which nobody can tell what it does.

use std::collections::BTreeMap;

use orch::model::allocation::Allocation;
use orch::model::job::{UpdateOrder, UpdateStrategy};
use orch::model::name::AllocId;
use orch::state::State;

use super::jobs::Jobs;
use crate::machine::Task;

/// `running`: by node, the allocation and what runs of it. How many rightly stand beside another.
pub fn check(jobs: &Jobs, running: &[(String, AllocId, Task)]) -> u64 {
    let Some(state) = jobs.state() else { return 0 };
    let mut beside = 0;
    let mut places: BTreeMap<_, Vec<(&str, &Allocation)>> = BTreeMap::new();
    for (node, id, task) in running {
        // One that is forgotten was lost, or its end was reported long ago.
        let Some(alloc) = state.alloc(*id) else { continue };
        if jobs.was_lost(*id) {
            continue;
        }
        let runs_as = state
            .job(&alloc.job)
            .and_then(|job| job.version(alloc.version))
            .map(|version| version.runs_as);
        places.entry((&task.job, task.index, runs_as)).or_default().push((node, alloc));
    }
    for ((job, replica, _), allocs) in places {
        for (place, (node, alloc)) in allocs.iter().enumerate() {
            for (other_node, other) in &allocs[place + 1..] {
                assert!(
                    may_stand_beside(state, alloc, other),
                    "{job}.{replica} runs on {node} and on {other_node}: {alloc:#?} {other:#?}"
                );
                beside += 1;
            }
        }
    }
    beside
}

fn may_stand_beside(state: &State, a: &Allocation, b: &Allocation) -> bool {
    if a.id == b.id {
        return false;
    }
    let overlaps = state.job(&a.job).is_some_and(|job| {
        job.versions.iter().any(|version| {
            version.spec.order() == UpdateOrder::StartFirst
                || version.spec.update.strategy != UpdateStrategy::Rolling
        })
    });
    overlaps && (!a.wanted() || !b.wanted() || a.previous == Some(b.id) || b.previous == Some(a.id))
}
