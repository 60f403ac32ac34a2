//! How fast the planner decides: an empty fleet is filled, then single jobs change in a full one.
//! Pure computation on one core: no log, no agents.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::Spread;
use crate::clock::SharedClock;
use crate::model::allocation::{AllocReport, AllocStatus, Health};
use crate::model::job::{JobKind, JobSpec, PortSpec, Protocol, TaskRuntime, TaskSpec};
use crate::model::name::{JobId, NameError};
use crate::model::node::NodeSpec;
use crate::model::resources::{ResourceRequest, Resources};
use crate::model::time::Millis;
use crate::planner::{Inputs, Scope, plan};
use crate::state::{Command, Reply, Stamp, State};

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Nodes, in three zones.
    pub nodes: u32,
    /// Allocations to place, over jobs of 50 replicas that spread over zones.
    pub allocations: u32,
    /// Times each measurement is taken.
    pub runs: u32,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done.
    pub what: &'static str,
    /// Placements decided in one go.
    pub placements: u64,
    /// Milliseconds for the decision.
    pub decide_ms: Spread,
    /// Milliseconds for applying it to the state.
    pub apply_ms: Spread,
}

const REPLICAS: u32 = 50;

/// Takes the measurements.
///
/// # Errors
/// Never: the names it makes are valid.
pub fn run(options: Options, clock: &SharedClock) -> Result<Vec<Row>, NameError> {
    let mut fill = Measured::new("fill an empty fleet");
    let mut one = Measured::new("scale one job in a full fleet by 1");
    let mut lost = Measured::new("replace the work of a lost node");
    for _ in 0..options.runs.max(1) {
        let mut bench = Bench::new(options, clock.clone())?;
        bench.measure(&mut fill, &Scope { all: true, ..Scope::default() });
        bench.report_running();
        let job: JobId = "job-0".parse()?;
        bench.apply(Command::ScaleJob { job: job.clone(), replicas: REPLICAS + 1 });
        bench.measure(&mut one, &Scope { jobs: [job].into(), ..Scope::default() });
        let node = bench.state.nodes().next().cloned();
        if let Some(node) = node {
            bench.apply(Command::SetNodeState {
                node: node.name.clone(),
                agent_id: node.agent_id,
                state: crate::model::node::NodeState::Lost,
                reason: "benchmark".to_owned(),
            });
            bench.measure(&mut lost, &Scope { all: true, ..Scope::default() });
        }
    }
    Ok([fill, one, lost].into_iter().map(Row::from).collect())
}

struct Measured {
    what: &'static str,
    placements: u64,
    decide: Vec<f64>,
    apply: Vec<f64>,
}

impl Measured {
    fn new(what: &'static str) -> Self {
        Self { what, placements: 0, decide: Vec::new(), apply: Vec::new() }
    }
}

impl From<Measured> for Row {
    fn from(measured: Measured) -> Self {
        Self {
            what: measured.what,
            placements: measured.placements,
            decide_ms: Spread::of(measured.decide),
            apply_ms: Spread::of(measured.apply),
        }
    }
}

struct Bench {
    state: State,
    clock: SharedClock,
}

impl Bench {
    fn new(options: Options, clock: SharedClock) -> Result<Self, NameError> {
        let mut bench = Self { state: State::default(), clock };
        for i in 0..options.nodes {
            let spec = NodeSpec {
                name: format!("node-{i}").parse()?,
                agent_id: u64::from(i) + 1,
                address: "127.0.0.1".to_owned(),
                class: String::new(),
                attributes: BTreeMap::from([("zone".to_owned(), format!("z{}", i % 3))]),
                resources: Resources {
                    cpu_milli: 64_000,
                    memory: 256 << 30,
                    disk: 1 << 40,
                    gpu: 0,
                },
                runtimes: ["process".to_owned()].into(),
                volume_roots: Vec::new(),
                port_range: (20_000, 31_999),
                version: String::new(),
            };
            bench.apply(Command::RegisterNode { spec });
        }
        for i in 0..options.allocations.div_ceil(REPLICAS) {
            let spec = Arc::new(service(&format!("job-{i}"))?);
            bench.apply(Command::SubmitJob { spec, if_version: None });
        }
        Ok(bench)
    }

    fn apply(&mut self, command: Command) -> Option<Reply> {
        let index = self.state.stamp().index + 1;
        let stamp = Stamp { index, at: self.clock.now() };
        self.state.apply(stamp, &command.into()).reply.ok()
    }

    fn measure(&mut self, into: &mut Measured, scope: &Scope) {
        let now = self.clock.now();
        let last_heard = self.state.nodes().map(|node| (node.name.clone(), now)).collect();
        let inputs = Inputs { now, last_heard, node_timeout: Millis::from_secs(10) };
        let begin = Instant::now();
        let plan = plan(&self.state, &inputs, scope);
        into.decide.push(begin.elapsed().as_secs_f64() * 1000.0);
        let begin = Instant::now();
        let mut placements = 0;
        for command in plan.commands {
            if let Some(Reply::Placed { placed, .. }) = self.apply(command) {
                placements += u64::from(placed);
            }
        }
        into.apply.push(begin.elapsed().as_secs_f64() * 1000.0);
        into.placements = placements;
    }

    /// All agents say that all is well.
    fn report_running(&mut self) {
        for node in self.state.clone().nodes() {
            let reports = self
                .state
                .allocs_on(&node.name)
                .map(|alloc| AllocReport {
                    id: alloc.id,
                    generation: alloc.grant.generation,
                    status: AllocStatus::Running,
                    health: Health::Healthy,
                    ready: true,
                    tasks: BTreeMap::new(),
                    message: String::new(),
                })
                .collect();
            let (node, agent_id) = (node.name.clone(), node.agent_id);
            self.apply(Command::ReportAllocs { node, agent_id, reports });
        }
    }
}

fn service(name: &str) -> Result<JobSpec, NameError> {
    let task = TaskSpec {
        command: vec!["serve".to_owned()],
        ports: vec![PortSpec {
            name: "http".parse()?,
            container: None,
            host: None,
            protocol: Protocol::Tcp,
        }],
        resources: ResourceRequest {
            cpu_milli: Some(500),
            memory: Some(1 << 30),
            ..ResourceRequest::default()
        },
        ..TaskSpec::new(name.parse()?, TaskRuntime::Process)
    };
    Ok(JobSpec {
        placement: crate::model::job::Placement {
            spread: vec![crate::model::constraint::Subject::Attribute("zone".to_owned())],
            ..Default::default()
        },
        ..JobSpec::new(name.parse()?, JobKind::Service { replicas: REPLICAS }, vec![task])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn it_places_what_it_says() {
        let options = Options { nodes: 12, allocations: 100, runs: 1 };
        let rows = run(options, &SystemClock::shared()).unwrap();
        assert_eq!(rows[0].placements, 100);
        assert_eq!(rows[1].placements, 1);
        assert!(rows[2].placements > 0);
    }
}
