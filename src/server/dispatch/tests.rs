//! Agents that believe what they are told, and a state that goes on meanwhile.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::allocation::{AllocReport, AllocStatus, Assignment, Health, StopReason};
use crate::model::job::{JobKind, JobSpec, TaskRuntime, TaskSpec};
use crate::model::name::JobId;
use crate::model::node::{Node, NodeState};
use crate::model::time::Timestamp;
use crate::state::{Command, Placement, Placements, Stamp};

const REPLICAS: u32 = 6;

fn node_name() -> NodeName {
    "n1".parse().expect("a valid name")
}

fn job_spec(command: &str) -> Arc<JobSpec> {
    let task = TaskSpec {
        command: vec![command.to_owned()],
        ..TaskSpec::new("web".parse().expect("a valid name"), TaskRuntime::Process)
    };
    Arc::new(JobSpec::new(
        "web".parse().expect("a valid name"),
        JobKind::Service { replicas: REPLICAS },
        vec![task],
    ))
}

/// The cluster's state with a log that goes on.
#[derive(Default)]
struct Cluster {
    state: State,
    index: u64,
}

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self::default();
        cluster.apply(Command::RegisterNode { spec: Node::example("n1").spec });
        cluster.apply(Command::SubmitJob { spec: job_spec("1"), if_version: None });
        cluster
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let stamp = Stamp { index: self.index, at: Timestamp(self.index) };
        // What is refused changes nothing; that is a step too.
        let _ = self.state.apply(stamp, &command.into());
    }

    fn place(&mut self, index: u32) {
        let job: JobId = "web".parse().expect("a valid name");
        let version = self.state.job(&job).map_or(0, |job| job.current().version);
        let mut rows = Placements::default();
        rows.push(Placement {
            job,
            version,
            index,
            node: node_name(),
            ports: Vec::new(),
            gpus: Vec::new(),
            previous: None,
        });
        self.apply(Command::Place(Box::new(rows)));
    }

    /// One of the allocations there are, if there are any.
    fn pick(&self, number: u64) -> AllocId {
        let ids: Vec<_> = self.state.allocs().map(|alloc| alloc.id).collect();
        let count = ids.len().max(1);
        ids.get(number as usize % count).copied().unwrap_or_default()
    }

    fn step(&mut self, step: &Step) {
        let example = Node::example("n1");
        let (node, agent_id) = (node_name(), example.agent_id);
        match step {
            Step::Place(index) => self.place(*index),
            Step::Stop(number) => {
                let stops = vec![(self.pick(*number), StopReason::ScaledDown)];
                self.apply(Command::StopAllocs { stops });
            }
            Step::Report(number, status) => {
                let report = AllocReport {
                    id: self.pick(*number),
                    generation: u64::MAX,
                    status: *status,
                    health: Health::Unknown,
                    ready: false,
                    tasks: BTreeMap::new(),
                    message: String::new(),
                };
                self.apply(Command::ReportAllocs { node, agent_id, reports: vec![report] });
            }
            Step::Submit(command) => {
                let spec = job_spec(&command.to_string());
                self.apply(Command::SubmitJob { spec, if_version: None });
            }
            Step::LoseNode => {
                let (state, reason) = (NodeState::Lost, String::new());
                self.apply(Command::SetNodeState { node, agent_id, state, reason });
            }
            Step::NodeBack => self.apply(Command::RegisterNode { spec: example.spec }),
            Step::Collect(number) => {
                let allocs = vec![self.pick(*number)];
                let (jobs, replies_before) = (Vec::new(), Timestamp(0));
                self.apply(Command::CollectGarbage { allocs, jobs, replies_before });
            }
            Step::Tell | Step::Sync => {}
        }
    }
}

/// What an agent makes of its messages.
#[derive(Debug, Default)]
struct Agent {
    knows: BTreeMap<AllocId, Told>,
    synced: BTreeMap<AllocId, Told>,
}

impl Agent {
    fn take_run(into: &mut BTreeMap<AllocId, Told>, run: &[bytes::Bytes]) {
        for bytes in run {
            let order: Assignment = codec::from_bytes(bytes).expect("an assignment");
            let old = into.insert(order.id, Told::Run(order.grant.generation));
            if let Some(Told::Run(before) | Told::Stop(before)) = old {
                assert!(before < order.grant.generation, "an order is newer than the one before");
            }
        }
    }

    fn take_stop(into: &mut BTreeMap<AllocId, Told>, stop: &[v1::StopOrder]) {
        for order in stop {
            let old = into.insert(AllocId(order.alloc), Told::Stop(order.generation));
            if let Some(Told::Run(before) | Told::Stop(before)) = old {
                assert!(before < order.generation, "an order is newer than the one before");
            }
        }
    }

    fn sync(&mut self, pieces: Vec<v1::Sync>) {
        assert!(!pieces.is_empty(), "a sync is sent even if there is nothing to run");
        for piece in pieces {
            Self::take_run(&mut self.synced, &piece.run);
            Self::take_stop(&mut self.synced, &piece.stop);
            for id in piece.ended {
                self.synced.insert(AllocId(id), Told::Ended);
            }
            if !piece.more {
                self.knows = std::mem::take(&mut self.synced);
            }
        }
        assert!(self.synced.is_empty(), "the last piece says that it is the last");
    }

    fn orders(&mut self, pieces: Vec<v1::Orders>) {
        for piece in pieces {
            Self::take_run(&mut self.knows, &piece.run);
            Self::take_stop(&mut self.knows, &piece.stop);
            for id in piece.forget {
                self.knows.remove(&AllocId(id));
            }
        }
    }

    fn check(&self, state: &State) {
        for alloc in state.allocs_on(&node_name()) {
            let known = self.knows.get(&alloc.id);
            match Told::of(alloc) {
                // It said so itself, or was never told of it.
                Told::Ended => {}
                told => assert_eq!(known, Some(&told), "allocation {}", alloc.id),
            }
        }
        for id in self.knows.keys() {
            assert!(state.alloc(*id).is_some(), "allocation {id} is to be forgotten");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Place(u32),
    Stop(u64),
    Report(u64, AllocStatus),
    Submit(u8),
    LoseNode,
    NodeBack,
    Collect(u64),
    /// The agent is told what changed.
    Tell,
    /// The agent attaches anew.
    Sync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = prop_oneof![
        Just(AllocStatus::Starting),
        Just(AllocStatus::Running),
        Just(AllocStatus::Stopped),
        Just(AllocStatus::Failed),
    ];
    let step = prop_oneof![
        4 => (0..REPLICAS).prop_map(Step::Place),
        2 => any::<u64>().prop_map(Step::Stop),
        4 => (any::<u64>(), status).prop_map(|(number, status)| Step::Report(number, status)),
        1 => any::<u8>().prop_map(Step::Submit),
        1 => Just(Step::LoseNode),
        2 => Just(Step::NodeBack),
        2 => any::<u64>().prop_map(Step::Collect),
        6 => Just(Step::Tell),
        1 => Just(Step::Sync),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn an_agent_knows_what_the_state_has(steps in steps()) {
        let mut cluster = Cluster::new();
        let (mut book, mut agent) = (Book::default(), Agent::default());
        let node = node_name();
        agent.sync(book.sync(&cluster.state, &node).expect("encodes"));
        for step in &steps {
            cluster.step(step);
            match step {
                Step::Tell => {
                    agent.orders(book.changes(&cluster.state, &node).expect("encodes"));
                    agent.check(&cluster.state);
                    prop_assert!(book.changes(&cluster.state, &node).expect("encodes").is_empty());
                }
                Step::Sync => {
                    agent = Agent::default();
                    agent.sync(book.sync(&cluster.state, &node).expect("encodes"));
                    agent.check(&cluster.state);
                }
                _ => {}
            }
        }
    }
}

#[test]
fn only_what_changed_is_sent() {
    let mut cluster = Cluster::new();
    let mut book = Book::default();
    let node = node_name();
    let syncs = book.sync(&cluster.state, &node).expect("encodes");
    assert_eq!(syncs, [v1::Sync::default()]);
    cluster.place(0);
    cluster.place(1);
    let orders = book.changes(&cluster.state, &node).expect("encodes");
    assert_eq!(orders.iter().map(|piece| piece.run.len()).collect::<Vec<_>>(), [2]);
    cluster.step(&Step::Report(0, AllocStatus::Running));
    assert_eq!(book.changes(&cluster.state, &node).expect("encodes"), []);
    cluster.step(&Step::Stop(0));
    let orders = book.changes(&cluster.state, &node).expect("encodes");
    let stop = vec![v1::StopOrder { alloc: 1, generation: cluster.index }];
    assert_eq!(orders, [v1::Orders { stop, ..Default::default() }]);
    cluster.step(&Step::Report(0, AllocStatus::Stopped));
    assert_eq!(book.changes(&cluster.state, &node).expect("encodes"), []);
    cluster.step(&Step::Collect(0));
    let orders = book.changes(&cluster.state, &node).expect("encodes");
    assert_eq!(orders, [v1::Orders { forget: vec![1], ..Default::default() }]);
}

#[test]
fn what_is_too_much_for_one_message_comes_in_pieces() {
    let mut cluster = Cluster::new();
    let long = "x".repeat(ORDERS_BYTES / 2);
    cluster.apply(Command::SubmitJob { spec: job_spec(&long), if_version: None });
    for index in 0..3 {
        cluster.place(index);
    }
    let mut book = Book::default();
    let syncs = book.sync(&cluster.state, &node_name()).expect("encodes");
    assert_eq!(syncs.iter().map(|piece| piece.more).collect::<Vec<_>>(), [true, true, false]);
    let mut agent = Agent::default();
    agent.sync(syncs);
    agent.check(&cluster.state);
}
