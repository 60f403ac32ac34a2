//! Chooses a node.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::ports::choose_ports;
use super::score::{self, Crowd};
use super::{Ask, Refusals, refusal};
use crate::model::allocation::AllocStatus;
use crate::model::name::{JobId, NodeName};
use crate::model::node::Node;
use crate::state::{NodeUse, Placement, State};

/// Fitting nodes that are scored for one replica among those that are alike to the job's wishes.
const CANDIDATES_MAX: usize = 48;

/// The nodes with what is in use on them, counting what this pass has placed.
pub(crate) struct Fleet<'s> {
    state: &'s State,
    uses: BTreeMap<&'s NodeName, NodeUse>,
    jobs: BTreeMap<&'s JobId, JobView<'s>>,
}

/// The fleet as one job sees it.
struct JobView<'s> {
    crowd: Crowd<'s>,
    /// Nodes that the job may use as far as only the job and the node matter.
    groups: Vec<Group<'s>>,
    /// What the others said.
    refusals: Refusals,
}

/// Nodes that are alike in everything that the job's wishes look at.
struct Group<'s> {
    nodes: Vec<&'s Node>,
    /// Of the job's preferences.
    preference: f64,
}

impl<'s> JobView<'s> {
    fn new(state: &'s State, ask: &Ask<'s>) -> Self {
        let mut refusals = Refusals::default();
        let mut groups: BTreeMap<(Vec<Option<&str>>, i64), Group<'s>> = BTreeMap::new();
        for node in state.nodes() {
            if let Some(refusal) = refusal::before_use(ask.spec, node) {
                refusals.add(refusal);
                continue;
            }
            let preference = score::preference(ask.spec, node);
            let values = ask.spec.placement.spread.iter().map(|subject| subject.of(node)).collect();
            let key = (values, (preference * 1e6) as i64);
            let group =
                groups.entry(key).or_insert_with(|| Group { nodes: Vec::new(), preference });
            group.nodes.push(node);
        }
        let crowd = Crowd::new(state, ask.id, ask.spec);
        Self { crowd, groups: groups.into_values().collect(), refusals }
    }

    /// The groups with what they are worth to one more replica, the best first.
    fn by_worth(&self) -> Vec<(f64, &Group<'s>)> {
        let worth = |group: &Group<'s>| {
            let alike = group.nodes.first().map_or(0.0, |node| self.crowd.alike(node));
            score::wishes(alike, group.preference)
        };
        let mut groups: Vec<_> = self.groups.iter().map(|group| (worth(group), group)).collect();
        groups.sort_by(|(left, _), (right, _)| right.total_cmp(left));
        groups
    }
}

impl<'s> Fleet<'s> {
    pub(crate) fn new(state: &'s State) -> Self {
        Self { state, uses: BTreeMap::new(), jobs: BTreeMap::new() }
    }

    /// Chooses node, ports and devices for `ask`, and counts them as used.
    pub(crate) fn place(&mut self, ask: &Ask<'s>) -> Result<Placement, Refusals> {
        let state = self.state;
        let view = self.jobs.entry(ask.id).or_insert_with(|| JobView::new(state, ask));
        let mut refusals = view.refusals.clone();
        let mut best: Option<(f64, &'s Node)> = None;
        for (worth, group) in view.by_worth() {
            // Even the best node of a worse group is no better.
            if best.is_some_and(|(top, _)| top >= worth + score::NODE_MAX) {
                break;
            }
            let start = (seed(ask) % group.nodes.len().max(1) as u64) as usize;
            let mut seen = 0;
            // From another place for each replica, so that a large fleet fills evenly.
            for node in group.nodes[start..].iter().chain(&group.nodes[..start]).copied() {
                if ask.node.is_some_and(|name| *name != node.name) {
                    continue;
                }
                let used =
                    self.uses.entry(&node.name).or_insert_with(|| state.node_use(&node.name));
                if let Some(refusal) = refusal::in_use(ask, node, used, &view.crowd) {
                    refusals.add(refusal);
                    continue;
                }
                if ports_are_tight(ask, node, used)
                    && let Err(refusal) = choose_ports(ask, node, used)
                {
                    refusals.add(refusal);
                    continue;
                }
                let mut score = worth + score::node(ask.spec, node, used, &view.crowd);
                if failed_on(ask, &node.name) {
                    score -= score::FAILED_THERE;
                }
                // Equal scores: the first by name, so that a plan can be repeated.
                let better = best.is_none_or(|(top, known)| {
                    score > top || (score == top && node.name < known.name)
                });
                if better {
                    best = Some((score, node));
                }
                seen += 1;
                if seen >= CANDIDATES_MAX {
                    break;
                }
            }
        }
        let Some((_, node)) = best else { return Err(refusals) };
        let used = self.uses.entry(&node.name).or_default();
        let ports = choose_ports(ask, node, used).map_err(|refusal| {
            refusals.add(refusal);
            refusals
        })?;
        let gpus: Vec<u32> = (0..node.resources.gpu)
            .filter(|gpu| !used.gpus.contains(gpu))
            .take(ask.spec.reserved().gpu as usize)
            .collect();
        used.resources = used.resources.plus(ask.spec.reserved());
        used.ports.extend(ports.iter().zip(ask.spec.ports()).map(|(n, port)| (*n, port.protocol)));
        used.gpus.extend(gpus.iter().copied());
        view.crowd.add(node);
        Ok(Placement {
            job: ask.id.clone(),
            version: ask.version,
            index: ask.index,
            node: node.name.clone(),
            ports,
            gpus,
            previous: ask.previous.map(|previous| previous.id),
        })
    }
}

/// Whether the ports to choose may be too few; ports outside the range make it say so early.
fn ports_are_tight(ask: &Ask<'_>, node: &Node, used: &NodeUse) -> bool {
    let (first, last) = node.port_range;
    let range = usize::from(last.saturating_sub(first)) + 1;
    let chosen = ask.spec.ports().filter(|port| port.host.is_none()).count();
    chosen > 0 && used.ports.len() + ask.spec.ports().count() > range
}

fn failed_on(ask: &Ask<'_>, node: &NodeName) -> bool {
    ask.previous.is_some_and(|last| last.status == AllocStatus::Failed && last.node == *node)
}

/// Different for each replica and each try, the same for each look at the same state.
pub(super) fn seed(ask: &Ask<'_>) -> u64 {
    let mut bytes = ask.id.to_string().into_bytes();
    bytes.extend(ask.index.to_be_bytes());
    bytes.extend(ask.previous.map_or(0, |previous| previous.id.0).to_be_bytes());
    xxh3_64(&bytes)
}
