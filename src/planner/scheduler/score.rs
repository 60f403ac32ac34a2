//! What draws a replica to a node. Each part lies between -1 and 1 before its weight.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::allocation::Allocation;
use crate::model::constraint::Subject;
use crate::model::job::JobSpec;
use crate::model::name::{AllocId, JobId, NodeName};
use crate::model::node::Node;
use crate::model::resources::Resources;
use crate::state::{NodeUse, State};

/// Where the replicas of one job are, and will be: those on their way out don't count where
/// something is spread evenly.
pub(super) struct Crowd<'s> {
    nodes: BTreeMap<NodeName, u32>,
    total: u32,
    /// For each subject that the job spreads over: how many are on nodes with each value.
    spread: Vec<(&'s Subject, BTreeMap<Option<String>, u32>)>,
    /// Allocations that are counted.
    counted: BTreeSet<AllocId>,
}

impl<'s> Crowd<'s> {
    pub(super) fn new(state: &State, job: &JobId, spec: &'s JobSpec) -> Self {
        let spread = spec.placement.spread.iter().map(|subject| (subject, BTreeMap::new()));
        let mut crowd = Self {
            nodes: BTreeMap::new(),
            total: 0,
            spread: spread.collect(),
            counted: BTreeSet::new(),
        };
        let live = || state.allocs_of(job).filter(|alloc| !alloc.ended());
        let replaced: BTreeSet<AllocId> =
            live().filter(|alloc| alloc.wanted()).filter_map(|alloc| alloc.previous).collect();
        // Where two may not be there at once, one on its way out holds its place on the node.
        let overlap = state.job(job).is_some_and(|job| job.lets_overlap());
        for alloc in live() {
            let leaves = !alloc.wanted() || alloc.moving.is_some() || replaced.contains(&alloc.id);
            let Some(node) = state.node(&alloc.node) else { continue };
            if !leaves {
                crowd.counted.insert(alloc.id);
                crowd.add(node);
            } else if !overlap {
                *crowd.nodes.entry(node.name.clone()).or_default() += 1;
            }
        }
        crowd
    }

    pub(super) fn add(&mut self, node: &Node) {
        *self.nodes.entry(node.name.clone()).or_default() += 1;
        self.total += 1;
        for (subject, counts) in &mut self.spread {
            *counts.entry(subject.of(node).map(str::to_owned)).or_default() += 1;
        }
    }

    /// Counts one out whose successor is being placed; whether it was counted.
    pub(super) fn leave(&mut self, state: &State, alloc: &Allocation) -> bool {
        let Some(node) = state.node(&alloc.node) else { return false };
        if !self.counted.remove(&alloc.id) {
            return false;
        }
        let less = |count: &mut u32| *count = count.saturating_sub(1);
        self.nodes.entry(node.name.clone()).and_modify(less);
        self.total = self.total.saturating_sub(1);
        for (subject, counts) in &mut self.spread {
            counts.entry(subject.of(node).map(str::to_owned)).and_modify(less);
        }
        true
    }

    /// Counts one in again whose successor found no place.
    pub(super) fn stay(&mut self, state: &State, alloc: &Allocation) {
        if let Some(node) = state.node(&alloc.node)
            && self.counted.insert(alloc.id)
        {
            self.add(node);
        }
    }

    pub(super) fn on(&self, node: &NodeName) -> u32 {
        self.nodes.get(node).copied().unwrap_or(0)
    }

    /// 0 where nobody is alike, -1 for each subject in which all are.
    pub(super) fn alike(&self, node: &Node) -> f64 {
        let total = f64::from(self.total.max(1));
        let count = |(subject, counts): &(&Subject, BTreeMap<Option<String>, u32>)| {
            counts.get(&subject.of(node).map(str::to_owned)).copied().unwrap_or(0)
        };
        self.spread.iter().map(|spread| -f64::from(count(spread)) / total).sum()
    }
}

/// Taken off a node on which the replica before this one failed, or which it was to leave.
pub(super) const BETTER_ELSEWHERE: f64 = 4.0;

/// The most that [`node`] comes to.
pub(super) const NODE_MAX: f64 = 1.0;

/// What the job's own wishes come to: the same for all nodes that are alike to them.
pub(super) fn wishes(alike: f64, preference: f64) -> f64 {
    4.0 * alike + 2.0 * preference
}

/// What speaks for one node by itself.
pub(super) fn node(spec: &JobSpec, node: &Node, used: &NodeUse, crowd: &Crowd<'_>) -> f64 {
    // 0 for the first replica on a node, then -1/2, -2/3, …
    let apart = 1.0 / (1.0 + f64::from(crowd.on(&node.name))) - 1.0;
    packing(node.resources, used.resources.plus(spec.reserved())) + 3.0 * apart
}

/// Best fit: the fuller the node after this replica the better, so that large gaps stay whole
/// (BestFit v3 of Google's published cluster traces work: the sum of 10^free over resources).
fn packing(all: Resources, used: Resources) -> f64 {
    let free = |all: u64, used: u64| {
        if all == 0 { 0.0 } else { all.saturating_sub(used) as f64 / all as f64 }
    };
    let cpu = free(all.cpu_milli, used.cpu_milli);
    let memory = free(all.memory, used.memory);
    // 20 when empty, 2 when full.
    (20.0 - 10_f64.powf(cpu) - 10_f64.powf(memory)) / 18.0
}

/// How many of the preferences hold, by weight: from -1 to 1.
pub(super) fn preference(spec: &JobSpec, node: &Node) -> f64 {
    let weights: f64 = spec.placement.prefer.iter().map(|p| f64::from(p.weight).abs()).sum();
    if weights == 0.0 {
        return 0.0;
    }
    let kept = spec.placement.prefer.iter().filter(|preference| preference.rule.holds(node));
    kept.map(|preference| f64::from(preference.weight)).sum::<f64>() / weights
}
