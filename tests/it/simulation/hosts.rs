//! Hosts with agents: they take orders from the leader, start things after a while, see some of
//! them fail, report until it is acknowledged, and are cut off or lose their power now and then.

use std::collections::BTreeMap;
use std::time::Duration;

use orch::clock;
use orch::consensus::virtual_time::{now, sleep};
use orch::model::allocation::{AllocReport, AllocStatus, Assignment, Health, TaskState};
use orch::model::name::{AllocId, NodeName};
use orch::model::node::{NodeSpec, NodeState};
use orch::model::resources::Resources;
use orch::state::Command;

use super::planning::{Leader, instant};
use super::rollouts::{BAD, Cluster};

pub const HOSTS: u64 = 5;

/// The allocations of a host, as its agent has them.
#[derive(Default)]
struct Host {
    work: BTreeMap<AllocId, Work>,
    /// Orders of an older leader are refused.
    term: u64,
}

struct Work {
    generation: u64,
    assignment: Option<Assignment>,
    runs_at: Duration,
    ready_at: Duration,
    fails_at: Option<Duration>,
    /// Asked to stop: when it has ended.
    ends_at: Option<Duration>,
    /// What was acknowledged.
    told: Option<(u64, AllocStatus, bool)>,
}

fn up_to(millis: u64) -> Duration {
    Duration::from_millis(clock::random() % millis)
}

impl Work {
    fn new(assignment: Assignment, calm: bool) -> Self {
        let bad = assignment.spec.tasks[0].command.iter().any(|word| word == BAD);
        let mut work = Self {
            generation: assignment.grant.generation,
            assignment: Some(assignment),
            runs_at: Duration::ZERO,
            ready_at: Duration::ZERO,
            fails_at: None,
            ends_at: None,
            told: None,
        };
        work.begin();
        work.fails_at = match clock::random() % 20 {
            // Before it is ready: otherwise chance could make its version the one to go back to.
            _ if bad => Some(work.runs_at + (work.ready_at - work.runs_at) / 2),
            // As soon as its predecessor is about to go, or much later.
            0 if !calm => Some(work.ready_at + up_to(400)),
            1 if !calm => Some(work.runs_at + up_to(40_000)),
            _ => None,
        };
        work
    }

    fn begin(&mut self) {
        self.runs_at = now() + Duration::from_millis(30) + up_to(2500);
        self.ready_at = self.runs_at + up_to(1500);
    }

    fn stop(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
        if self.ends_at.is_none() {
            self.ends_at = Some(now() + up_to(2500));
        }
    }

    /// How far it is now, and whether it is ready.
    fn status(&self) -> (AllocStatus, bool) {
        let now = now();
        let failed = self.fails_at.filter(|at| *at <= now);
        match self.ends_at {
            Some(at) if failed.is_none_or(|failed| at < failed) => {
                let gone = at <= now;
                let status = if gone { AllocStatus::Stopped } else { AllocStatus::Running };
                (status, false)
            }
            _ if failed.is_some() => (AllocStatus::Failed, false),
            _ if now < self.runs_at => (AllocStatus::Starting, false),
            _ => (AllocStatus::Running, self.ready_at <= now),
        }
    }
}

pub fn host_name(host: u64) -> NodeName {
    format!("n{host}").parse().unwrap()
}

fn spec(host: u64) -> NodeSpec {
    NodeSpec {
        name: host_name(host),
        agent_id: 1000 + host,
        address: format!("10.0.0.{host}"),
        class: String::new(),
        attributes: BTreeMap::new(),
        resources: Resources { cpu_milli: 4000, memory: 8 << 30, disk: 100 << 30, gpu: 0 },
        runtimes: ["process".to_owned()].into(),
        volume_roots: Vec::new(),
        port_range: (20_000, 20_100),
        version: String::new(),
    }
}

impl Cluster {
    /// One host's life.
    pub async fn host(self, host: u64) {
        let mut agent = Host::default();
        let name = host_name(host);
        loop {
            sleep(Duration::from_millis(20) + up_to(80)).await;
            if !self.is_calm() && clock::random().is_multiple_of(400) {
                // Cut off: what runs goes on, and fails, but nobody hears of it.
                sleep(Duration::from_millis(500) + up_to(15_000)).await;
                if clock::random().is_multiple_of(3) {
                    // The power was gone: all of it starts once more.
                    agent.work.values_mut().for_each(Work::begin);
                }
            }
            let Some(leader) = self.leader().filter(|leader| leader.term >= agent.term) else {
                continue;
            };
            agent.term = leader.term;
            let Some(view) = self.world.view(leader.id) else { continue };
            let heard = (leader.id, leader.term, name.clone());
            self.heard.lock().unwrap().insert(heard, now());
            let known = view.state.node(&name);
            if known.is_none_or(|node| node.state != NodeState::Ready) {
                let register = Command::RegisterNode { spec: spec(host) };
                let _ = self.propose(&leader, vec![register]).await;
                continue;
            }
            let orders = (view.state.assignments(&name), view.state.stops(&name));
            agent.take(orders, self.is_calm());
            self.report(&leader, &mut agent, &name, host).await;
        }
    }

    async fn report(&self, leader: &Leader, agent: &mut Host, name: &NodeName, host: u64) {
        let mut reports = Vec::new();
        let mut telling = Vec::new();
        for (id, work) in &agent.work {
            let (status, ready) = work.status();
            let news = (work.generation, status, ready);
            if work.told != Some(news) {
                telling.push((*id, news));
                reports.push(work.report(*id, status, ready));
            }
        }
        if reports.is_empty() {
            return;
        }
        let (node, agent_id) = (name.clone(), 1000 + host);
        let command = Command::ReportAllocs { node, agent_id, reports };
        let replies = self.propose(leader, vec![command]).await;
        let told = replies.is_ok_and(|(_, replies)| replies.iter().all(Result::is_ok));
        for (id, news) in telling {
            // Without an answer nobody knows which of the two the state has.
            agent.work.entry(id).and_modify(|work| work.told = told.then_some(news));
        }
    }
}

impl Host {
    fn take(&mut self, (run, stop): (Vec<Assignment>, Vec<(AllocId, u64)>), calm: bool) {
        let asked = |id: &AllocId| {
            run.iter().any(|assignment| assignment.id == *id) || stop.iter().any(|(s, _)| s == id)
        };
        // The state knows that it has ended, or that another took its place.
        self.work.retain(|id, work| {
            if !asked(id) {
                work.stop(0);
            }
            asked(id) || !matches!(work.status().0, AllocStatus::Stopped | AllocStatus::Failed)
        });
        for assignment in run {
            let (id, generation) = (assignment.id, assignment.grant.generation);
            match self.work.get_mut(&id) {
                None => {
                    self.work.insert(id, Work::new(assignment, calm));
                }
                Some(work) if work.generation < generation => {
                    work.generation = generation;
                    work.ends_at = work.ends_at.filter(|at| *at <= now());
                }
                Some(_) => {}
            }
        }
        for (id, generation) in stop {
            match self.work.get_mut(&id) {
                Some(work) => work.stop(generation),
                // It never got here; nothing of it runs.
                None => {
                    let gone = Work {
                        generation,
                        assignment: None,
                        runs_at: Duration::ZERO,
                        ready_at: Duration::ZERO,
                        fails_at: None,
                        ends_at: Some(Duration::ZERO),
                        told: None,
                    };
                    self.work.insert(id, gone);
                }
            }
        }
    }
}

impl Work {
    fn report(&self, id: AllocId, status: AllocStatus, ready: bool) -> AllocReport {
        let health = match status {
            AllocStatus::Running if ready => Health::Healthy,
            _ => Health::Unknown,
        };
        let tasks = self.assignment.iter().map(|assignment| {
            let started_at = (self.runs_at <= now()).then(|| instant(self.runs_at));
            let task = TaskState { started_at, ..TaskState::default() };
            (assignment.spec.tasks[0].name.clone(), task)
        });
        AllocReport {
            id,
            generation: self.generation,
            status,
            health,
            ready,
            tasks: tasks.collect(),
            message: String::new(),
        }
    }
}
