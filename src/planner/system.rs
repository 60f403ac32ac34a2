//! System jobs: one copy on every node that fits; a new version comes in steps.

use std::collections::{BTreeMap, BTreeSet};

use super::Pass;
use super::deployments::{Mode, mode};
use super::progress::settled;
use super::replicas::{Again, again, system_nodes};
use super::scheduler::{Ask, refusal_when_empty};
use crate::model::allocation::{Allocation, Desired, StopReason};
use crate::model::name::{JobId, NodeName};
use crate::model::node::Node;
use crate::state::{Job, State};

/// What a node has of the job.
#[derive(Debug, Default)]
struct Copy<'s> {
    live: Vec<&'s Allocation>,
    last: Option<&'s Allocation>,
}

pub(super) fn look<'s>(pass: &mut Pass<'s>, id: &'s JobId, job: &'s Job) {
    let mut copies: BTreeMap<&'s NodeName, Copy<'s>> = BTreeMap::new();
    let mut indices: BTreeSet<u32> = BTreeSet::new();
    for alloc in pass.state.allocs_of(id) {
        let copy = copies.entry(&alloc.node).or_default();
        if alloc.ended() {
            copy.last = Some(alloc);
        } else {
            indices.insert(alloc.index);
            copy.live.push(alloc);
        }
    }
    stop_unfit(pass, job, &copies);
    let deployment = pass.state.latest_deployment(job).map(|latest| &**latest);
    let mode = mode(pass.state, job, deployment);
    roll(pass, job, mode, &copies);
    let back = deployment.and_then(|deployment| deployment.from);
    let back = back.filter(|back| !job.runs_current(*back));
    for node in pass.state.nodes() {
        let fits = node.takes_work() && refusal_when_empty(job.spec(), node).is_none();
        let copy = copies.get(&node.name);
        if !fits || copy.is_some_and(|copy| !copy.live.is_empty()) {
            continue;
        }
        let last = copy.and_then(|copy| copy.last);
        let turned = last.is_some_and(|last| turned(job, last));
        let version = match (back, mode) {
            (Some(back), Mode::Keep | Mode::Beside(_)) if !turned => back,
            _ => job.current().version,
        };
        // What failed was this version; another is another story.
        let runs_as = |version| job.version(version).map(|version| version.runs_as);
        let failed = last.filter(|last| runs_as(last.version) == runs_as(version));
        match failed.map_or(Again::Now, |last| again(job, last)) {
            Again::At(at) if at > pass.inputs.now => {
                pass.plan.look_at(at);
                continue;
            }
            Again::Never(why) => {
                if let Some(last) = last.filter(|last| !last.gave_up) {
                    pass.give_up(last.id, why);
                }
                continue;
            }
            Again::Now | Again::At(_) => {}
        }
        // A node that had a replica gets the same number again where that is free.
        let index = match last.map(|last| last.index).filter(|index| !indices.contains(index)) {
            Some(index) => index,
            None => lowest_free(&indices),
        };
        indices.insert(index);
        let spec = job.spec_of(version);
        let node = Some(&node.name);
        pass.asks.push(Ask { id, version, spec, index, node, previous: last });
    }
}

/// Whether a copy that has ended made way for the new version, or was of it.
fn turned(job: &Job, last: &Allocation) -> bool {
    made_way(last) || job.runs_current(last.version)
}

fn made_way(last: &Allocation) -> bool {
    matches!(last.desired, Desired::Stop(StopReason::Updated | StopReason::Reverted))
}

/// Whether a deployment does not wait for a node without a copy: the copy was given up there, or
/// there is no room for it, and none was taken away for this deployment.
pub(super) fn cannot_have(state: &State, id: &JobId, job: &Job, node: &Node) -> bool {
    let here = || state.allocs_on(&node.name).filter(|alloc| alloc.job == *id);
    if here().any(|alloc| !alloc.ended()) {
        return false;
    }
    let last = here().last();
    let left = node.resources.minus(state.node_use(&node.name).resources);
    let full = left.lacks(job.spec().reserved()).is_some();
    match last {
        Some(last) if made_way(last) => false,
        Some(last) if last.gave_up => true,
        _ => full,
    }
}

fn stop_unfit(pass: &mut Pass<'_>, job: &Job, copies: &BTreeMap<&NodeName, Copy<'_>>) {
    for (name, copy) in copies {
        let node = pass.state.node(name);
        let fits = node.is_some_and(|node| refusal_when_empty(job.spec(), node).is_none());
        for alloc in &copy.live {
            if alloc.wanted() && !fits && job.runs_current(alloc.version) {
                pass.stop(alloc.id, StopReason::NodeUnfit);
            }
        }
    }
}

/// Stops copies of other versions, as many at a time as the job allows.
fn roll(pass: &mut Pass<'_>, job: &Job, mode: Mode, copies: &BTreeMap<&NodeName, Copy<'_>>) {
    let at_all = match mode {
        Mode::Keep => return,
        Mode::Beside(count) => count as usize,
        Mode::Roll | Mode::Switched { .. } => usize::MAX,
    };
    let now = pass.inputs.now;
    let (mut touched, mut in_flight) = (0_usize, 0_usize);
    let mut turns: Vec<&Allocation> = Vec::new();
    for node in system_nodes(pass.state, job) {
        let copy = copies.get(&node.name);
        if copy.is_some_and(|copy| !copy.live.is_empty()) {
            continue;
        }
        // What made way for the next one counts; a node that had none, or can't keep one, does not.
        let made_way = copy.and_then(|copy| copy.last).is_some_and(made_way);
        in_flight += usize::from(made_way);
        touched += usize::from(copy.and_then(|copy| copy.last).is_some_and(|l| turned(job, l)));
    }
    for copy in copies.values() {
        let live = &copy.live;
        let new = live.iter().any(|alloc| alloc.wanted() && job.runs_current(alloc.version));
        let leaving = live.iter().any(|alloc| !alloc.wanted());
        let unsettled = live.iter().any(|alloc| {
            let old = !job.runs_current(alloc.version);
            !(alloc.available() && (old || settled(pass.state, now, job, alloc)))
        });
        touched += usize::from(new || leaving);
        in_flight += usize::from(unsettled);
        for alloc in live.iter().filter(|alloc| alloc.available()) {
            let at = alloc.ready_since + job.spec().update.min_healthy;
            if at > now {
                pass.plan.look_at(at);
            }
        }
        let old = live.iter().find(|alloc| alloc.wanted() && !job.runs_current(alloc.version));
        turns.extend(old.copied());
    }
    // One that serves nobody costs nothing to replace.
    turns.sort_by_key(|alloc| alloc.available());
    for alloc in turns {
        let free = !alloc.available();
        let room = in_flight < job.spec().update.max_parallel as usize;
        if touched >= at_all || !(free || room) {
            break;
        }
        touched += 1;
        in_flight += usize::from(!free);
        pass.stop(alloc.id, StopReason::Updated);
    }
}

fn lowest_free(taken: &BTreeSet<u32>) -> u32 {
    // The set is ordered: the first gap is where a number is larger than its place.
    let gap = taken.iter().zip(0..).find(|(index, place)| *index != place);
    gap.map_or(taken.len() as u32, |(_, place)| place)
}
