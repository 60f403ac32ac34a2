//! Room for a replica that fits nowhere: what is being freed anyway, or else what the fewest
//! allocations of lower priority hold.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::fleet::{Fleet, free_gpus, refusal_now};
use super::ports::choose_ports;
use super::score::Crowd;
use super::{Ask, Refusal, Refusals, refusal};
use crate::limits::{PREEMPTION_STEPS_MAX, PREEMPTIONS_PER_PASS_MAX};
use crate::model::allocation::{Allocation, StopReason};
use crate::model::name::{AllocId, JobId, NodeName};
use crate::model::node::Node;
use crate::state::{NodeUse, State};

/// Where a replica will have room that has none now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Room {
    /// The node.
    pub(crate) node: NodeName,
    /// Allocations that have to give way; none if enough is on its way out already.
    pub(crate) victims: Vec<AllocId>,
}

impl Room {
    /// What users are told meanwhile.
    pub(crate) fn refusals(&self) -> Refusals {
        Refusals::only(Refusal::BeingFreed { node: self.node.clone() })
    }
}

/// What a pass has to remember; made when first needed.
#[derive(Default)]
pub(super) struct Books<'s> {
    lowest_priority: Option<u8>,
    /// On their way out, by node.
    leaving: Option<BTreeMap<&'s NodeName, Vec<&'s Allocation>>>,
    /// Victims of this pass.
    victims: BTreeSet<AllocId>,
    preemptions: usize,
}

fn on_the_way_out(alloc: &Allocation) -> bool {
    !alloc.ended() && !alloc.wanted()
}

fn leaving(state: &State) -> BTreeMap<&NodeName, Vec<&Allocation>> {
    let mut leaving: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for alloc in state.allocs().filter(|alloc| on_the_way_out(alloc)) {
        leaving.entry(&alloc.node).or_default().push(&**alloc);
    }
    leaving
}

/// The node on which what others leave will be enough for `ask`. What its own job leaves is left
/// out: that may be what had to give way.
pub(super) fn being_freed(state: &State, ask: &Ask<'_>, crowd: &Crowd<'_>) -> Option<NodeName> {
    for (name, allocs) in leaving(state) {
        let node = state.node(name)?;
        let mut used = state.node_use(name);
        allocs.iter().filter(|alloc| alloc.job != *ask.id).for_each(|alloc| used.release(alloc));
        if refusal_now(ask, node, &used, crowd).is_none() {
            return Some(name.clone());
        }
    }
    None
}

impl<'s> Fleet<'s> {
    /// Finds room for an ask that no node takes now, and keeps it for it in this pass.
    pub(crate) fn make_room(&mut self, ask: &Ask<'s>) -> Option<Room> {
        let state = self.state;
        let key = (ask.id, ask.version);
        let view = self.jobs.get_mut(&key)?;
        let left = ask.predecessor().filter(|previous| view.crowd.leave(state, previous));
        let room = self.freed(ask).or_else(|| self.preempt(ask));
        let view = self.jobs.get_mut(&key)?;
        match &room {
            None => {
                if let Some(left) = left {
                    view.crowd.stay(state, left);
                }
            }
            Some(room) => {
                let node = state.node(&room.node)?;
                view.crowd.add(node);
                let mut used = self.later_use(&node.name);
                for alloc in room.victims.iter().filter_map(|id| state.alloc(*id)) {
                    used.release(alloc);
                }
                used.resources = used.resources.plus(ask.spec.reserved());
                used.gpus.extend(free_gpus(ask, node, &used));
                if let Ok(ports) = choose_ports(ask, node, &used) {
                    let ports = ports.iter().zip(ask.spec.ports());
                    used.ports.extend(ports.map(|(number, port)| (*number, port.protocol)));
                }
                self.later.insert(&node.name, used);
                self.books.victims.extend(room.victims.iter().copied());
                self.books.preemptions += usize::from(!room.victims.is_empty());
            }
        }
        room
    }

    /// What will be in use on a node once all that is on its way out has ended.
    fn later_use(&mut self, name: &NodeName) -> NodeUse {
        if let Some(later) = self.later.get(name) {
            return later.clone();
        }
        let state = self.state;
        let mut used = match self.uses.get(name) {
            Some(used) => used.clone(),
            None => state.node_use(name),
        };
        let leaving = self.books.leaving.get_or_insert_with(|| leaving(state));
        leaving.get(name).into_iter().flatten().for_each(|alloc| used.release(alloc));
        used
    }

    /// The nodes that may be asked: all that the job may use, or the only one for this replica.
    fn nodes_for(&self, ask: &Ask<'s>) -> Vec<&'s Node> {
        if let Some(only) = ask.node.or_else(|| ask.home(self.state)) {
            let node = self.state.node(only).map(|node| &**node);
            return node
                .filter(|node| refusal::before_use(ask.spec, node).is_none())
                .into_iter()
                .collect();
        }
        let view = self.jobs.get(&(ask.id, ask.version));
        let groups = view.into_iter().flat_map(|view| &view.groups);
        let mut nodes: Vec<_> = groups.flat_map(|group| group.nodes.iter().copied()).collect();
        nodes.sort_by_key(|node| &node.name);
        nodes
    }

    fn freed(&mut self, ask: &Ask<'s>) -> Option<Room> {
        let state = self.state;
        let leaving = self.books.leaving.get_or_insert_with(|| leaving(state));
        if leaving.is_empty() && self.later.is_empty() {
            return None;
        }
        for node in self.nodes_for(ask) {
            let known = self.later.contains_key(&node.name)
                || self.books.leaving.as_ref().is_some_and(|known| known.contains_key(&node.name));
            if !known {
                continue;
            }
            let used = self.later_use(&node.name);
            if self.fits(ask, node, &used) {
                return Some(Room { node: node.name.clone(), victims: Vec::new() });
            }
        }
        None
    }

    fn fits(&self, ask: &Ask<'s>, node: &Node, used: &NodeUse) -> bool {
        self.jobs
            .get(&(ask.id, ask.version))
            .is_some_and(|view| refusal_now(ask, node, used, &view.crowd).is_none())
    }

    fn preempt(&mut self, ask: &Ask<'s>) -> Option<Room> {
        let state = self.state;
        let priority = ask.spec.priority;
        let all = || state.jobs().map(|(_, job)| job.spec().priority).min().unwrap_or(u8::MAX);
        let lowest = *self.books.lowest_priority.get_or_insert_with(all);
        // A move that is only for the better is not worth it.
        let optional = ask
            .predecessor()
            .and_then(|previous| previous.moving.as_ref())
            .is_some_and(|moving| matches!(moving.reason, StopReason::Rebalanced));
        if lowest >= priority || optional || self.books.preemptions >= PREEMPTIONS_PER_PASS_MAX {
            return None;
        }
        let mut chances: Vec<(usize, &'s Node, Search)> = Vec::new();
        for node in self.nodes_for(ask) {
            let weaker = self.weaker_on(ask, node);
            if weaker.is_empty() {
                continue;
            }
            let used = self.later_use(&node.name);
            let mut empty = used.clone();
            weaker.iter().for_each(|(_, alloc)| empty.release(alloc));
            if self.fits(ask, node, &empty) {
                let search = Search::new(ask, node, &used, &weaker);
                chances.push((search.at_least(), node, search));
            }
        }
        chances.sort_by_key(|(at_least, node, _)| (*at_least, &node.name));
        let mut best: Option<(Verdict, &'s Node)> = None;
        for (at_least, node, search) in chances {
            let most = best.as_ref().map_or(usize::MAX, |(known, _)| known.victims.len());
            if at_least > most {
                break;
            }
            if let Some(found) = search.run(most)
                && best.as_ref().is_none_or(|(known, _)| found.key() < known.key())
            {
                best = Some((found, node));
            }
        }
        let (verdict, node) = best?;
        Some(Room { node: node.name.clone(), victims: verdict.victims })
    }

    /// Allocations on a node that have to give way to `ask`, with their jobs' priorities.
    fn weaker_on(&self, ask: &Ask<'s>, node: &'s Node) -> Vec<(u8, &'s Allocation)> {
        let state = self.state;
        let mut known: Option<(&JobId, u8)> = None;
        let mut priority_of = |id: &'s JobId| match known {
            Some((last, priority)) if last == id => Some(priority),
            _ => {
                let priority = state.job(id)?.spec().priority;
                known = Some((id, priority));
                Some(priority)
            }
        };
        state
            .allocs_on(&node.name)
            .filter(|alloc| alloc.wanted() && !self.books.victims.contains(&alloc.id))
            .filter_map(|alloc| Some((priority_of(&alloc.job)?, &**alloc)))
            .filter(|(priority, _)| *priority < ask.spec.priority)
            .collect()
    }
}

/// CPU, memory, disk, GPUs, ports.
type Amounts = [u64; 5];

/// Who gives way on one node.
struct Verdict {
    victims: Vec<AllocId>,
    /// Highest first.
    priorities: Vec<u8>,
    /// Thousandths of the node that are freed beyond what is needed.
    waste: u64,
}

impl Verdict {
    /// The smaller the better: fewest, then the lowest priorities, then the least wasted, then the
    /// youngest.
    fn key(&self) -> impl Ord + use<'_> {
        (self.victims.len(), &self.priorities, self.waste, Reverse(&self.victims))
    }
}

#[derive(Clone, Copy)]
struct Candidate {
    id: AllocId,
    priority: u8,
    gives: Amounts,
}

/// Looks for the victims on one node.
struct Search {
    /// They hold a fixed port that the replica needs.
    must: Vec<Candidate>,
    /// The others, the lowest priority and then the youngest first.
    may: Vec<Candidate>,
    /// What `may` has to give.
    needs: Amounts,
    capacity: Amounts,
}

impl Search {
    fn new(ask: &Ask<'_>, node: &Node, used: &NodeUse, weaker: &[(u8, &Allocation)]) -> Self {
        let (first, last) = node.port_range;
        let chosen = ask.spec.ports().filter(|port| port.host.is_none()).count() as u64;
        let in_range = |ports: &mut dyn Iterator<Item = u16>| {
            ports.filter(|port| (first..=last).contains(port)).count() as u64
        };
        let range = u64::from(last.saturating_sub(first)) + 1;
        let ports_used = in_range(&mut used.ports.iter().map(|(port, _)| *port));
        let (all, reserved) = (node.resources, ask.spec.reserved());
        let lack = |all: u64, used: u64, more: u64| (used.saturating_add(more)).saturating_sub(all);
        let mut needs = [
            lack(all.cpu_milli, used.resources.cpu_milli, reserved.cpu_milli),
            lack(all.memory, used.resources.memory, reserved.memory),
            lack(all.disk, used.resources.disk, reserved.disk),
            lack(all.gpu.into(), used.resources.gpu.into(), reserved.gpu.into()),
            if chosen > 0 { lack(range, ports_used, chosen) } else { 0 },
        ];
        let capacity = [all.cpu_milli, all.memory, all.disk, all.gpu.into(), range];
        let (mut must, mut may) = (Vec::new(), Vec::new());
        for (priority, alloc) in weaker {
            let held = alloc.reserved;
            let gives = [
                held.cpu_milli,
                held.memory,
                held.disk,
                held.gpu.into(),
                in_range(&mut alloc.reserved_ports.iter().map(|(port, _)| *port)),
            ];
            let candidate = Candidate { id: alloc.id, priority: *priority, gives };
            let in_the_way = ask.spec.ports().any(|port| {
                port.host.is_some_and(|host| alloc.reserved_ports.contains(&(host, port.protocol)))
            });
            if in_the_way {
                needs = minus(needs, gives);
                must.push(candidate);
            } else {
                may.push(candidate);
            }
        }
        may.sort_by_key(|candidate| (candidate.priority, Reverse(candidate.id)));
        Self { must, may, needs, capacity }
    }

    /// No fewer than that are enough.
    fn at_least(&self) -> usize {
        self.must.len() + self.fewest_of_the_rest()
    }

    fn fewest_of_the_rest(&self) -> usize {
        let fewest = |kind: usize| {
            let mut gives: Vec<u64> = self.may.iter().map(|one| one.gives[kind]).collect();
            gives.sort_unstable_by_key(|gives| Reverse(*gives));
            let mut left = self.needs[kind];
            gives
                .into_iter()
                .take_while(|gives| {
                    let goes_on = left > 0;
                    left = left.saturating_sub(*gives);
                    goes_on
                })
                .count()
        };
        (0..self.needs.len()).map(fewest).max().unwrap_or(0)
    }

    /// The best victims, at most `most` of them.
    fn run(&self, most: usize) -> Option<Verdict> {
        let mut steps = 0;
        let least = self.fewest_of_the_rest();
        for count in least..=self.may.len() {
            if self.must.len() + count > most {
                return None;
            }
            let mut best = None;
            self.choose(count, 0, self.needs, &mut Vec::new(), &mut steps, &mut best);
            if best.is_some() {
                return best;
            }
            if steps >= PREEMPTION_STEPS_MAX {
                return Some(self.greedy()).filter(|found| found.victims.len() <= most);
            }
        }
        None
    }

    /// Goes through all ways to choose `count` more from `from` on.
    fn choose(
        &self,
        count: usize,
        from: usize,
        needs: Amounts,
        chosen: &mut Vec<usize>,
        steps: &mut usize,
        best: &mut Option<Verdict>,
    ) {
        if count == 0 {
            if needs == [0; 5] {
                let found = self.verdict(chosen);
                if best.as_ref().is_none_or(|known| found.key() < known.key()) {
                    *best = Some(found);
                }
            }
            return;
        }
        for at in from..self.may.len().saturating_sub(count - 1) {
            *steps += 1;
            if *steps >= PREEMPTION_STEPS_MAX {
                return;
            }
            chosen.push(at);
            self.choose(count - 1, at + 1, minus(needs, self.may[at].gives), chosen, steps, best);
            chosen.pop();
        }
    }

    /// Where there are too many ways to try: the lowest priority first, as many as are needed.
    fn greedy(&self) -> Verdict {
        let mut chosen: Vec<usize> = Vec::new();
        let mut needs = self.needs;
        for (at, candidate) in self.may.iter().enumerate() {
            if needs == [0; 5] {
                break;
            }
            needs = minus(needs, candidate.gives);
            chosen.push(at);
        }
        // The highest priority first, whoever turns out not to be needed is spared.
        for at in chosen.clone().into_iter().rev() {
            let rest = chosen.iter().filter(|other| **other != at);
            let enough = rest.fold(self.needs, |needs, at| minus(needs, self.may[*at].gives));
            if enough == [0; 5] {
                chosen.retain(|other| *other != at);
            }
        }
        self.verdict(&chosen)
    }

    fn verdict(&self, chosen: &[usize]) -> Verdict {
        let all = || self.must.iter().chain(chosen.iter().map(|at| &self.may[*at]));
        let mut priorities: Vec<u8> = all().map(|one| one.priority).collect();
        priorities.sort_unstable_by_key(|priority| Reverse(*priority));
        let mut victims: Vec<AllocId> = all().map(|one| one.id).collect();
        victims.sort_unstable();
        let spare = chosen.iter().fold([0_u64; 5], |sum, at| plus(sum, self.may[*at].gives));
        let spare = minus(spare, self.needs);
        let share = |kind: usize| spare[kind].saturating_mul(1000) / self.capacity[kind].max(1);
        Verdict { victims, priorities, waste: (0..3).map(share).sum() }
    }
}

fn minus(left: Amounts, right: Amounts) -> Amounts {
    std::array::from_fn(|kind| left[kind].saturating_sub(right[kind]))
}

fn plus(left: Amounts, right: Amounts) -> Amounts {
    std::array::from_fn(|kind| left[kind].saturating_add(right[kind]))
}
