//! The loop of a leader: gathers what changed, has the planners look at it, proposes what they
//! return, and waits until that is applied before it looks again.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::handle::Config;
use super::hub::Peers;
use super::scope::Agenda;
use crate::consensus::{Consensus, Leadership, View};
use crate::ground::Offload;
use crate::model::name::{JobId, NodeName};
use crate::model::node::NodeState;
use crate::model::time::{Millis, Timestamp};
use crate::observe::metrics::Metrics;
use crate::planner::{self, Inputs, Plan, Scope};
use crate::state::{Command, Reply, Request, State};

/// Waits after a pass that could not be carried out: doubling from the first to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
const BACKOFF_LAST: Duration = Duration::from_secs(2);
/// The least time between two looks at who is silent.
const JUDGE_AGAIN_MIN: Duration = Duration::from_millis(5);
/// The same while a node is overdue.
const JUDGE_AGAIN_OVERDUE: Duration = Duration::from_millis(50);
/// Nodes and allocations from which on a full pass is kept away from the threads that serve.
const LARGE: usize = 2_000;

/// The loop's owner.
pub(super) struct Planners {
    pub(super) consensus: Consensus,
    /// Without leaders in doubt; see `majority`.
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    pub(super) peers: watch::Receiver<Peers>,
}

/// How a pass ended.
struct Outcome {
    /// The view must have this index before the next pass.
    floor: u64,
    /// It was carried out as planned.
    whole: bool,
}

impl Planners {
    /// Plans whenever this server leads, until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut leadership = self.leadership.clone();
        loop {
            let term = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                now = leadership.wait_for(|now| now.ready) => match now {
                    Ok(now) => now.term,
                    Err(_) => return,
                },
            };
            tracing::info!(term, "planning begins");
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                over = leadership.wait_for(|now| !now.ready || now.term != term) => {
                    if over.is_err() {
                        return;
                    }
                    tracing::info!(term, "planning ends: another term has begun");
                }
                () = self.lead(term) => return,
            }
        }
    }

    /// Plans until the state can no longer be watched, or the future is dropped.
    async fn lead(&self, term: u64) {
        let grace = self.config.node_timeout.as_duration();
        let liveness = Liveness { since: Instant::now(), grace };
        let mut views = self.consensus.views();
        let mut agenda = Agenda::new(&views.borrow().state, Instant::now());
        let mut floor = 0;
        let mut backoff = BACKOFF_FIRST;
        let mut not_before = Instant::now();
        let mut judge_at = Instant::now();
        loop {
            let view = match views.wait_for(|view| view.applied_index >= floor).await {
                Ok(view) => view.clone(),
                Err(_) => return,
            };
            agenda.follow(&view.state);
            let now = Instant::now();
            let wait_until = if now < not_before {
                not_before
            } else {
                let silent = now >= judge_at && {
                    let timeout = self.config.node_timeout.as_duration();
                    let oldest = self.oldest(&liveness, &view.state, now);
                    // Others may be due soon after the one that is; if the planners leave it at
                    // that, they are not asked all the time.
                    judge_at = now
                        + match timeout.checked_sub(oldest) {
                            Some(left) => left.max(JUDGE_AGAIN_MIN),
                            None => JUDGE_AGAIN_OVERDUE,
                        };
                    oldest >= timeout
                };
                let scope = agenda.take(now).or_else(|| silent.then(Scope::default));
                if let Some(scope) = scope {
                    let outcome = self.pass(term, &view, scope, &mut agenda, &liveness).await;
                    floor = outcome.floor;
                    if outcome.whole {
                        backoff = BACKOFF_FIRST;
                    } else {
                        not_before = Instant::now() + backoff;
                        backoff = (backoff * 2).min(BACKOFF_LAST);
                    }
                    continue;
                }
                agenda.wake_at().min(judge_at)
            };
            tokio::select! {
                changed = views.changed(), if wait_until != not_before => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep_until(wait_until) => {}
            }
        }
    }

    async fn pass(
        &self,
        term: u64,
        view: &View,
        scope: Scope,
        agenda: &mut Agenda,
        liveness: &Liveness,
    ) -> Outcome {
        let now = Instant::now();
        let inputs = self.inputs(liveness, &view.state, now);
        let planned = plan(self.consensus.ground().offload, view, inputs, scope.clone()).await;
        self.metrics.planner_pass_seconds.observe(now.elapsed().as_secs_f64());
        let Some(plan) = planned else {
            tracing::error!(?scope, "a planner panicked; this is a defect, please report it");
            agenda.put_back(scope);
            return Outcome { floor: view.applied_index, whole: false };
        };
        let look_in = plan.next_look.map(|at| at.since(self.consensus.state_time()).as_duration());
        let full_pass = self.config.full_pass.as_duration();
        agenda.planned(&scope, &plan, look_in, Instant::now(), full_pass);
        let outcome = self.carry_out(term, plan.commands, view.applied_index, agenda).await;
        if !outcome.whole {
            agenda.put_back(scope);
        }
        outcome
    }

    /// How long the node that has been silent longest has been silent; zero without ready nodes.
    fn oldest(&self, liveness: &Liveness, state: &State, now: Instant) -> Duration {
        let (peers, time) = (self.peers.borrow(), self.consensus.state_time());
        liveness
            .silence(state, &peers, now, time)
            .map(|(_, silent)| silent)
            .max()
            .unwrap_or_default()
    }

    /// Planners are told only of nodes that are overdue: for the others this loop has the timer.
    fn inputs(&self, liveness: &Liveness, state: &State, now: Instant) -> Inputs {
        let (peers, time) = (self.peers.borrow(), self.consensus.state_time());
        let node_timeout = self.config.node_timeout;
        let last_heard = liveness
            .silence(state, &peers, now, time)
            .filter(|(_, silent)| *silent >= node_timeout.as_duration())
            .map(|(node, silent)| (node.clone(), time - millis(silent)))
            .collect();
        Inputs { now: time, last_heard, node_timeout }
    }

    /// Proposes in order; what was refused is looked at again.
    async fn carry_out(
        &self,
        term: u64,
        commands: Vec<Command>,
        floor: u64,
        agenda: &mut Agenda,
    ) -> Outcome {
        let requests: Vec<Request> = commands.into_iter().map(Request::from).collect();
        let decided = match self.consensus.propose_in_term(term, &requests).await {
            Ok(decided) => decided,
            Err(error) => {
                tracing::warn!(%error, "a plan was not carried out");
                return Outcome { floor, whole: false };
            }
        };
        let mut whole = true;
        for (request, reply) in requests.iter().zip(decided.replies) {
            match reply {
                Ok(Reply::Placed { placed, refused }) => {
                    self.metrics.scheduler_placed.inc_by(u64::from(placed));
                    if refused > 0 {
                        // Something changed under the plan; it is made anew from what is now.
                        tracing::info!(placed, refused, "placements no longer fitted");
                        agenda.look_again(placed_jobs(&request.command));
                        whole &= placed > 0;
                    }
                }
                Ok(_) => {}
                Err(rejected) => {
                    let command = request.command.word();
                    tracing::warn!(command, %rejected, "a planned command was refused");
                    whole = false;
                }
            }
        }
        Outcome { floor: floor.max(decided.index), whole }
    }
}

fn placed_jobs(command: &Command) -> Vec<JobId> {
    match command {
        Command::Place(placements) => placements.jobs.iter().map(|(job, _)| job.clone()).collect(),
        _ => Vec::new(),
    }
}

/// One pass; none if a planner panicked.
async fn plan(offload: Offload, view: &View, inputs: Inputs, scope: Scope) -> Option<Plan> {
    let state = view.state.clone();
    let large = scope.all && state.nodes().count() + state.allocs().take(LARGE).count() > LARGE;
    let work = move || {
        std::panic::catch_unwind(AssertUnwindSafe(|| planner::plan(&state, &inputs, &scope))).ok()
    };
    if large { offload.run(work).await.ok().flatten() } else { work() }
}

/// Judges when nodes were last heard. A new leader has heard nobody yet, and an agent whose
/// leader's host is gone needs some heartbeats to notice: those that have not come yet count as
/// heard until some time after it began to lead.
struct Liveness {
    since: Instant,
    grace: Duration,
}

impl Liveness {
    /// How long each ready node has been silent. `now` is the time of day `time`; lengths of time
    /// are measured with a clock that never jumps.
    fn silence<'s>(
        &self,
        state: &'s State,
        peers: &Peers,
        now: Instant,
        time: Timestamp,
    ) -> impl Iterator<Item = (&'s NodeName, Duration)> {
        let leading = now.saturating_duration_since(self.since);
        let ready = state.nodes().filter(|node| node.state == NodeState::Ready);
        ready.map(move |node| {
            let silent = match peers.get(&node.name) {
                Some(peer) => now.saturating_duration_since(peer.heard.borrow().at).min(leading),
                // It has registered just now, or was ready before this term.
                None => {
                    let ready_for = time.since(node.state_since).as_duration();
                    ready_for.min(leading.saturating_sub(self.grace))
                }
            };
            (&node.name, silent)
        })
    }
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::node::Node;
    use crate::server::hub::{Heard, Peer};
    use crate::state::Stamp;

    const TIME: Timestamp = Timestamp(1_000_000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A state in which each of these nodes became ready so many seconds before [`TIME`].
    fn nodes(ages: &[(&str, u64)]) -> State {
        let mut state = State::default();
        let mut oldest_first = ages.to_vec();
        oldest_first.sort_by_key(|(_, age)| std::cmp::Reverse(*age));
        for (index, (name, age)) in (1..).zip(oldest_first) {
            let stamp = Stamp { index, at: TIME - Millis::from_secs(age) };
            let command = Command::RegisterNode { spec: Node::example(name).spec };
            assert_eq!(state.apply(stamp, &command.into()).reply, Ok(Reply::Done));
        }
        state
    }

    fn heard(now: Instant, ages: &[(&str, u64)]) -> Peers {
        let peer = |(name, age): &(&str, u64)| {
            let heard = watch::channel(Heard { at: now - seconds(*age), stats: None }).1;
            let peer = Peer { heard, attached: true };
            (name.parse().expect("a valid name"), peer)
        };
        ages.iter().map(peer).collect()
    }

    fn silence(leading: u64, state: &State, peers: &[(&str, u64)]) -> Vec<(String, u64)> {
        let now = Instant::now() + seconds(100_000);
        let liveness = Liveness { since: now - seconds(leading), grace: seconds(10) };
        liveness
            .silence(state, &heard(now, peers), now, TIME)
            .map(|(node, silent)| (node.to_string(), silent.as_secs()))
            .collect()
    }

    #[test]
    fn a_new_leader_gives_every_node_its_time() {
        let state = nodes(&[("n1", 900), ("n2", 900)]);
        let expected = [("n1".to_owned(), 3), ("n2".to_owned(), 0)];
        assert_eq!(silence(3, &state, &[("n1", 500)]), expected);
        let expected = [("n1".to_owned(), 1), ("n2".to_owned(), 5)];
        assert_eq!(silence(15, &state, &[("n1", 1)]), expected);
    }

    #[test]
    fn a_node_is_silent_since_it_was_heard_or_registered() {
        let state = nodes(&[("n1", 900), ("n2", 2), ("n3", 900)]);
        let expected = [("n1".to_owned(), 7), ("n2".to_owned(), 2), ("n3".to_owned(), 590)];
        assert_eq!(silence(600, &state, &[("n1", 7)]), expected);
    }

    #[test]
    fn only_ready_nodes_are_judged() {
        let mut state = nodes(&[("n1", 900)]);
        let lost = Command::SetNodeState {
            node: "n1".parse().expect("a valid name"),
            agent_id: Node::example("n1").agent_id,
            state: NodeState::Lost,
            reason: String::new(),
        };
        let stamp = Stamp { index: 9, at: TIME };
        assert_eq!(state.apply(stamp, &lost.into()).reply, Ok(Reply::Done));
        assert_eq!(silence(600, &state, &[("n1", 50)]), []);
    }
}
