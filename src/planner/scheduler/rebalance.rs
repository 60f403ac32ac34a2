//! Moves that make placement better: replicas spread more evenly, apart from one another, on nodes
//! that they prefer, and nodes left empty whose work fits on fuller ones.
//!
//! No to and fro: each move makes the sum over all jobs better, first of what they spread over,
//! then of what else they wish for; then the number of nodes in use. The sum can't grow for ever.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::{refusal, score};
use crate::limits::REBALANCE_MOVES_MAX;
use crate::model::allocation::{Allocation, StopReason};
use crate::model::job::{JobKind, JobSpec};
use crate::model::name::{AllocId, JobId, NodeName};
use crate::model::node::Node;
use crate::model::time::Timestamp;
use crate::state::{AllocMove, Job, NodeUse, State};

/// One move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Which allocation.
    pub alloc: AllocId,
    /// Its job.
    pub job: JobId,
    /// Its replica number.
    pub index: u32,
    /// Where it is.
    pub from: NodeName,
    /// Where it is better off.
    pub to: NodeName,
    /// Why, in words.
    pub why: String,
}

impl From<&Proposal> for AllocMove {
    fn from(proposal: &Proposal) -> Self {
        Self {
            alloc: proposal.alloc,
            reason: StopReason::Rebalanced,
            to: Some(proposal.to.clone()),
        }
    }
}

/// What a move must be worth if it makes nothing more even, in thousandths. Two replicas that part
/// are worth 6000, all of a job's preferences 4000.
const WORTH_MIN: i64 = 3000;
/// Nodes that are looked at for leaving them empty.
const EMPTYING_NODES_MAX: usize = 32;

/// The best moves now, at most `max_moves`. Only healthy replicas of services move, of jobs that
/// are calm: without a deployment or anything on its way, and without data on the node.
pub fn propose(state: &State, now: Timestamp, max_moves: u32) -> Vec<Proposal> {
    let mut desk = Desk::new(state, max_moves.min(REBALANCE_MOVES_MAX) as usize);
    let mut teams: Vec<Team<'_>> =
        state.jobs().filter_map(|(id, job)| Team::new(state, now, id, job)).collect();
    for team in &mut teams {
        while desk.has_time()
            && let Some(found) = team.best(&desk)
        {
            let why = team.why(found);
            desk.carry_out(team, found, why);
        }
    }
    while desk.has_time() && desk.empty_a_node(&mut teams) {}
    desk.moves
}

/// Where everything is, with the moves so far.
#[derive(Clone)]
struct Desk<'s> {
    state: &'s State,
    /// What is in use while all that moves is there twice: what has to fit.
    meanwhile: BTreeMap<&'s NodeName, NodeUse>,
    /// What is in use in the end.
    after: BTreeMap<&'s NodeName, NodeUse>,
    /// Allocations on each node in the end, those of system jobs left out.
    work: BTreeMap<&'s NodeName, usize>,
    moves: Vec<Proposal>,
    most: usize,
}

/// A job's replicas.
struct Team<'s> {
    id: &'s JobId,
    spec: &'s JobSpec,
    members: Vec<Member<'s>>,
    /// Nodes that would take it as far as only the job and the node matter.
    sites: Vec<Site<'s>>,
    /// For each subject that it spreads over: how many are on nodes with each value.
    spread: Vec<BTreeMap<Option<&'s str>, i64>>,
}

#[derive(Clone, Copy)]
struct Member<'s> {
    alloc: &'s Allocation,
    site: usize,
}

struct Site<'s> {
    node: &'s Node,
    values: Vec<Option<&'s str>>,
    /// Thousandths of all preferences.
    preference: i64,
    members: i64,
}

/// What a move is worth: what it does for what is to be even, then for the rest.
type Gain = (i64, i64);

#[derive(Clone, Copy)]
struct Found {
    member: usize,
    to: usize,
    gain: Gain,
}

impl<'s> Team<'s> {
    /// None if nothing of the job may move now.
    fn new(state: &'s State, now: Timestamp, id: &'s JobId, job: &'s Job) -> Option<Self> {
        let spec = &**job.spec();
        let service = matches!(spec.kind, JobKind::Service { .. });
        let deploys = state.latest_deployment(job).is_some_and(|latest| latest.active());
        if !job.active() || !service || spec.has_local_data() || deploys {
            return None;
        }
        let mut sites: Vec<Site<'s>> = Vec::new();
        let mut site_of = BTreeMap::new();
        for node in state.nodes() {
            if refusal::before_use(spec, node).is_some() {
                continue;
            }
            let values = spec.placement.spread.iter().map(|subject| subject.of(node)).collect();
            let preference = (score::preference(spec, node) * 1000.0).round() as i64;
            site_of.insert(&node.name, sites.len());
            sites.push(Site { node, values, preference, members: 0 });
        }
        let mut members = Vec::new();
        let mut spread = vec![BTreeMap::new(); spec.placement.spread.len()];
        for alloc in state.allocs_of(id).filter(|alloc| !alloc.ended()) {
            let settled = now.since(alloc.ready_since) >= spec.update.min_healthy;
            let calm = alloc.available()
                && settled
                && alloc.moving.is_none()
                && job.runs_current(alloc.version);
            let site = site_of.get(&alloc.node).copied().filter(|_| calm)?;
            for (values, counts) in sites[site].values.iter().zip(&mut spread) {
                *counts.entry(*values).or_default() += 1;
            }
            sites[site].members += 1;
            members.push(Member { alloc, site });
        }
        let complete = members.len() as u32 == job.replicas() && !members.is_empty();
        complete.then_some(Self { id, spec, members, sites, spread })
    }

    fn count(&self, subject: usize, value: Option<&str>) -> i64 {
        self.spread[subject].get(&value).copied().unwrap_or(0)
    }

    fn gain(&self, from: usize, to: usize) -> Gain {
        let (from, to) = (&self.sites[from], &self.sites[to]);
        let even = (0..self.spread.len())
            .filter(|subject| from.values[*subject] != to.values[*subject])
            .map(|subject| {
                self.count(subject, from.values[subject])
                    - self.count(subject, to.values[subject])
                    - 1
            })
            .sum();
        let apart = from.members - to.members - 1;
        (even, 6000 * apart + 4 * (to.preference - from.preference))
    }

    /// Whether any move may be worth it at all.
    fn has_wishes(&self) -> bool {
        let uneven = |(subject, counts): (usize, &BTreeMap<Option<&str>, i64>)| {
            let most = counts.values().max().copied().unwrap_or(0);
            let least =
                self.sites.iter().map(|site| self.count(subject, site.values[subject])).min();
            most - least.unwrap_or(0) > 1
        };
        self.spread.iter().enumerate().any(uneven)
            || self.sites.iter().any(|site| site.members > 1)
            || !self.spec.placement.prefer.is_empty()
    }

    /// The move that is worth most and fits.
    fn best(&self, desk: &Desk<'s>) -> Option<Found> {
        if !self.has_wishes() {
            return None;
        }
        let mut best: Option<(Found, u64)> = None;
        let mut seen = None;
        for (member, known) in self.members.iter().enumerate().rev() {
            // Those on one node are alike.
            if seen.replace(known.site) == Some(known.site) || desk.has_moved(known.alloc.id) {
                continue;
            }
            for to in 0..self.sites.len() {
                let gain = self.gain(known.site, to);
                let worth = gain.0 > 0 || (gain.0 == 0 && gain.1 >= WORTH_MIN);
                let key = |found: &Found, share: u64| (found.gain, share);
                let share = desk.share(self.sites[to].node);
                let found = Found { member, to, gain };
                let better = best
                    .as_ref()
                    .is_none_or(|(old, old_share)| key(&found, share) > key(old, *old_share));
                if to != known.site && worth && better && desk.fits(self, to) {
                    best = Some((found, share));
                }
            }
        }
        best.map(|(found, _)| found)
    }

    fn why(&self, found: Found) -> String {
        let (from, to) = (&self.sites[self.members[found.member].site], &self.sites[found.to]);
        let named = |value: Option<&str>| value.unwrap_or("(none)").to_owned();
        if found.gain.0 > 0 {
            let differing = |subject: &usize| from.values[*subject] != to.values[*subject];
            let subject = (0..self.spread.len()).filter(differing).max_by_key(|subject| {
                self.count(*subject, from.values[*subject])
                    - self.count(*subject, to.values[*subject])
            });
            if let Some(at) = subject {
                let (many, few) = (from.values[at], to.values[at]);
                return format!(
                    "{} {} has {} of the replicas, {} has {}",
                    self.spec.placement.spread[at],
                    named(many),
                    self.count(at, many),
                    named(few),
                    self.count(at, few),
                );
            }
        }
        if from.members > to.members + 1 {
            let (many, few) = (from.members, to.members);
            return format!(
                "{} has {many} of the replicas, {} has {few}",
                from.node.name, to.node.name
            );
        }
        format!("{} has more of what the job prefers", to.node.name)
    }

    fn move_member(&mut self, member: usize, to: usize) {
        let from = std::mem::replace(&mut self.members[member].site, to);
        for (subject, counts) in self.spread.iter_mut().enumerate() {
            *counts.entry(self.sites[from].values[subject]).or_default() -= 1;
            *counts.entry(self.sites[to].values[subject]).or_default() += 1;
        }
        self.sites[from].members -= 1;
        self.sites[to].members += 1;
    }
}

impl<'s> Desk<'s> {
    fn new(state: &'s State, most: usize) -> Self {
        let uses: BTreeMap<_, _> =
            state.nodes().map(|node| (&node.name, state.node_use(&node.name))).collect();
        let mut work: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for alloc in state.allocs().filter(|alloc| !alloc.ended()) {
            let system =
                state.job(&alloc.job).is_some_and(|job| job.spec().kind == JobKind::System);
            *work.entry(&alloc.node).or_default() += usize::from(!system);
        }
        Self { state, meanwhile: uses.clone(), after: uses, work, moves: Vec::new(), most }
    }

    fn has_time(&self) -> bool {
        self.moves.len() < self.most
    }

    /// One that moves is left alone: its room is not free before it has arrived.
    fn has_moved(&self, alloc: AllocId) -> bool {
        self.moves.iter().any(|known| known.alloc == alloc)
    }

    /// How full a node is in the end, in thousandths of its memory and CPU together.
    fn share(&self, node: &Node) -> u64 {
        let used = self.after.get(&node.name).map(|used| used.resources).unwrap_or_default();
        let part = |used: u64, all: u64| used.saturating_mul(1000) / all.max(1);
        let all = node.resources;
        part(used.cpu_milli, all.cpu_milli) + part(used.memory, all.memory)
    }

    /// Whether one more replica fits beside all that is there and all that comes.
    fn fits(&self, team: &Team<'s>, to: usize) -> bool {
        let site = &team.sites[to];
        if team.spec.placement.max_per_node.is_some_and(|most| site.members >= i64::from(most)) {
            return false;
        }
        let Some(used) = self.meanwhile.get(&site.node.name) else { return false };
        let (first, last) = site.node.port_range;
        let range = usize::from(last.saturating_sub(first)) + 1;
        let taken = |host: u16, protocol| used.ports.contains(&(host, protocol));
        site.node.resources.minus(used.resources).lacks(team.spec.reserved()).is_none()
            && used.ports.len() + team.spec.ports().count() <= range
            && !team.spec.ports().any(|p| p.host.is_some_and(|host| taken(host, p.protocol)))
    }

    fn carry_out(&mut self, team: &mut Team<'s>, found: Found, why: String) {
        let member = team.members[found.member];
        let (from, to) = (team.sites[member.site].node, team.sites[found.to].node);
        for uses in [&mut self.meanwhile, &mut self.after] {
            let used = uses.entry(&to.name).or_default();
            used.resources = used.resources.plus(member.alloc.reserved);
            let fixed = team.spec.ports().filter_map(|port| Some((port.host?, port.protocol)));
            used.ports.extend(fixed);
        }
        self.after.entry(&from.name).or_default().release(member.alloc);
        *self.work.entry(&to.name).or_default() += 1;
        let left = self.work.entry(&from.name).or_default();
        *left = left.saturating_sub(1);
        team.move_member(found.member, found.to);
        self.moves.push(Proposal {
            alloc: member.alloc.id,
            job: team.id.clone(),
            index: member.alloc.index,
            from: from.name.clone(),
            to: to.name.clone(),
            why,
        });
    }

    /// Finds a node whose work fits on fuller ones, and moves all of it; whether there is one.
    fn empty_a_node(&mut self, teams: &mut [Team<'s>]) -> bool {
        let mut movable: BTreeMap<&'s NodeName, Vec<(usize, usize)>> = BTreeMap::new();
        for (at, team) in teams.iter().enumerate() {
            for (member, known) in team.members.iter().enumerate() {
                if !self.has_moved(known.alloc.id) {
                    let name = &team.sites[known.site].node.name;
                    movable.entry(name).or_default().push((at, member));
                }
            }
        }
        let room = self.most - self.moves.len();
        // All of its work can move, and what moves there is not on its way.
        movable.retain(|name, all| {
            all.len() <= room && self.work.get(*name).copied() == Some(all.len())
        });
        let mut nodes: Vec<_> = movable
            .into_iter()
            .filter_map(|(name, all)| Some((all, self.state.node(name)?)))
            .collect();
        nodes.sort_by_key(|(all, node)| (all.len(), self.share(node), &node.name));
        nodes.truncate(EMPTYING_NODES_MAX);
        nodes.into_iter().any(|(all, node)| self.empty(node, all, teams))
    }

    fn empty(&mut self, node: &'s Node, all: Vec<(usize, usize)>, teams: &mut [Team<'s>]) -> bool {
        let before = self.clone();
        let count = all.len();
        let share = self.share(node);
        let mut done: Vec<(usize, usize, usize)> = Vec::new();
        let by_size = |(team, member): &(usize, usize)| {
            let reserved = teams[*team].members[*member].alloc.reserved;
            Reverse((reserved.memory, reserved.cpu_milli))
        };
        let mut all = all;
        all.sort_by_key(by_size);
        for (at, member) in all {
            let team = &mut teams[at];
            let from = team.members[member].site;
            let to = (0..team.sites.len())
                .filter(|to| *to != from)
                .filter(|to| {
                    let name = &team.sites[*to].node.name;
                    let fuller = before.share(team.sites[*to].node) >= share;
                    fuller && before.work.get(name).is_some_and(|work| *work > 0)
                })
                .filter(|to| team.gain(from, *to) >= (0, 0) && self.fits(team, *to))
                .max_by_key(|to| {
                    let node = team.sites[*to].node;
                    (team.gain(from, *to), self.share(node), Reverse(&node.name))
                });
            let Some(to) = to else {
                // All or nothing.
                for (at, member, from) in done.into_iter().rev() {
                    teams[at].move_member(member, from);
                }
                *self = before;
                return false;
            };
            let what = if count == 1 { "its only replica fits" } else { "all its replicas fit" };
            let why = format!("{} is left empty: {what} on fuller nodes", node.name);
            let gain = team.gain(from, to);
            self.carry_out(team, Found { member, to, gain }, why);
            done.push((at, member, from));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{World, service, spread};
    use super::*;
    use crate::model::resources::Resources;
    use crate::state::Command;

    fn moved(world: &mut World, moves: &[Proposal]) {
        let moves_command = Command::MoveAllocs { moves: moves.iter().map(Into::into).collect() };
        world.apply(moves_command);
        for proposal in moves {
            let node = world.succeed(&proposal.job.to_string(), proposal.index);
            assert_eq!(node, proposal.to, "it fits where it was to go");
        }
    }

    fn settled(world: &mut World) {
        let jobs: Vec<_> = world.state.jobs().map(|(_, job)| job.deployments.clone()).collect();
        for deployment in jobs.into_iter().flatten() {
            world.apply(Command::CompleteDeployment { deployment });
        }
    }

    #[test]
    fn what_came_back_gets_its_share_again() {
        let mut world = World::new(&[4000, 4000, 4000]);
        world.state_of("n2", crate::model::node::NodeState::Lost);
        world.submit(&spread(service("web", 6, 200, 50)));
        for index in 0..6 {
            world.place("web", index, None).unwrap();
        }
        settled(&mut world);
        assert_eq!(propose(&world.state, world.now, 10), []);
        world.state_of("n2", crate::model::node::NodeState::Ready);
        let first = propose(&world.state, world.now, 1);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].why, "attr.zone b has 3 of the replicas, c has 0");
        let moves = propose(&world.state, world.now, 10);
        assert_eq!(moves.len(), 2, "{moves:?}");
        moved(&mut world, &moves);
        assert_eq!(world.zones("web").into_values().collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!(propose(&world.state, world.now, 10), []);
    }

    #[test]
    fn a_node_is_left_empty_whose_work_fits_elsewhere() {
        let mut world = World::new(&[4000, 4000, 4000]);
        for (name, node, cpu) in [("a", 0, 2000), ("b", 1, 500), ("c", 2, 1500)] {
            let mut spec = service(name, 1, cpu, 50);
            spec.placement.require = vec![format!("node.name == n{node}").parse().unwrap()];
            world.submit(&spec);
            world.place(name, 0, None).unwrap();
            // Now it may go where it likes.
            spec.placement.require.clear();
            world.submit(&spec);
            world.succeed_in_place(name, 0);
        }
        settled(&mut world);
        let moves = propose(&world.state, world.now, 10);
        assert_eq!(moves.len(), 2, "{moves:?}");
        assert_eq!(moves[0].why, "n1 is left empty: its only replica fits on fuller nodes");
        assert!(moves.iter().all(|known| known.to.as_str() == "n0"));
        moved(&mut world, &moves);
        assert_eq!(propose(&world.state, world.now, 10), []);
    }

    #[test]
    fn what_is_busy_or_has_data_stays() {
        let mut world = World::new(&[4000, 4000]);
        world.state_of("n1", crate::model::node::NodeState::Lost);
        world.submit(&super::super::tests::with_data(service("db", 2, 200, 50)));
        world.submit(&service("web", 2, 200, 50));
        for job in ["db", "web"] {
            world.place(job, 0, None).unwrap();
            world.place(job, 1, None).unwrap();
        }
        world.state_of("n1", crate::model::node::NodeState::Ready);
        assert_eq!(propose(&world.state, world.now, 10), [], "deployments are under way");
        settled(&mut world);
        let moves = propose(&world.state, world.now, 10);
        assert_eq!(moves.iter().map(|known| known.job.to_string()).collect::<Vec<_>>(), ["web"]);
        assert_eq!(moves[0].why, "n0 has 2 of the replicas, n1 has 0");
        let ask = Command::MoveAllocs { moves: moves.iter().map(Into::into).collect() };
        world.apply(ask);
        assert_eq!(propose(&world.state, world.now, 10), [], "it is on its way");
    }

    #[derive(Debug, Clone)]
    struct Wish {
        replicas: u32,
        cpu: u64,
        spread: bool,
        prefers: Option<bool>,
        most: Option<u32>,
    }

    fn wish() -> impl Strategy<Value = Wish> {
        let prefers = prop::option::weighted(0.3, any::<bool>());
        (1..5_u32, 1..6_u64, any::<bool>(), prefers, prop::option::weighted(0.2, 1..3_u32))
            .prop_map(|(replicas, cpu, spread, prefers, most)| Wish {
                replicas,
                cpu: cpu * 100,
                spread,
                prefers,
                most,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever nodes were away when the jobs were placed: it ends, nothing goes back to where
        /// it came from, no node is overfull on the way, and never more moves than asked for.
        #[test]
        fn it_ends_without_to_and_fro(
            wishes in prop::collection::vec(wish(), 1..5),
            away in prop::collection::btree_set(0..5_usize, 1..4),
            most in 1..12_u32,
        ) {
            let mut world = World::new(&[2000; 5]);
            for node in &away {
                world.state_of(&format!("n{node}"), crate::model::node::NodeState::Lost);
            }
            for (i, wish) in wishes.iter().enumerate() {
                let mut spec = service(&format!("j{i}"), wish.replicas, wish.cpu, 50);
                if wish.spread {
                    spec = spread(spec);
                }
                spec.placement.max_per_node = wish.most;
                spec.placement.prefer.extend(wish.prefers.map(|zone| crate::model::job::Preference {
                    rule: if zone { "attr.zone == a" } else { "node.name == n4" }.parse().unwrap(),
                    weight: 60,
                }));
                world.submit(&spec);
                for index in 0..wish.replicas {
                    let _ = world.place(&format!("j{i}"), index, None);
                }
            }
            for node in &away {
                world.state_of(&format!("n{node}"), crate::model::node::NodeState::Ready);
            }
            settled(&mut world);
            let mut left: std::collections::BTreeSet<(String, u32, NodeName)> = Default::default();
            let mut rounds = 0;
            loop {
                let moves = propose(&world.state, world.now, most);
                prop_assert!(moves.len() <= most as usize);
                if moves.is_empty() {
                    break;
                }
                rounds += 1;
                prop_assert!(rounds < 50, "it does not end: {moves:?}");
                for known in &moves {
                    let place = |node: &NodeName| (known.job.to_string(), known.index, node.clone());
                    prop_assert!(!left.contains(&place(&known.to)), "back again: {known:?}");
                    left.insert(place(&known.from));
                }
                moved(&mut world, &moves);
                for node in world.state.nodes() {
                    let used: Resources = world.state.node_use(&node.name).resources;
                    prop_assert_eq!(node.resources.lacks(used), None);
                }
            }
        }
    }
}
