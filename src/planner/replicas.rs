//! As many allocations as are wanted: no more, no fewer.

use std::collections::{BTreeMap, BTreeSet};

use super::Pass;
use super::scheduler::{Ask, refusal_when_empty};
use crate::model::allocation::{AllocStatus, Allocation, StopReason};
use crate::model::job::JobKind;
use crate::model::name::JobId;
use crate::model::time::{Millis, Timestamp};
use crate::state::Job;

/// Wait before a failed allocation is placed anew, doubling with each failure in a row.
const REPLACE_DELAY: Millis = Millis::from_secs(5);
/// The longest such wait.
const REPLACE_DELAY_MAX: Millis = Millis::from_secs(300);

pub(super) fn look<'s>(pass: &mut Pass<'s>, id: &'s JobId, job: &'s Job) {
    if !job.active() {
        let left: Vec<_> = pass.state.allocs_of(id).filter(|alloc| alloc.wanted()).collect();
        for alloc in left {
            pass.stop(alloc.id, StopReason::JobStopped);
        }
        return;
    }
    match job.spec().kind {
        JobKind::System => every_node(pass, id, job),
        JobKind::Service { .. } | JobKind::Batch { .. } => every_index(pass, id, job),
    }
}

/// When the place of an ended allocation may be filled again.
pub(super) fn replace_at(job: &Job, last: &Allocation) -> Option<Timestamp> {
    let own_fault = last.status == AllocStatus::Failed && job.runs_current(last.version);
    own_fault.then(|| {
        let doubled = REPLACE_DELAY.0.saturating_mul(1 << last.failures.min(16));
        last.changed_at + Millis(doubled.min(REPLACE_DELAY_MAX.0))
    })
}

fn every_index<'s>(pass: &mut Pass<'s>, id: &'s JobId, job: &'s Job) {
    let wanted = job.replicas();
    let mut live: BTreeMap<u32, Vec<&Allocation>> = BTreeMap::new();
    let mut last_ended: BTreeMap<u32, &Allocation> = BTreeMap::new();
    for alloc in pass.state.allocs_of(id) {
        if alloc.ended() {
            last_ended.insert(alloc.index, alloc);
        } else {
            live.entry(alloc.index).or_default().push(alloc);
        }
    }
    for (index, allocs) in &live {
        if *index >= wanted {
            for alloc in allocs.iter().filter(|alloc| alloc.wanted()) {
                pass.stop(alloc.id, StopReason::ScaledDown);
            }
        }
    }
    if let JobKind::Batch { timeout: Some(timeout) } = job.spec().kind {
        end_overdue(pass, timeout, live.values().flatten().copied());
    }
    for index in (0..wanted).filter(|index| !live.contains_key(index)) {
        let last = last_ended.get(&index).copied();
        if let Some(at) = last.and_then(|last| replace_at(job, last))
            && at > pass.inputs.now
        {
            pass.plan.look_at(at);
            continue;
        }
        pass.asks.push(Ask {
            id,
            version: job.current().version,
            spec: job.spec(),
            index,
            node: None,
            previous: last,
        });
    }
}

fn end_overdue<'a>(
    pass: &mut Pass<'_>,
    timeout: Millis,
    allocs: impl Iterator<Item = &'a Allocation>,
) {
    for alloc in allocs.filter(|alloc| alloc.wanted()) {
        let first_start = alloc.tasks.values().filter_map(|task| task.started_at).min();
        let Some(started) = first_start else { continue };
        // By the node's clock, which may be behind: nothing starts before it is placed.
        let started = started.max(alloc.created_at);
        let due = started + timeout;
        if due <= pass.inputs.now {
            pass.stop(alloc.id, StopReason::TimedOut);
        } else {
            pass.plan.look_at(due);
        }
    }
}

fn lowest_free(taken: &BTreeSet<u32>) -> u32 {
    // The set is ordered: the first gap is where a number is larger than its place.
    let gap = taken.iter().zip(0..).find(|(index, place)| *index != place);
    gap.map_or(taken.len() as u32, |(_, place)| place)
}

fn every_node<'s>(pass: &mut Pass<'s>, id: &'s JobId, job: &'s Job) {
    let mut indices: BTreeSet<u32> = BTreeSet::new();
    let mut live_on = BTreeSet::new();
    let mut last_on: BTreeMap<_, &Allocation> = BTreeMap::new();
    for alloc in pass.state.allocs_of(id) {
        if alloc.ended() {
            last_on.insert(&alloc.node, alloc);
            continue;
        }
        indices.insert(alloc.index);
        live_on.insert(&alloc.node);
        let fits = pass
            .state
            .node(&alloc.node)
            .is_some_and(|node| refusal_when_empty(job.spec(), node).is_none());
        if alloc.wanted() && !fits && job.runs_current(alloc.version) {
            pass.stop(alloc.id, StopReason::NodeUnfit);
        }
    }
    for node in pass.state.nodes() {
        let fits = node.takes_work() && refusal_when_empty(job.spec(), node).is_none();
        if !fits || live_on.contains(&node.name) {
            continue;
        }
        let last = last_on.get(&node.name).copied();
        if let Some(at) = last.and_then(|last| replace_at(job, last))
            && at > pass.inputs.now
        {
            pass.plan.look_at(at);
            continue;
        }
        // A node that had a replica gets the same number again where that is free.
        let index = match last.map(|last| last.index).filter(|index| !indices.contains(index)) {
            Some(index) => index,
            None => lowest_free(&indices),
        };
        indices.insert(index);
        pass.asks.push(Ask {
            id,
            version: job.current().version,
            spec: job.spec(),
            index,
            node: Some(&node.name),
            previous: last,
        });
    }
}
