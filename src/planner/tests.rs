//! Scenarios: a state, a planner, and agents that do at once what they are told.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::allocation::{AllocReport, AllocStatus, Allocation, Health, TaskState};
use crate::model::job::{JobKind, JobSpec, PortSpec, Protocol, TaskRuntime, TaskSpec};
use crate::model::node::{Node, NodeState};
use crate::model::resources::ResourceRequest;
use crate::state::{Reply, Stamp, State};

/// A cluster without clocks and wires.
struct Cluster {
    state: State,
    now: Timestamp,
    silent: BTreeSet<NodeName>,
}

impl Cluster {
    fn new(nodes: u32) -> Self {
        let state = State::default();
        let mut cluster = Self { state, now: Timestamp(1_000_000), silent: BTreeSet::new() };
        for i in 0..nodes {
            let mut node = Node::example(&format!("n{i}"));
            let zone = ["a", "b", "c"][i as usize % 3];
            node.attributes.insert("zone".into(), zone.into());
            cluster.apply(Command::RegisterNode { spec: node.spec });
        }
        cluster
    }

    fn apply(&mut self, command: Command) -> Reply {
        let index = self.state.stamp().index + 1;
        let stamp = Stamp { index, at: self.now };
        self.state.apply(stamp, &command.into()).reply.expect("carried out")
    }

    fn submit(&mut self, spec: JobSpec) {
        self.apply(Command::SubmitJob { spec: Arc::new(spec), if_version: None });
    }

    fn plan(&self) -> Plan {
        let heard =
            |name: &NodeName| if self.silent.contains(name) { Timestamp(0) } else { self.now };
        let last_heard =
            self.state.nodes().map(|node| (node.name.clone(), heard(&node.name))).collect();
        let node_timeout = Millis::from_secs(10);
        let inputs = Inputs { now: self.now, last_heard, node_timeout };
        plan(&self.state, &inputs, &Scope { all: true, ..Scope::default() })
    }

    /// One look of the planners and one turn of the agents; whether anything happened.
    fn step(&mut self, fate: impl Fn(&Allocation) -> AllocStatus) -> bool {
        let commands = self.plan().commands;
        let mut busy = !commands.is_empty();
        for command in commands {
            if let Command::Place(placements) = &command {
                let rows = placements.len() as u32;
                let placed = Reply::Placed { placed: rows, refused: 0 };
                assert_eq!(self.apply(command), placed, "a plan on the newest state holds");
            } else {
                self.apply(command);
            }
        }
        for alloc in self.state.clone().allocs().filter(|alloc| !alloc.ended()) {
            if self.silent.contains(&alloc.node) {
                continue;
            }
            let status = if alloc.wanted() { fate(alloc) } else { AllocStatus::Stopped };
            let health =
                if status == AllocStatus::Running { Health::Healthy } else { Health::Unknown };
            if alloc.status == status && alloc.health == health {
                continue;
            }
            busy = true;
            let task = TaskState { started_at: Some(self.now), ..TaskState::default() };
            let spec = self.state.job(&alloc.job).map(|job| job.spec().clone());
            let name = spec.map_or_else(|| "web".parse().unwrap(), |s| s.tasks[0].name.clone());
            let report = AllocReport {
                id: alloc.id,
                generation: alloc.grant.generation,
                status,
                health,
                tasks: [(name, task)].into(),
                message: String::new(),
            };
            let node = self.state.node(&alloc.node).expect("a node").clone();
            self.apply(Command::ReportAllocs {
                node: node.name.clone(),
                agent_id: node.agent_id,
                reports: vec![report],
            });
        }
        self.check();
        busy
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            if !self.step(|_| AllocStatus::Running) {
                return;
            }
            self.now = self.now + Millis(100);
        }
        panic!("it never comes to rest: {:?}", self.plan().commands);
    }

    fn running(&self, job: &str) -> Vec<&Arc<Allocation>> {
        let id: JobId = job.parse().expect("a job id");
        self.state.jobs_from(&id).next().map(|(id, _)| id).map_or_else(Vec::new, |id| {
            self.state.allocs_of(id).filter(|alloc| alloc.wanted()).collect()
        })
    }

    /// What must hold at every moment.
    fn check(&self) {
        for node in self.state.nodes() {
            let mut used = crate::state::NodeUse::default();
            let mut ports = 0;
            for alloc in self.state.allocs_on(&node.name).filter(|alloc| !alloc.ended()) {
                used.take(alloc);
                ports += alloc.reserved_ports.len();
            }
            assert_eq!(used, self.state.node_use(&node.name), "the index is the sum");
            assert_eq!(used.ports.len(), ports, "a port is given once");
            assert_eq!(node.resources.lacks(used.resources), None, "{} is overfull", node.name);
        }
        for (id, _) in self.state.jobs() {
            let live: Vec<_> =
                self.state.allocs_of(id).filter(|a| !a.ended()).map(|a| a.index).collect();
            let places: BTreeSet<_> = live.iter().collect();
            assert_eq!(places.len(), live.len(), "one allocation a place");
        }
    }
}

fn task(name: &str) -> TaskSpec {
    TaskSpec {
        name: name.parse().expect("a name"),
        runtime: TaskRuntime::Process,
        entrypoint: None,
        command: vec!["serve".into()],
        environment: Default::default(),
        ports: vec![PortSpec {
            name: "http".parse().expect("a name"),
            container: None,
            host: None,
            protocol: Protocol::Tcp,
        }],
        resources: ResourceRequest {
            cpu_milli: Some(500),
            memory: Some(512 << 20),
            ..ResourceRequest::default()
        },
        volumes: Vec::new(),
        user: None,
        working_dir: None,
        stop_signal: None,
        stop_grace: TaskSpec::stop_grace_default(),
        cap_add: Vec::new(),
        cap_drop: Vec::new(),
        read_only: false,
        healthcheck: None,
        labels: Default::default(),
    }
}

fn job(name: &str, kind: JobKind) -> JobSpec {
    JobSpec {
        project: Default::default(),
        name: name.parse().expect("a name"),
        kind,
        priority: JobSpec::priority_default(),
        labels: Default::default(),
        tasks: vec![task(name)],
        placement: Default::default(),
        restart: Default::default(),
        update: Default::default(),
    }
}

fn service(name: &str, replicas: u32) -> JobSpec {
    job(name, JobKind::Service { replicas })
}

#[test]
fn a_service_gets_its_replicas_on_different_nodes() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 3));
    cluster.settle();
    let nodes: BTreeSet<_> = cluster.running("web").iter().map(|a| a.node.clone()).collect();
    assert_eq!(nodes.len(), 3);
}

#[test]
fn scaling_starts_and_stops_the_difference_alone() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 2));
    cluster.settle();
    let before: BTreeSet<_> = cluster.running("web").iter().map(|a| a.id).collect();
    let id: JobId = "web".parse().unwrap();
    cluster.apply(Command::ScaleJob { job: id.clone(), replicas: 5 });
    cluster.settle();
    let after: BTreeSet<_> = cluster.running("web").iter().map(|a| a.id).collect();
    assert_eq!(after.len(), 5);
    assert!(before.is_subset(&after));
    cluster.apply(Command::ScaleJob { job: id, replicas: 1 });
    cluster.settle();
    assert_eq!(cluster.running("web").iter().map(|a| a.index).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_new_version_replaces_one_replica_at_a_time() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 4));
    cluster.settle();
    let mut spec = service("web", 4);
    spec.tasks[0].command = vec!["serve".into(), "better".into()];
    cluster.submit(spec);
    let mut steps = 0;
    while cluster.step(|_| AllocStatus::Running) {
        let healthy = cluster.running("web").iter().filter(|a| a.healthy()).count();
        assert!(healthy >= 3, "only {healthy} of 4 are healthy");
        steps += 1;
    }
    assert!(steps >= 4);
    assert!(cluster.running("web").iter().all(|a| a.version == 2));
    assert_eq!(cluster.running("web").len(), 4);
}

#[test]
fn a_bad_version_stops_at_its_first_replica() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 4));
    cluster.settle();
    let mut spec = service("web", 4);
    spec.tasks[0].command = vec!["crash".into()];
    cluster.submit(spec);
    for _ in 0..50 {
        let fate = |a: &Allocation| {
            if a.version == 2 { AllocStatus::Failed } else { AllocStatus::Running }
        };
        cluster.step(fate);
        cluster.now = cluster.now + Millis::from_secs(60);
    }
    let old = cluster.running("web").iter().filter(|a| a.version == 1).count();
    assert_eq!(old, 3);
}

#[test]
fn labels_and_replicas_restart_nothing() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 2));
    cluster.settle();
    let before: BTreeSet<_> = cluster.running("web").iter().map(|a| a.id).collect();
    let mut spec = service("web", 3);
    spec.labels.insert("team".into(), "blue".into());
    cluster.submit(spec);
    cluster.settle();
    let after: BTreeSet<_> = cluster.running("web").iter().map(|a| a.id).collect();
    assert!(before.is_subset(&after));
    assert_eq!(after.len(), 3);
}

#[test]
fn a_lost_node_is_replaced_and_taken_back_without_doubles() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 3));
    cluster.settle();
    let lost = cluster.running("web")[0].node.clone();
    cluster.silent.insert(lost.clone());
    cluster.now = cluster.now + Millis::from_secs(11);
    cluster.settle();
    assert_eq!(cluster.state.node(&lost).map(|n| n.state), Some(NodeState::Lost));
    assert_eq!(cluster.running("web").len(), 3);
    assert!(cluster.running("web").iter().all(|a| a.node != lost));
    cluster.silent.clear();
    let spec = cluster.state.node(&lost).unwrap().spec.clone();
    cluster.apply(Command::RegisterNode { spec });
    cluster.settle();
    assert_eq!(cluster.running("web").len(), 3);
    assert!(cluster.state.assignments(&lost).is_empty(), "it stops what was replaced");
}

#[test]
fn a_lost_node_that_nothing_replaced_goes_on() {
    let mut cluster = Cluster::new(1);
    cluster.submit(service("web", 2));
    cluster.settle();
    let before: Vec<_> = cluster.running("web").iter().map(|a| a.id).collect();
    let node: NodeName = "n0".parse().unwrap();
    cluster.silent.insert(node.clone());
    cluster.now = cluster.now + Millis::from_secs(11);
    cluster.settle();
    assert!(cluster.running("web").is_empty());
    cluster.silent.clear();
    let spec = cluster.state.node(&node).unwrap().spec.clone();
    cluster.apply(Command::RegisterNode { spec });
    cluster.settle();
    assert_eq!(cluster.running("web").iter().map(|a| a.id).collect::<Vec<_>>(), before);
}

#[test]
fn a_system_job_follows_the_nodes() {
    let mut cluster = Cluster::new(3);
    let mut spec = job("logs", JobKind::System);
    spec.placement.require = vec!["attr.zone != c".parse().unwrap()];
    cluster.submit(spec);
    cluster.settle();
    assert_eq!(cluster.running("logs").len(), 2);
    let mut node = Node::example("n9");
    node.attributes.insert("zone".into(), "a".into());
    cluster.apply(Command::RegisterNode { spec: node.spec });
    cluster.settle();
    assert_eq!(cluster.running("logs").len(), 3);
}

#[test]
fn a_batch_job_runs_once_and_ends_at_its_timeout() {
    let mut cluster = Cluster::new(1);
    cluster.submit(job("once", JobKind::Batch { timeout: Some(Millis::from_secs(60)) }));
    cluster.step(|_| AllocStatus::Complete);
    cluster.settle();
    let id: JobId = "once".parse().unwrap();
    assert_eq!(cluster.state.job(&id).unwrap().outcome, Some(crate::state::JobOutcome::Complete));
    assert_eq!(cluster.state.allocs_of(&id).count(), 1);

    cluster.submit(job("slow", JobKind::Batch { timeout: Some(Millis::from_secs(60)) }));
    cluster.settle();
    assert_eq!(cluster.running("slow").len(), 1);
    cluster.now = cluster.now + Millis::from_secs(61);
    cluster.settle();
    let id: JobId = "slow".parse().unwrap();
    assert_eq!(cluster.state.job(&id).unwrap().outcome, Some(crate::state::JobOutcome::Failed));
    assert!(cluster.running("slow").is_empty());
}

#[test]
fn a_drained_node_ends_up_empty_within_the_promise() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 6));
    cluster.submit(job("logs", JobKind::System));
    cluster.settle();
    let node: NodeName = "n1".parse().unwrap();
    cluster.apply(Command::DrainNode { node: node.clone(), deadline: None });
    while cluster.step(|_| AllocStatus::Running) {
        let healthy = cluster.running("web").iter().filter(|a| a.healthy()).count();
        assert!(healthy >= 5, "only {healthy} of 6 are healthy");
    }
    assert!(cluster.state.allocs_on(&node).all(|a| a.ended()));
    assert_eq!(cluster.running("web").len(), 6);
}

#[test]
fn the_last_node_keeps_its_work_until_the_deadline() {
    let mut cluster = Cluster::new(1);
    cluster.submit(service("web", 1));
    cluster.settle();
    let node: NodeName = "n0".parse().unwrap();
    let deadline = Some(Millis::from_secs(60));
    cluster.apply(Command::DrainNode { node, deadline });
    cluster.settle();
    assert_eq!(cluster.running("web").len(), 1);
    cluster.now = cluster.now + Millis::from_secs(61);
    cluster.settle();
    assert_eq!(cluster.running("web").len(), 0);
}

#[test]
fn what_fits_nowhere_is_explained() {
    let mut cluster = Cluster::new(4);
    let mut spec = service("big", 1);
    spec.tasks[0].resources.memory = Some(1 << 40);
    spec.placement.require = vec!["attr.zone != c".parse().unwrap()];
    let explanation = scheduler::explain(&cluster.state, &spec);
    assert!(explanation.never);
    let words = explanation.refusals.to_string();
    assert_eq!(words, "too small (memory): 3, constraint attr.zone != c: 1");
    cluster.submit(spec);
    let plan = cluster.plan();
    assert_eq!(plan.unplaced.values().map(|unplaced| unplaced.count).sum::<u32>(), 1);
}

#[test]
fn fixed_ports_and_gpus_are_given_once() {
    let mut cluster = Cluster::new(2);
    let mut node = Node::example("n0");
    node.resources.gpu = 2;
    cluster.apply(Command::RegisterNode { spec: node.spec });
    let mut fixed = service("fixed", 3);
    fixed.tasks[0].ports[0].host = Some(8080);
    cluster.submit(fixed);
    let mut gpu = service("gpu", 3);
    gpu.tasks[0].resources.gpu = 1;
    cluster.submit(gpu);
    cluster.settle();
    assert_eq!(cluster.running("fixed").len(), 2);
    let gpus: BTreeSet<u32> =
        cluster.running("gpu").iter().flat_map(|a| a.grant.gpus.clone()).collect();
    assert_eq!(gpus, BTreeSet::from([0, 1]));
}

#[test]
fn spread_is_even() {
    let mut cluster = Cluster::new(6);
    let mut spec = service("web", 6);
    spec.placement.spread = vec!["attr.zone".parse().unwrap()];
    cluster.submit(spec);
    cluster.settle();
    let mut zones: BTreeMap<String, u32> = BTreeMap::new();
    for alloc in cluster.running("web") {
        let node = cluster.state.node(&alloc.node).unwrap();
        *zones.entry(node.attributes["zone"].clone()).or_default() += 1;
    }
    assert_eq!(zones.into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn a_higher_priority_is_placed_first() {
    let mut cluster = Cluster::new(1);
    let mut low = service("aaa", 8);
    low.priority = 10;
    let mut high = service("zzz", 8);
    high.priority = 90;
    cluster.submit(low);
    cluster.submit(high);
    cluster.settle();
    assert_eq!(cluster.running("zzz").len(), 8);
    assert_eq!(cluster.running("aaa").len(), 0);
}

#[derive(Debug, Clone)]
enum Happening {
    Submit { job: u8, replicas: u32, command: u8 },
    Stop { job: u8 },
    Silence { node: u8 },
    Hear { node: u8 },
    Drain { node: u8 },
    Eligible { node: u8 },
    Fail { nth: u8 },
    Wait,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..3_u8, 0..6_u32, 0..3_u8).prop_map(|(job, replicas, command)| Happening::Submit {
            job,
            replicas,
            command
        }),
        (0..3_u8).prop_map(|job| Happening::Stop { job }),
        (0..4_u8).prop_map(|node| Happening::Silence { node }),
        (0..4_u8).prop_map(|node| Happening::Hear { node }),
        (0..4_u8).prop_map(|node| Happening::Drain { node }),
        (0..4_u8).prop_map(|node| Happening::Eligible { node }),
        (0..9_u8).prop_map(|nth| Happening::Fail { nth }),
        Just(Happening::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, and however the steps fall between: capacity, ports and places are never
    /// given twice (`check`), and once it is calm everything wanted that fits runs.
    #[test]
    fn it_always_comes_to_what_was_asked(
        happenings in prop::collection::vec((happening(), 0..4_u8), 1..40)
    ) {
        let mut cluster = Cluster::new(4);
        let node = |i: u8| -> NodeName { format!("n{i}").parse().unwrap() };
        for (happening, steps) in happenings {
            match happening {
                Happening::Submit { job, replicas, command } => {
                    let mut spec = service(&format!("j{job}"), replicas);
                    spec.tasks[0].command = vec![format!("c{command}")];
                    cluster.submit(spec);
                }
                Happening::Stop { job } => {
                    let id: JobId = format!("j{job}").parse().unwrap();
                    if cluster.state.job(&id).is_some() {
                        cluster.apply(Command::StopJob { job: id, purge: job == 0 });
                    }
                }
                Happening::Silence { node: i } => {
                    cluster.silent.insert(node(i));
                }
                Happening::Hear { node: i } => {
                    cluster.silent.remove(&node(i));
                    let spec = cluster.state.node(&node(i)).unwrap().spec.clone();
                    cluster.apply(Command::RegisterNode { spec });
                }
                Happening::Drain { node: i } => {
                    cluster.apply(Command::DrainNode { node: node(i), deadline: None });
                }
                Happening::Eligible { node: i } => {
                    cluster.apply(Command::SetEligibility { node: node(i), eligible: true });
                }
                Happening::Fail { nth } => {
                    let victim = cluster.state.allocs().filter(|a| a.wanted()).nth(nth.into());
                    let victim = victim.map(|alloc| alloc.id);
                    cluster.step(|a| {
                        if Some(a.id) == victim { AllocStatus::Failed } else { AllocStatus::Running }
                    });
                }
                Happening::Wait => cluster.now = cluster.now + Millis::from_secs(11),
            }
            for _ in 0..steps {
                cluster.step(|_| AllocStatus::Running);
            }
        }
        // Calm: all are heard, eligible, and old failures are forgotten in time.
        cluster.silent.clear();
        for i in 0..4 {
            let spec = cluster.state.node(&node(i)).unwrap().spec.clone();
            cluster.apply(Command::RegisterNode { spec });
            cluster.apply(Command::SetEligibility { node: node(i), eligible: true });
        }
        cluster.settle();
        cluster.now = cluster.now + Millis::from_secs(3600);
        cluster.settle();
        let jobs: Vec<_> = cluster.state.jobs().map(|(id, job)| (id.clone(), job.clone())).collect();
        for (id, job) in jobs {
            let live: Vec<_> = cluster.state.allocs_of(&id).filter(|a| !a.ended()).collect();
            prop_assert_eq!(live.len() as u32, job.replicas(), "{}", id);
            prop_assert!(live.iter().all(|a| job.runs_current(a.version)));
        }
    }
}
