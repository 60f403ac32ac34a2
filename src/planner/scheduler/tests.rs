//! The scheduler alone: states made by hand, one ask after another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::allocation::{AllocReport, AllocStatus, Allocation, Desired, Health, StopReason};
use crate::model::job::{
    JobKind, PortSpec, Protocol, TaskRuntime, TaskSpec, VolumeMount, VolumeSource,
};
use crate::model::name::AllocId;
use crate::model::node::{Node, NodeState};
use crate::model::resources::{ResourceRequest, Resources};
use crate::model::time::{Millis, Timestamp};
use crate::state::{AllocMove, Command, Placements, Reply, Stamp, State};

pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Timestamp,
}

impl World {
    /// Nodes `n0`, `n1`, ... in zones a, b, c, each with that much CPU and as much memory.
    pub(super) fn new(cpus: &[u64]) -> Self {
        let mut world = Self { state: State::default(), now: Timestamp(1_000_000) };
        for (i, cpu) in cpus.iter().enumerate() {
            let mut node = Node::example(&format!("n{i}"));
            node.resources = Resources { cpu_milli: *cpu, memory: 8 << 30, disk: 1 << 40, gpu: 0 };
            node.attributes.insert("zone".into(), ["a", "b", "c"][i % 3].into());
            world.apply(Command::RegisterNode { spec: node.spec });
        }
        world
    }

    pub(super) fn apply(&mut self, command: Command) -> Reply {
        let stamp = Stamp { index: self.state.stamp().index + 1, at: self.now };
        self.state.apply(stamp, &command.into()).reply.expect("carried out")
    }

    pub(super) fn submit(&mut self, spec: &JobSpec) {
        self.apply(Command::SubmitJob { spec: Arc::new(spec.clone()), if_version: None });
    }

    pub(super) fn state_of(&mut self, node: &str, state: NodeState) {
        let known = self.state.node(&node.parse().unwrap()).unwrap().clone();
        if state == NodeState::Ready {
            self.apply(Command::RegisterNode { spec: known.spec.clone() });
            return;
        }
        self.apply(Command::SetNodeState {
            node: known.name.clone(),
            agent_id: known.agent_id,
            state,
            reason: "silent".into(),
        });
    }

    /// Asks for one replica and carries the answer out.
    pub(super) fn place(
        &mut self,
        job: &str,
        index: u32,
        previous: Option<AllocId>,
    ) -> Result<NodeName, String> {
        let state = self.state.clone();
        let ask = ask(&state, job, index, previous);
        let row = Fleet::new(&state).place(&ask).map_err(|refusals| refusals.to_string())?;
        let node = row.node.clone();
        self.put(row);
        Ok(node)
    }

    fn put(&mut self, row: crate::state::Placement) {
        let mut rows = Placements::default();
        rows.push(row);
        let reply = self.apply(Command::Place(Box::new(rows)));
        assert_eq!(reply, Reply::Placed { placed: 1, refused: 0 });
        let newest = self.state.allocs().last().unwrap().clone();
        self.report(&newest, AllocStatus::Running);
    }

    fn report(&mut self, alloc: &Allocation, status: AllocStatus) {
        let running = status == AllocStatus::Running;
        let report = AllocReport {
            id: alloc.id,
            generation: u64::MAX,
            status,
            health: if running { Health::Healthy } else { Health::Unknown },
            ready: running,
            tasks: BTreeMap::new(),
            message: String::new(),
        };
        let agent_id = self.state.node(&alloc.node).unwrap().agent_id;
        let node = alloc.node.clone();
        self.apply(Command::ReportAllocs { node, agent_id, reports: vec![report] });
    }

    /// The replica has a successor before it stops.
    pub(super) fn succeed(&mut self, job: &str, index: u32) -> NodeName {
        let old = self.state.replica(&job.parse().unwrap(), index).unwrap().clone();
        let node = self.place(job, index, Some(old.id)).expect("there is room");
        self.end(old.id);
        node
    }

    /// The same where it is.
    pub(super) fn succeed_in_place(&mut self, job: &str, index: u32) {
        let old = self.state.replica(&job.parse().unwrap(), index).unwrap().clone();
        let state = self.state.clone();
        let known = state.job(&old.job).unwrap();
        self.put(crate::state::Placement {
            job: old.job.clone(),
            version: known.current().version,
            index,
            node: old.node.clone(),
            ports: Vec::new(),
            gpus: Vec::new(),
            previous: Some(old.id),
        });
        self.end(old.id);
    }

    fn end(&mut self, id: AllocId) {
        self.apply(Command::StopAllocs { stops: vec![(id, StopReason::Updated)] });
        let alloc = self.state.alloc(id).unwrap().clone();
        if !alloc.ended() {
            self.report(&alloc, AllocStatus::Stopped);
        }
    }

    pub(super) fn zones(&self, job: &str) -> BTreeMap<String, u32> {
        let mut zones = BTreeMap::new();
        for alloc in self.state.allocs_of(&job.parse().unwrap()).filter(|alloc| alloc.wanted()) {
            let node = self.state.node(&alloc.node).unwrap();
            *zones.entry(node.attributes["zone"].clone()).or_default() += 1;
        }
        zones
    }
}

fn ask<'s>(state: &'s State, job: &str, index: u32, previous: Option<AllocId>) -> Ask<'s> {
    let id = job.parse().unwrap();
    let (id, job) = state.jobs_from(&id).next().unwrap();
    Ask {
        id,
        version: job.current().version,
        spec: job.spec(),
        index,
        node: None,
        previous: previous.and_then(|id| state.alloc(id)).map(|alloc| &**alloc),
    }
}

pub(super) fn service(name: &str, replicas: u32, cpu: u64, priority: u8) -> JobSpec {
    let task = TaskSpec {
        command: vec!["serve".into()],
        resources: ResourceRequest {
            cpu_milli: Some(cpu),
            memory: Some(64 << 20),
            ..ResourceRequest::default()
        },
        ..TaskSpec::new(name.parse().unwrap(), TaskRuntime::Process)
    };
    let kind = JobKind::Service { replicas };
    JobSpec { priority, ..JobSpec::new(name.parse().unwrap(), kind, vec![task]) }
}

pub(super) fn with_data(mut spec: JobSpec) -> JobSpec {
    spec.tasks[0].volumes.push(VolumeMount {
        source: VolumeSource::Named("data".into()),
        target: "/data".into(),
        read_only: false,
    });
    spec
}

pub(super) fn spread(mut spec: JobSpec) -> JobSpec {
    spec.placement.spread = vec!["attr.zone".parse().unwrap()];
    spec
}

#[test]
fn a_replica_stays_with_its_data_or_waits_and_says_why() {
    let mut world = World::new(&[4000, 4000]);
    world.submit(&with_data(service("db", 1, 1000, 50)));
    let home = world.place("db", 0, None).unwrap();
    let id: JobId = "db".parse().unwrap();
    assert_eq!(world.state.job(&id).unwrap().homes.get(&0), Some(&home));
    let alloc = world.state.replica(&id, 0).unwrap().id;
    let why = |world: &mut World| {
        let spec = world.state.job(&id).unwrap().spec().clone();
        let said = world.place("db", 0, None).unwrap_err();
        let explained = explain_replica(&world.state, &spec, 0, None);
        assert_eq!(explained.fits, Vec::<NodeName>::new());
        assert_eq!(explained.refusals.to_string(), said);
        said
    };
    world.state_of(home.as_str(), NodeState::Lost);
    assert_eq!(why(&mut world), format!("its data is on {home}, which is lost"));
    world.state_of(home.as_str(), NodeState::Ready);
    world.end(alloc);
    world.apply(Command::DrainNode { node: home.clone(), deadline: None });
    assert_eq!(why(&mut world), format!("its data is on {home}, which is being drained"));
    world.apply(Command::SetEligibility { node: home.clone(), eligible: true });
    let mut pin = service("big", 1, 3500, 50);
    pin.placement.require = vec![format!("node.name == {home}").parse().unwrap()];
    world.submit(&pin);
    world.place("big", 0, None).unwrap();
    assert_eq!(why(&mut world), format!("its data is on {home}, which has no cpu left"));
    // Another replica has no data yet, and is free to go elsewhere.
    world.submit(&with_data(service("db", 2, 1000, 50)));
    assert_ne!(world.place("db", 1, None).unwrap(), home);
    // The operator says that the node is gone, and the data with it.
    world.state_of(home.as_str(), NodeState::Lost);
    world.apply(Command::RemoveNode { node: home.clone() });
    let said = world.state.events_after(world.state.last_event() - 1).unwrap()[0].event.clone();
    assert!(format!("{said:?}").contains("given up, that of db.0"), "{said:?}");
    assert_ne!(world.place("db", 0, None).unwrap(), home);
}

#[test]
fn scaling_down_keeps_the_way_home() {
    let mut world = World::new(&[4000, 4000, 4000]);
    world.submit(&with_data(service("db", 2, 1000, 50)));
    world.place("db", 0, None).unwrap();
    let home = world.place("db", 1, None).unwrap();
    let second = world.state.replica(&"db".parse().unwrap(), 1).unwrap().id;
    world.apply(Command::ScaleJob { job: "db".parse().unwrap(), replicas: 1 });
    world.end(second);
    world.apply(Command::ScaleJob { job: "db".parse().unwrap(), replicas: 2 });
    assert_eq!(world.place("db", 1, None).unwrap(), home);
}

#[test]
fn spread_stays_even_over_rollouts_and_losses() {
    // Three nodes in each zone: one that is lost leaves room apart from the others.
    let mut world = World::new(&[4000; 9]);
    world.submit(&spread(service("web", 6, 200, 50)));
    for index in 0..6 {
        world.place("web", index, None).unwrap();
    }
    let even = BTreeMap::from(["a", "b", "c"].map(|zone| (zone.to_owned(), 2)));
    assert_eq!(world.zones("web"), even);
    for round in 0..10 {
        for index in 0..6 {
            world.succeed("web", index);
        }
        assert_eq!(world.zones("web"), even, "after rollout {round}");
    }
    for lost in ["n0", "n4", "n2"] {
        world.state_of(lost, NodeState::Lost);
        let gone: Vec<_> = world
            .state
            .allocs_of(&"web".parse().unwrap())
            .filter(|alloc| alloc.status == AllocStatus::Lost && alloc.node.as_str() == lost)
            .map(|alloc| (alloc.index, alloc.id))
            .collect();
        for (index, id) in gone {
            if !world.state.replica(&"web".parse().unwrap(), index).unwrap().wanted() {
                world.place("web", index, Some(id)).unwrap();
            }
        }
        assert_eq!(world.zones("web"), even, "after {lost} was lost");
        world.state_of(lost, NodeState::Ready);
        for alloc in world.state.clone().allocs_of(&"web".parse().unwrap()) {
            if alloc.status == AllocStatus::Pending {
                world.end(alloc.id);
            }
        }
    }
    for index in 0..6 {
        world.succeed("web", index);
    }
    assert_eq!(world.zones("web"), even);
}

#[test]
fn a_successor_finds_a_place_where_each_node_holds_one() {
    let mut world = World::new(&[4000, 4000]);
    let mut spec = service("web", 2, 200, 50);
    spec.placement.max_per_node = Some(1);
    world.submit(&spec);
    world.place("web", 0, None).unwrap();
    world.place("web", 1, None).unwrap();
    assert_eq!(world.place("web", 2, None).unwrap_err(), "max_per_node reached: 2");
    let state = world.state.clone();
    let mut fleet = Fleet::new(&state);
    let mut nodes = BTreeSet::new();
    // Both at once, as where a second set takes over.
    for index in 0..2 {
        let previous = state.replica(&"web".parse().unwrap(), index).unwrap().id;
        nodes.insert(fleet.place(&ask(&state, "web", index, Some(previous))).unwrap().node);
    }
    assert_eq!(nodes.len(), 2);
}

#[test]
fn what_moves_leaves_its_node_for_the_one_that_was_chosen() {
    let mut world = World::new(&[4000, 4000, 4000]);
    world.submit(&service("web", 1, 200, 50));
    let from = world.place("web", 0, None).unwrap();
    let alloc = world.state.replica(&"web".parse().unwrap(), 0).unwrap().clone();
    let to: NodeName = ["n0", "n1", "n2"]
        .map(|name| name.parse().unwrap())
        .into_iter()
        .rfind(|name| *name != from)
        .unwrap();
    let wish = |alloc, to: Option<&NodeName>| Command::MoveAllocs {
        moves: vec![AllocMove { alloc, reason: StopReason::Rebalanced, to: to.cloned() }],
    };
    world.apply(wish(alloc.id, Some(&to)));
    assert_eq!(world.succeed("web", 0), to);
    let moved = world.state.replica(&"web".parse().unwrap(), 0).unwrap().id;
    world.apply(wish(moved, None));
    assert_ne!(world.succeed("web", 0), to);
}

#[test]
fn the_weaker_give_way_and_room_that_is_being_freed_is_kept() {
    let mut world = World::new(&[1000, 1000]);
    world.submit(&service("low", 4, 500, 10));
    for index in 0..4 {
        world.place("low", index, None).unwrap();
    }
    world.submit(&service("high", 1, 900, 80));
    world.submit(&service("mid", 1, 500, 50));
    let plan = |world: &World| {
        let inputs = crate::planner::Inputs {
            now: world.now,
            node_timeout: Millis::from_secs(10),
            ..Default::default()
        };
        let scope = crate::planner::Scope { all: true, ..Default::default() };
        crate::planner::plan(&world.state, &inputs, &scope)
    };
    let preemptions = |plan: &crate::planner::Plan| -> Vec<(String, usize)> {
        let told = |command: &Command| match command {
            Command::PreemptAllocs { victims, by } => Some((by.to_string(), victims.len())),
            _ => None,
        };
        plan.commands.iter().filter_map(told).collect()
    };
    let first = plan(&world);
    assert_eq!(preemptions(&first), [("high".to_owned(), 2), ("mid".to_owned(), 1)]);
    for command in first.commands {
        world.apply(command);
    }
    let victims: Vec<_> = world
        .state
        .allocs()
        .filter(|alloc| alloc.desired == Desired::Stop(StopReason::Preempted))
        .cloned()
        .collect();
    assert_eq!(victims.len(), 3);
    let told = &victims[0].notes.last().unwrap().text;
    assert_eq!(told, "stopping: preempted by high, whose priority is 80 and this one's 10",);
    // One after another they end; nobody takes the room, nobody else gives way.
    for victim in &victims {
        let again = plan(&world);
        assert_eq!(preemptions(&again), [], "it waits");
        let low = |row: &crate::state::Placement| row.job.name.as_str() == "low";
        let stolen = again.commands.iter().any(|command| match command {
            Command::Place(rows) => rows.rows().any(|row| low(&row)),
            _ => false,
        });
        assert!(!stolen);
        let text = again.unplaced[&"high".parse().unwrap()].refusals.to_string();
        assert!(text.starts_with("it waits for room being freed on n"), "{text}");
        let spec = world.state.job(&"high".parse().unwrap()).unwrap().spec().clone();
        assert_eq!(explain(&world.state, &spec).refusals.to_string(), text);
        let alloc = world.state.alloc(victim.id).unwrap().clone();
        world.report(&alloc, AllocStatus::Stopped);
        if victims
            .iter()
            .filter(|v| v.node == victim.node)
            .all(|v| world.state.alloc(v.id).unwrap().ended())
            && victims.iter().filter(|v| v.node == victim.node).count() == 2
        {
            break;
        }
    }
    world.place("high", 0, None).unwrap();
}

#[derive(Debug, Clone)]
struct Held {
    node: usize,
    cpu: u64,
    priority: u8,
    port: Option<u16>,
}

fn held() -> impl Strategy<Value = Held> {
    (0..3_usize, 1..5_u64, 1..6_u8, prop::option::weighted(0.3, 8080..8083_u16))
        .prop_map(|(node, cpu, priority, port)| Held { node, cpu: cpu * 100, priority, port })
}

fn port(mut spec: JobSpec, port: Option<u16>) -> JobSpec {
    spec.tasks[0].ports.extend(port.map(|host| PortSpec {
        name: "fixed".parse().unwrap(),
        container: None,
        host: Some(host),
        protocol: Protocol::Tcp,
    }));
    spec
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Never one of equal or higher priority, never one too many, and of all choices the one with
    /// the fewest victims and then the lowest priorities; nothing only if there is nothing.
    #[test]
    fn the_fewest_and_weakest_give_way(
        helds in prop::collection::vec(held(), 1..14),
        cpu in 1..11_u64,
        priority in 1..7_u8,
        wants_port in prop::option::weighted(0.3, 8080..8083_u16),
    ) {
        let mut world = World::new(&[1000, 1000, 1000]);
        for (i, held) in helds.iter().enumerate() {
            let mut spec = port(service(&format!("h{i}"), 1, held.cpu, held.priority), held.port);
            spec.placement.require = vec![format!("node.name == n{}", held.node).parse().unwrap()];
            world.submit(&spec);
            // What finds no room is not there.
            let _ = world.place(&format!("h{i}"), 0, None);
        }
        world.submit(&port(service("new", 1, cpu * 100, priority), wants_port));
        let state = world.state.clone();
        let ask = ask(&state, "new", 0, None);
        let mut fleet = Fleet::new(&state);
        if fleet.place(&ask).is_ok() {
            return Ok(());
        }
        let room = fleet.make_room(&ask);
        let mut best: Option<(usize, Vec<u8>)> = None;
        for node in state.nodes() {
            let live: Vec<_> = state.allocs_on(&node.name).filter(|a| !a.ended()).collect();
            for chosen in 0..1_u32 << live.len() {
                let gone = |i: usize| chosen & (1 << i) != 0;
                let priority_of = |a: &Allocation| state.job(&a.job).unwrap().spec().priority;
                let mut priorities: Vec<u8> =
                    (0..live.len()).filter(|i| gone(*i)).map(|i| priority_of(live[i])).collect();
                if priorities.iter().any(|p| *p >= priority) {
                    continue;
                }
                let stay = || (0..live.len()).filter(|i| !gone(*i)).map(|i| live[i]);
                let used: u64 = stay().map(|a| a.reserved.cpu_milli).sum();
                let taken = stay().any(|a| a.reserved_ports.iter().any(|(p, _)| Some(*p) == wants_port));
                if used + cpu * 100 <= 1000 && !taken {
                    priorities.sort_by_key(|p| std::cmp::Reverse(*p));
                    let key = (priorities.len(), priorities);
                    if best.as_ref().is_none_or(|known| key < *known) {
                        best = Some(key);
                    }
                }
            }
        }
        let found = room.map(|room| {
            let mut priorities: Vec<u8> = room
                .victims
                .iter()
                .map(|id| state.job(&state.alloc(*id).unwrap().job).unwrap().spec().priority)
                .collect();
            priorities.sort_by_key(|p| std::cmp::Reverse(*p));
            (priorities.len(), priorities)
        });
        prop_assert_eq!(found, best);
    }
}

#[test]
fn a_node_that_is_lost_too_often_waits_longer_each_time() {
    let mut world = World::new(&[4000]);
    let name: NodeName = "n0".parse().unwrap();
    world.submit(&service("web", 1, 200, 50));
    let minute = Millis::from_secs(60);
    let comes_and_goes = |world: &mut World| {
        world.now = world.now + Millis::from_secs(20);
        world.state_of("n0", NodeState::Lost);
        world.now = world.now + Millis::from_secs(20);
        world.state_of("n0", NodeState::Ready);
        world.state.node(&name).unwrap().probation_until.map(|until| until.since(world.now))
    };
    let lengths: Vec<_> = (0..9).map(|_| comes_and_goes(&mut world)).collect();
    let minutes = |n: u64| Some(Millis(n * minute.0));
    assert_eq!(lengths[..6], [None, None, minutes(1), minutes(2), minutes(4), minutes(8)]);
    assert_eq!(lengths[6..], [minutes(16), minutes(30), minutes(30)]);
    let node = world.state.node(&name).unwrap().clone();
    let until = node.probation_until.unwrap().time_of_day();
    assert_eq!(node.reason, format!("on probation until {until}: lost 9 times within 10m"));
    let said = world.place("web", 0, None).unwrap_err();
    assert_eq!(said, format!("on probation until {until}: 1"));

    // Too early it means nothing; an agent that was stopped in order changes nothing.
    world.apply(Command::EndProbation { node: name.clone() });
    world.state_of("n0", NodeState::Left);
    world.state_of("n0", NodeState::Ready);
    let again = world.state.node(&name).unwrap().clone();
    assert_eq!(again.probation_until, node.probation_until);
    assert_eq!(again.reason, format!("on probation until {until}"));

    let end_it = |world: &World| {
        let inputs = crate::planner::Inputs {
            now: world.now,
            node_timeout: Millis::from_secs(10),
            ..Default::default()
        };
        let scope = crate::planner::Scope { all: true, ..Default::default() };
        let plan = crate::planner::plan(&world.state, &inputs, &scope);
        let end = Command::EndProbation { node: "n0".parse().unwrap() };
        (plan.commands.contains(&end), plan.next_look)
    };
    assert_eq!(end_it(&world), (false, node.probation_until));
    world.now = world.now + Millis(30 * minute.0);
    assert!(end_it(&world).0);
    world.apply(Command::EndProbation { node: name.clone() });
    let node = world.state.node(&name).unwrap().clone();
    assert!(node.takes_work() && node.reason.is_empty() && node.losses.is_empty());
    assert_eq!(world.place("web", 0, None).unwrap(), name);

    // By hand it ends at once, and old losses are forgotten.
    for _ in 0..3 {
        comes_and_goes(&mut world);
    }
    assert!(!world.state.node(&name).unwrap().takes_work());
    world.apply(Command::SetEligibility { node: name.clone(), eligible: true });
    assert!(world.state.node(&name).unwrap().takes_work());
    assert_eq!(comes_and_goes(&mut world), None);
}

#[test]
fn on_probation_nothing_is_taken_back_that_was_replaced() {
    let mut world = World::new(&[4000, 4000]);
    world.submit(&service("web", 1, 200, 50));
    let home = world.place("web", 0, None).unwrap();
    let id: JobId = "web".parse().unwrap();
    let first = world.state.replica(&id, 0).unwrap().id;
    for round in 1..=3 {
        world.state_of(home.as_str(), NodeState::Lost);
        if round == 3 {
            world.place("web", 0, Some(first)).unwrap();
        }
        world.state_of(home.as_str(), NodeState::Ready);
        let lost = world.state.alloc(first).unwrap().ended();
        assert_eq!(lost, round == 3, "its place is free the first two times");
        if round < 3 {
            let alloc = world.state.alloc(first).unwrap().clone();
            world.report(&alloc, AllocStatus::Running);
        }
    }
}
