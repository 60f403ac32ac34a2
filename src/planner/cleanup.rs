//! Forgets what has ended and nobody will ask about.

use std::collections::BTreeMap;

use super::Pass;
use crate::limits::{
    ENDED_ALLOCATION_KEPT_MS, ENDED_ALLOCATIONS_KEPT_PER_REPLICA, IDEMPOTENCY_KEPT_MS,
    STOPS_PER_COMMAND_MAX,
};
use crate::model::job::JobKind;
use crate::model::name::{AllocId, JobId};
use crate::model::time::Millis;
use crate::state::{Command, Job};

pub(super) fn look(pass: &mut Pass<'_>, id: &JobId, job: &Job) {
    let mut allocs = Vec::new();
    let mut newest: BTreeMap<u32, Vec<AllocId>> = BTreeMap::new();
    let mut live = 0_u32;
    let kept_until = |at| at + Millis(ENDED_ALLOCATION_KEPT_MS);
    for alloc in pass.state.allocs_of(id) {
        if !alloc.ended() {
            live += 1;
            continue;
        }
        let gone_place = !matches!(job.spec().kind, JobKind::System | JobKind::Batch { .. })
            && alloc.index >= job.replicas();
        if gone_place && kept_until(alloc.changed_at) <= pass.inputs.now {
            allocs.push(alloc.id);
        } else {
            newest.entry(alloc.index).or_default().push(alloc.id);
        }
    }
    for ids in newest.values() {
        let surplus = ids.len().saturating_sub(ENDED_ALLOCATIONS_KEPT_PER_REPLICA);
        allocs.extend(&ids[..surplus]);
    }
    // The rest goes with the next pass.
    allocs.truncate(STOPS_PER_COMMAND_MAX);
    let jobs = if job.purged && live == 0 { vec![id.clone()] } else { Vec::new() };
    if allocs.is_empty() && jobs.is_empty() {
        return;
    }
    let replies_before = pass.inputs.now - Millis(IDEMPOTENCY_KEPT_MS);
    pass.plan.commands.push(Command::CollectGarbage { allocs, jobs, replies_before });
}

/// Old replies to idempotent requests go with the full pass.
pub(super) fn replies(pass: &mut Pass<'_>) {
    let replies_before = pass.inputs.now - Millis(IDEMPOTENCY_KEPT_MS);
    if pass.state.has_replies_before(replies_before) {
        let (allocs, jobs) = (Vec::new(), Vec::new());
        pass.plan.commands.push(Command::CollectGarbage { allocs, jobs, replies_before });
    }
}
