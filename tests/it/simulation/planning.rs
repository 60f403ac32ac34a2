//! The planners of a server while it leads, as `server::planners` runs them: proposed in the
//! leader's own term, and no look before what was decided is applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::impls::ProgressResponder;
use orch::clock;
use orch::consensus::View;
use orch::consensus::types::Batch;
use orch::consensus::virtual_time::{now, sleep, timeout};
use orch::model::name::NodeName;
use orch::model::node::NodeState;
use orch::model::time::{Millis, Timestamp};
use orch::planner::{self, Inputs, Scope};
use orch::state::codec::{BatchWriter, encode_request};
use orch::state::{Command, Event, Rejected, Reply, State};

use super::rollouts::Cluster;
use super::world::SERVERS;

pub const NODE_TIMEOUT: Duration = Duration::from_secs(5);
const FULL_PASS: Duration = Duration::from_secs(5);
/// Where virtual time begins in the calendar; servers' clocks are up to half a second apart.
const EPOCH: u64 = 1_000_000_000;

/// A server that leads and has applied all that was decided before.
pub struct Leader {
    pub id: u64,
    pub term: u64,
}

/// Why a proposal has no answer; it may have been carried out.
#[derive(Debug)]
pub struct Unanswered;

/// A moment of virtual time as a host's clock tells it.
pub fn instant(at: Duration) -> Timestamp {
    Timestamp(EPOCH) + millis(at)
}

fn millis(duration: Duration) -> Millis {
    Millis(duration.as_millis() as u64)
}

impl Cluster {
    /// The term that a server leads, if it does and is ready to.
    pub fn leads(&self, id: u64) -> Option<u64> {
        let metrics = self.world.raft(id)?.metrics();
        let metrics = metrics.borrow_watched();
        let applied = metrics.last_applied.map(|id| id.leader_id.term);
        let ready = metrics.state == ServerState::Leader && applied == Some(metrics.current_term);
        ready.then_some(metrics.current_term)
    }

    /// The newest of those who think that they lead.
    pub fn leader(&self) -> Option<Leader> {
        let leaders = SERVERS.iter().filter_map(|id| Some((self.leads(*id)?, *id)));
        leaders.max().map(|(term, id)| Leader { id, term })
    }

    fn time(&self, id: u64, view: &View) -> Timestamp {
        let clock = Timestamp(EPOCH + id * 250) + millis(now());
        clock.max(view.state.stamp().at)
    }

    /// Has commands carried out by this leader in this term.
    pub async fn propose(
        &self,
        leader: &Leader,
        commands: Vec<Command>,
    ) -> Result<(u64, Vec<Result<Reply, Rejected>>), Unanswered> {
        let raft = self.world.raft(leader.id).ok_or(Unanswered)?;
        let view = self.world.view(leader.id).ok_or(Unanswered)?;
        let mut batch = BatchWriter::new(self.time(leader.id, &view));
        for command in commands {
            batch.push(&encode_request(&command.into()).unwrap());
        }
        let (responder, answer) = ProgressResponder::complete_only();
        let batch = Batch(batch.finish().into());
        let write = raft.write(batch).responder(responder).with_leader(leader.term);
        write.await.map_err(|_| Unanswered)?;
        match timeout(Duration::from_secs(3), answer).await {
            Ok(Ok(Ok(done))) => Ok((done.log_id.index, done.data.0)),
            _ => Err(Unanswered),
        }
    }

    /// Plans whenever this server leads, in this life of it.
    pub async fn plan(self, id: u64) {
        let life = self.life(id);
        while self.life(id) == life {
            if let Some(term) = self.leads(id) {
                self.lead(Leader { id, term }, life).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn lead(&self, leader: Leader, life: u64) {
        let since = now();
        let mut scope = Some(Scope { all: true, ..Scope::default() });
        let (mut full_at, mut look_at) = (since + FULL_PASS, None);
        let (mut judge_at, mut floor, mut cursor) = (since, 0, 0);
        while self.life(leader.id) == life && self.leads(leader.id) == Some(leader.term) {
            // A look takes its time too.
            sleep(Duration::from_millis(5 + clock::random() % 15)).await;
            let Some(view) = self.world.view(leader.id) else { return };
            if view.applied_index < floor {
                continue;
            }
            follow(&view.state, &mut cursor, &mut scope);
            let time = self.time(leader.id, &view);
            let inputs = self.inputs(&leader, since, &view.state, time);
            if now() >= full_at || look_at.is_some_and(|at| at <= time) {
                scope = Some(Scope { all: true, ..Scope::default() });
            }
            if !inputs.last_heard.is_empty() && now() >= judge_at {
                judge_at = now() + NODE_TIMEOUT / 4;
                scope.get_or_insert_default();
            }
            let Some(taken) = scope.take() else { continue };
            let plan = planner::plan(&view.state, &inputs, &taken);
            if taken.all {
                full_at = now() + FULL_PASS;
                look_at = None;
            }
            look_at = look_at.into_iter().chain(plan.next_look).min();
            if plan.commands.is_empty() {
                continue;
            }
            match self.propose(&leader, plan.commands).await {
                Ok((index, _)) => floor = index,
                Err(Unanswered) => scope = Some(Scope { all: true, ..Scope::default() }),
            }
        }
    }

    /// Only nodes that are overdue are named. A new leader gives everyone some time.
    fn inputs(&self, leader: &Leader, since: Duration, state: &State, time: Timestamp) -> Inputs {
        let heard = self.heard.lock().unwrap();
        let silence = |name: &NodeName| {
            let heard = heard.get(&(leader.id, leader.term, name.clone()));
            heard.map_or(now().saturating_sub(since + NODE_TIMEOUT), |heard| now() - *heard)
        };
        let last_heard: BTreeMap<NodeName, Timestamp> = state
            .nodes()
            .filter(|node| node.state == NodeState::Ready)
            .map(|node| (node.name.clone(), silence(&node.name)))
            .filter(|(_, silence)| *silence >= NODE_TIMEOUT)
            .map(|(name, silence)| (name, time - millis(silence)))
            .collect();
        Inputs { now: time, last_heard, node_timeout: millis(NODE_TIMEOUT) }
    }
}

/// Notes what happened since the last look at the state.
fn follow(state: &State, cursor: &mut u64, scope: &mut Option<Scope>) {
    if *cursor == state.last_event() {
        return;
    }
    let events = state.events_after(*cursor);
    *cursor = state.last_event();
    let all = || Some(Scope { all: true, ..Scope::default() });
    let Ok(events) = events else {
        *scope = all();
        return;
    };
    for record in events {
        match &record.event {
            Event::JobChanged { job, .. }
            | Event::DeploymentChanged { job, .. }
            | Event::AllocChanged { job, .. } => {
                let scope = scope.get_or_insert_default();
                if !scope.all {
                    scope.jobs.insert(job.clone());
                }
            }
            Event::NodeChanged { .. } | Event::Restored => *scope = all(),
            Event::VariableChanged { .. } => {}
        }
    }
}

/// The state as the newest leader has it.
pub fn seen_by_leader(cluster: &Cluster) -> Option<Arc<State>> {
    let leader = cluster.leader()?;
    Some(cluster.world.view(leader.id)?.state)
}
