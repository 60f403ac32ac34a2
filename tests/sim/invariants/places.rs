//! A place holds one replica of a version: two would take a client's request twice, or write the
//! same data. Only the successor of one that is to go elsewhere stands beside it for a while, and
//! what came back with a lost node until it is seen which of the two is well.

use std::collections::{BTreeMap, BTreeSet};

use orch::model::allocation::Allocation;
use orch::model::job::{UpdateOrder, UpdateStrategy};
use orch::model::name::AllocId;
use orch::state::State;

pub fn check(index: u64, state: &State, returned: &BTreeSet<AllocId>) {
    for (id, job) in state.jobs() {
        let mut places: BTreeMap<_, Vec<&Allocation>> = BTreeMap::new();
        for alloc in state.allocs_of(id).filter(|alloc| alloc.wanted()) {
            if !returned.contains(&alloc.id) {
                let runs_as = job.version(alloc.version).map(|version| version.runs_as);
                places.entry((alloc.index, runs_as)).or_default().push(alloc);
            }
        }
        for ((replica, _), allocs) in places {
            let succeeded = |a: &Allocation| allocs.iter().any(|b| b.previous == Some(a.id));
            let last = allocs.iter().filter(|alloc| !succeeded(alloc)).count();
            assert!(
                allocs.len() <= 2 && last == 1,
                "entry {index}: {id}.{replica} is there more than once: {allocs:#?}"
            );
            let overlap = job.versions.iter().any(|version| {
                version.spec.order() == UpdateOrder::StartFirst
                    || version.spec.update.strategy != UpdateStrategy::Rolling
            });
            assert!(
                allocs.len() == 1 || overlap,
                "entry {index}: {id}.{replica} may not be there twice: {allocs:#?}"
            );
        }
    }
}
