//! Moves work away from nodes that are being drained: batch work only at the deadline, system
//! jobs when nothing else is left. Services see to themselves, within their promises.

use super::Pass;
use crate::model::allocation::{Allocation, StopReason};
use crate::model::job::JobKind;

pub(super) fn look(pass: &mut Pass<'_>) {
    let state = pass.state;
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
        let kind = |alloc: &Allocation| state.job(&alloc.job).map(|job| job.spec().kind);
        let only_system = left.iter().all(|alloc| kind(alloc) == Some(JobKind::System));
        for alloc in left.iter().filter(|alloc| alloc.wanted()) {
            let stops = match kind(alloc) {
                Some(JobKind::System) => overdue || only_system,
                Some(JobKind::Batch { .. }) | None => overdue,
                Some(JobKind::Service { .. }) => false,
            };
            if stops {
                pass.stop(alloc.id, StopReason::Drained);
            }
        }
    }
}
