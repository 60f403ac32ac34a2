//! Scenarios: a state, a planner, and agents that do at once what they are told.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::allocation::{
    AllocReport, AllocStatus, Allocation, Health, StopReason, TaskState,
};
use crate::model::deployment::{Deployment, DeploymentId, DeploymentStatus};
use crate::model::job::{
    JobKind, JobSpec, PortSpec, Promotion, Protocol, TaskRuntime, TaskSpec, UpdateOrder,
    UpdatePolicy, UpdateStrategy,
};
use crate::model::name::AllocId;
use crate::model::node::{Node, NodeState};
use crate::model::resources::ResourceRequest;
use crate::state::{AllocMove, Reply, Stamp, State};

mod deployments;
mod property;

/// A cluster without clocks and wires.
struct Cluster {
    state: State,
    now: Timestamp,
    silent: BTreeSet<NodeName>,
    /// Steps that an agent takes to start something.
    slow: u32,
    seen: BTreeMap<AllocId, u32>,
    /// Nodes whose work has been started once more.
    rebooted: BTreeSet<NodeName>,
}

impl Cluster {
    fn new(nodes: u32) -> Self {
        let state = State::default();
        let mut cluster = Self {
            state,
            now: Timestamp(1_000_000),
            silent: BTreeSet::new(),
            slow: 0,
            seen: BTreeMap::new(),
            rebooted: BTreeSet::new(),
        };
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

    /// As [`Self::apply`] for what users ask at the wrong time too.
    fn ask(&mut self, command: Command) -> bool {
        let stamp = Stamp { index: self.state.stamp().index + 1, at: self.now };
        self.state.apply(stamp, &command.into()).reply.is_ok()
    }

    fn deployment(&self, job: &str) -> Deployment {
        let id: JobId = job.parse().expect("a job id");
        let job = self.state.job(&id).expect("a known job");
        (**self.state.latest_deployment(job).expect("a deployment")).clone()
    }

    fn latest(&self, job: u8) -> Option<DeploymentId> {
        self.state.job(&numbered(job))?.deployments.last().copied()
    }

    /// What the job's deployment waits for.
    fn waits(&self, job: &str) -> String {
        let deployment = self.deployment(job);
        let job = self.state.job(&deployment.job).expect("a known job");
        let progress = progress::progress(&self.state, self.now, job, &deployment);
        progress.waits.map(|wait| wait.what).unwrap_or_default()
    }

    fn submit(&mut self, spec: JobSpec) {
        self.apply(Command::SubmitJob { spec: Arc::new(spec), if_version: None });
    }

    fn plan(&self) -> Plan {
        // As the leader does it: only who is overdue is named.
        let last_heard = self.silent.iter().map(|name| (name.clone(), Timestamp(0))).collect();
        let node_timeout = Millis::from_secs(10);
        let inputs = Inputs { now: self.now, last_heard, node_timeout };
        plan(&self.state, &inputs, &Scope { all: true, ..Scope::default() })
    }

    /// One look of the planners and one turn of the agents; whether anything happened.
    fn step(&mut self, fate: impl Fn(&Allocation) -> AllocStatus) -> bool {
        let commands = self.plan().commands;
        let mut busy = !commands.is_empty();
        self.check_promises(&commands);
        for command in commands {
            if let Command::Place(placements) = &command {
                let rows = placements.len() as u32;
                let placed = Reply::Placed { placed: rows, refused: 0 };
                let live: Vec<_> = self
                    .state
                    .allocs()
                    .filter(|a| !a.ended())
                    .map(|a| (a.id, &a.job, a.index, a.version, &a.node, &a.desired, a.previous))
                    .collect();
                let what = format!("a plan on the newest state holds: {command:?} {live:?}");
                assert_eq!(self.apply(command), placed, "{what}");
            } else {
                self.apply(command.clone());
                if let Command::StopAllocs { stops } = &command {
                    let refused = stops
                        .iter()
                        .find(|(id, _)| self.state.alloc(*id).is_some_and(|alloc| alloc.wanted()));
                    assert_eq!(refused, None, "a plan on the newest state holds");
                }
            }
        }
        for alloc in self.state.clone().allocs().filter(|alloc| !alloc.ended()) {
            if self.silent.contains(&alloc.node) {
                continue;
            }
            let seen = self.seen.entry(alloc.id).or_default();
            *seen += 1;
            if alloc.wanted() && alloc.status == AllocStatus::Pending && *seen <= self.slow {
                busy = true;
                continue;
            }
            let status = if alloc.wanted() { fate(alloc) } else { AllocStatus::Stopped };
            let health =
                if status == AllocStatus::Running { Health::Healthy } else { Health::Unknown };
            if alloc.status == status && alloc.health == health {
                continue;
            }
            busy = true;
            let ran_on = alloc.started_at().filter(|_| !self.rebooted.contains(&alloc.node));
            let started_at = ran_on.or(Some(self.now));
            let task = TaskState { started_at, ..TaskState::default() };
            let spec = self.state.job(&alloc.job).map(|job| job.spec().clone());
            let name = spec.map_or_else(|| "web".parse().unwrap(), |s| s.tasks[0].name.clone());
            let report = AllocReport {
                id: alloc.id,
                generation: alloc.grant.generation,
                status,
                health,
                ready: health == Health::Healthy,
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

    /// Time passes, and the planners look whenever they asked to.
    fn live_through(&mut self, time: Millis) {
        let end = self.now + time;
        while self.now < end {
            self.settle();
            let next = self.plan().next_look.unwrap_or(end);
            self.now = next.max(self.now + Millis(1)).min(end);
        }
        self.settle();
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
        for (id, job) in self.state.jobs() {
            let mut places: BTreeMap<_, Vec<&Allocation>> = BTreeMap::new();
            // What came back with a lost node may stand beside its replacement for a while.
            let returned = |a: &Allocation| a.notes.iter().any(|n| n.text.starts_with("lost"));
            let wanted = self.state.allocs_of(id).filter(|alloc| alloc.wanted());
            for alloc in wanted.filter(|alloc| !returned(alloc)) {
                let runs_as = job.version(alloc.version).map(|version| version.runs_as);
                places.entry((alloc.index, runs_as)).or_default().push(alloc);
            }
            for ((index, _), allocs) in places {
                let replaces = |a: &Allocation| allocs.iter().any(|b| a.previous == Some(b.id));
                let alone = allocs.iter().filter(|alloc| !replaces(alloc)).count();
                assert!(allocs.len() <= 2 && alone == 1, "{id}.{index}: {allocs:#?}");
                let overlap = job.versions.iter().any(|version| {
                    version.spec.order() == UpdateOrder::StartFirst
                        || version.spec.update.strategy != UpdateStrategy::Rolling
                });
                assert!(allocs.len() == 1 || overlap, "{id}.{index} is there twice");
            }
        }
    }

    /// Places of a service with a replica that takes traffic, but for these allocations.
    fn available(&self, id: &JobId, without: &BTreeSet<AllocId>) -> u32 {
        let replicas = self.state.job(id).map_or(0, |job| job.replicas());
        let Some(job) = self.state.job(id) else { return 0 };
        let places: BTreeSet<u32> = self
            .state
            .endpoints(id, job)
            .filter(|a| a.index < replicas && !without.contains(&a.id))
            .map(|a| a.index)
            .collect();
        places.len() as u32
    }

    /// What planners stop of their own accord never breaks what a job promises.
    fn check_promises(&self, commands: &[Command]) {
        let stops = commands.iter().filter_map(|command| match command {
            Command::StopAllocs { stops } => Some(stops),
            _ => None,
        });
        let mut by_job: BTreeMap<JobId, BTreeSet<AllocId>> = BTreeMap::new();
        for (id, reason) in stops.flatten() {
            let own = matches!(
                reason,
                StopReason::Updated
                    | StopReason::Reverted
                    | StopReason::Drained
                    | StopReason::Moved
                    | StopReason::Rebalanced
            );
            let alloc = self.state.alloc(*id).expect("a known allocation");
            let drain = self.state.node(&alloc.node).and_then(|node| node.drain.clone());
            let due = drain.and_then(|drain| Some(drain.since + drain.deadline?));
            if own && due.is_none_or(|due| due > self.now) {
                by_job.entry(alloc.job.clone()).or_default().insert(*id);
            }
        }
        for (id, stops) in by_job {
            let job = self.state.job(&id).expect("a known job");
            if !matches!(job.spec().kind, JobKind::Service { .. }) || !job.active() {
                continue;
            }
            let before = self.available(&id, &BTreeSet::new());
            let after = self.available(&id, &stops);
            let promised = match job.spec().order() {
                UpdateOrder::StartFirst => job.replicas(),
                UpdateOrder::StopFirst => {
                    job.replicas().saturating_sub(job.spec().update.max_parallel)
                }
            };
            assert!(
                after == before || after >= promised,
                "{id}: {before} were healthy, {after} are left, {promised} were promised"
            );
        }
    }
}

fn task(name: &str) -> TaskSpec {
    TaskSpec {
        command: vec!["serve".into()],
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
        ..TaskSpec::new(name.parse().expect("a name"), TaskRuntime::Process)
    }
}

fn job(name: &str, kind: JobKind) -> JobSpec {
    JobSpec::new(name.parse().expect("a name"), kind, vec![task(name)])
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
        let healthy = cluster.running("web").iter().filter(|a| a.available()).count();
        assert!(healthy >= 3, "only {healthy} of 4 are healthy");
        steps += 1;
    }
    assert!(steps >= 4);
    assert!(cluster.running("web").iter().all(|a| a.version == 2));
    assert_eq!(cluster.running("web").len(), 4);
}

#[test]
fn an_old_replica_that_fails_within_a_rollout_is_replaced_by_a_new_one() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 2));
    cluster.settle();
    let mut spec = service("web", 2);
    spec.tasks[0].command = vec!["serve".into(), "better".into()];
    cluster.submit(spec);
    for _ in 0..5 {
        cluster.step(|alloc| match (alloc.version, alloc.index) {
            (1, 0) => AllocStatus::Running,
            (1, _) => AllocStatus::Failed,
            _ => AllocStatus::Starting,
        });
        cluster.now = cluster.now + Millis::from_secs(6);
    }
    let old = cluster.state.allocs().filter(|alloc| alloc.version == 1).count();
    assert_eq!(old, 2, "nothing old was started again");
    assert_eq!(cluster.running("web").iter().filter(|a| a.version == 2).count(), 2);
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
    let old = cluster.running("web").iter().filter(|a| a.version == 1 && a.available()).count();
    assert_eq!(old, 4, "it went back without a replica less");
    assert_eq!(cluster.running("web").len(), 4);
    let id: JobId = "web".parse().unwrap();
    let job = cluster.state.job(&id).unwrap().clone();
    let deployments: Vec<_> = cluster.state.deployments_of(&job).cloned().collect();
    let [first, bad, back] = deployments.as_slice() else { panic!("{deployments:#?}") };
    assert_eq!(first.status, DeploymentStatus::Successful);
    assert_eq!(bad.status, DeploymentStatus::Failed);
    assert!(bad.reason.contains("going back to version 1"), "{}", bad.reason);
    assert_eq!((back.status, back.reverts), (DeploymentStatus::Successful, Some(bad.id)));
    assert_eq!(job.stable, Some(3));
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
    assert_eq!(cluster.state.assignments(&lost).len(), 1, "what ran on all the time is kept");
    assert!(cluster.running("web").iter().all(|a| a.previous.is_none()));
}

#[test]
fn what_ended_on_a_lost_node_does_not_end_its_replacement() {
    let mut cluster = Cluster::new(3);
    cluster.submit(service("web", 3));
    cluster.settle();
    let lost = cluster.running("web")[0].node.clone();
    cluster.silent.insert(lost.clone());
    cluster.now = cluster.now + Millis::from_secs(11);
    cluster.settle();
    let replaced: Vec<_> = cluster.running("web").iter().map(|a| a.id).collect();
    cluster.now = cluster.now + Millis::from_secs(11);
    cluster.silent.clear();
    cluster.rebooted.insert(lost.clone());
    let spec = cluster.state.node(&lost).unwrap().spec.clone();
    cluster.apply(Command::RegisterNode { spec });
    cluster.settle();
    assert_eq!(cluster.running("web").iter().map(|a| a.id).collect::<Vec<_>>(), replaced);
    assert!(cluster.state.assignments(&lost).is_empty());
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
    cluster.submit(job("once", JobKind::once(Some(Millis::from_secs(60)))));
    cluster.step(|_| AllocStatus::Complete);
    cluster.settle();
    let id: JobId = "once".parse().unwrap();
    assert_eq!(cluster.state.job(&id).unwrap().outcome, Some(crate::state::JobOutcome::Complete));
    assert_eq!(cluster.state.allocs_of(&id).count(), 1);

    cluster.submit(job("slow", JobKind::once(Some(Millis::from_secs(60)))));
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
        let healthy = cluster.running("web").iter().filter(|a| a.available()).count();
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

fn numbered(job: u8) -> JobId {
    format!("j{job}").parse().expect("a job id")
}
