//! Chooses a node.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::ports::choose_ports;
use super::preempt::Books;
use super::score::{self, Crowd};
use super::{Ask, Refusal, Refusals, refusal};
use crate::model::name::{JobId, NodeName};
use crate::model::node::Node;
use crate::state::{NodeUse, Placement, State};

/// Fitting nodes that are scored for one replica among those that are alike to the job's wishes.
const CANDIDATES_MAX: usize = 48;

/// The nodes with what is in use on them, counting what this pass has placed.
pub(crate) struct Fleet<'s> {
    pub(super) state: &'s State,
    pub(super) uses: BTreeMap<&'s NodeName, NodeUse>,
    pub(super) jobs: BTreeMap<(&'s JobId, u64), JobView<'s>>,
    /// Where room is being freed for a replica of this pass: what will be in use there in the end,
    /// with that replica. Others must fit beside it as well.
    pub(super) later: BTreeMap<&'s NodeName, NodeUse>,
    pub(super) books: Books<'s>,
}

/// The fleet as one job sees it.
pub(super) struct JobView<'s> {
    pub(super) crowd: Crowd<'s>,
    /// Nodes that the job may use as far as only the job and the node matter.
    pub(super) groups: Vec<Group<'s>>,
    /// What the others said.
    refusals: Refusals,
}

/// Nodes that are alike in everything that the job's wishes look at.
pub(super) struct Group<'s> {
    pub(super) nodes: Vec<&'s Node>,
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
        Self {
            state,
            uses: BTreeMap::new(),
            jobs: BTreeMap::new(),
            later: BTreeMap::new(),
            books: Books::default(),
        }
    }

    /// Chooses node, ports and devices for `ask`, and counts them as used.
    pub(crate) fn place(&mut self, ask: &Ask<'s>) -> Result<Placement, Refusals> {
        let state = self.state;
        let view =
            self.jobs.entry((ask.id, ask.version)).or_insert_with(|| JobView::new(state, ask));
        let left = ask.predecessor().filter(|previous| view.crowd.leave(state, previous));
        let placed = self.find(ask).and_then(|node| self.settle(ask, node));
        if placed.is_err()
            && let Some(left) = left
            && let Some(view) = self.jobs.get_mut(&(ask.id, ask.version))
        {
            view.crowd.stay(state, left);
        }
        placed
    }

    fn find(&mut self, ask: &Ask<'s>) -> Result<&'s Node, Refusals> {
        let state = self.state;
        let Some(view) = self.jobs.get(&(ask.id, ask.version)) else {
            return Err(Refusals::default());
        };
        if let Some(name) = ask.node {
            let node = state.node(name).ok_or_else(|| view.refusals.clone())?;
            let used = self.uses.entry(name).or_insert_with(|| state.node_use(name));
            return match refusal_now(ask, node, used, &view.crowd) {
                None => Ok(node),
                Some(refusal) => Err(Refusals::only(refusal)),
            };
        }
        if let Some(home) = ask.home(state) {
            let refused = |why| Refusals::only(Refusal::Data { node: home.clone(), why });
            let node = state.node(home).ok_or_else(|| refused(None))?;
            let used = self.uses.entry(home).or_insert_with(|| state.node_use(home));
            let later = self.later.get(home);
            let refusal = refusal_now(ask, node, used, &view.crowd)
                .or_else(|| refusal::in_use(ask, node, later?, &view.crowd));
            return match refusal {
                None => Ok(node),
                Some(refusal) => Err(refused(Some(Box::new(refusal)))),
            };
        }
        if let Some(wish) = ask.wish()
            && let Some(node) = state.node(wish)
        {
            let used = self.uses.entry(wish).or_insert_with(|| state.node_use(wish));
            let later = self.later.get(wish);
            let refused = refusal_now(ask, node, used, &view.crowd)
                .or_else(|| refusal::in_use(ask, node, later?, &view.crowd));
            if refused.is_none() {
                return Ok(node);
            }
        }
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
                let used =
                    self.uses.entry(&node.name).or_insert_with(|| state.node_use(&node.name));
                let later = self.later.get(&node.name);
                let refused = refusal::in_use(ask, node, used, &view.crowd)
                    .or_else(|| refusal::in_use(ask, node, later?, &view.crowd));
                if let Some(refusal) = refused {
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
                if ask.is_better_elsewhere(&node.name) {
                    score -= score::BETTER_ELSEWHERE;
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
        best.map(|(_, node)| node).ok_or(refusals)
    }

    /// Chooses ports and devices on the node, and counts all as used.
    fn settle(&mut self, ask: &Ask<'s>, node: &'s Node) -> Result<Placement, Refusals> {
        let used = self.uses.entry(&node.name).or_default();
        let mut taken = used.clone();
        if let Some(later) = self.later.get(&node.name) {
            taken.ports.extend(later.ports.iter().copied());
            taken.gpus.extend(later.gpus.iter().copied());
        }
        let ports = choose_ports(ask, node, &taken).map_err(Refusals::only)?;
        let gpus = free_gpus(ask, node, &taken);
        let later = self.later.get_mut(&node.name);
        for used in std::iter::once(used).chain(later) {
            used.resources = used.resources.plus(ask.spec.reserved());
            let ports = ports.iter().zip(ask.spec.ports());
            used.ports.extend(ports.map(|(number, port)| (*number, port.protocol)));
            used.gpus.extend(gpus.iter().copied());
        }
        if let Some(view) = self.jobs.get_mut(&(ask.id, ask.version)) {
            view.crowd.add(node);
        }
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

/// As many devices as the job asks for, of those that are free.
pub(super) fn free_gpus(ask: &Ask<'_>, node: &Node, used: &NodeUse) -> Vec<u32> {
    (0..node.resources.gpu)
        .filter(|gpu| !used.gpus.contains(gpu))
        .take(ask.spec.reserved().gpu as usize)
        .collect()
}

/// What keeps a replica off a node now.
pub(super) fn refusal_now(
    ask: &Ask<'_>,
    node: &Node,
    used: &NodeUse,
    crowd: &Crowd<'_>,
) -> Option<Refusal> {
    refusal::before_use(ask.spec, node)
        .or_else(|| refusal::in_use(ask, node, used, crowd))
        .or_else(|| choose_ports(ask, node, used).err())
}

/// Whether the ports to choose may be too few; ports outside the range make it say so early.
fn ports_are_tight(ask: &Ask<'_>, node: &Node, used: &NodeUse) -> bool {
    let (first, last) = node.port_range;
    let range = usize::from(last.saturating_sub(first)) + 1;
    let chosen = ask.spec.ports().filter(|port| port.host.is_none()).count();
    chosen > 0 && used.ports.len() + ask.spec.ports().count() > range
}

/// Different for each replica and each try, the same for each look at the same state.
pub(super) fn seed(ask: &Ask<'_>) -> u64 {
    let mut bytes = ask.id.to_string().into_bytes();
    bytes.extend(ask.index.to_be_bytes());
    bytes.extend(ask.previous.map_or(0, |previous| previous.id.0).to_be_bytes());
    xxh3_64(&bytes)
}
