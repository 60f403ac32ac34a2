//! Why a job is not running, asked of every node.

use super::fleet::refusal_now;
use super::preempt::being_freed;
use super::score::Crowd;
use super::{Ask, Refusal, Refusals, refusal_when_empty};
use crate::model::allocation::Allocation;
use crate::model::job::JobSpec;
use crate::model::name::NodeName;
use crate::state::State;

/// What the nodes say to one more replica of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// Nodes that would take it now.
    pub fits: Vec<NodeName>,
    /// Why the others would not.
    pub refusals: Refusals,
    /// No node would take it even if nothing else ran: it can never run on these nodes.
    pub never: bool,
}

/// Asks every node about one more replica of a job.
pub fn explain(state: &State, spec: &JobSpec) -> Explanation {
    explain_replica(state, spec, u32::MAX, None)
}

/// Asks about one replica: with named volumes only the node that has its data counts. `previous`
/// is the one it takes over from, if that has not ended: it is not in its way.
pub fn explain_replica(
    state: &State,
    spec: &JobSpec,
    index: u32,
    previous: Option<&Allocation>,
) -> Explanation {
    let id = spec.id();
    let mut crowd = Crowd::new(state, &id, spec);
    let ask = Ask { id: &id, version: 0, spec, index, node: None, previous };
    if let Some(previous) = ask.predecessor() {
        crowd.leave(state, previous);
    }
    if let Some(home) = ask.home(state) {
        return at_home(state, &ask, home, &crowd);
    }
    let mut explanation = Explanation { never: true, ..Explanation::default() };
    for node in state.nodes() {
        if refusal_when_empty(spec, node).is_none() {
            explanation.never = false;
        }
        match refusal_now(&ask, node, &state.node_use(&node.name), &crowd) {
            None => explanation.fits.push(node.name.clone()),
            Some(refusal) => explanation.refusals.add(refusal),
        }
    }
    if explanation.fits.is_empty()
        && let Some(node) = being_freed(state, &ask, &crowd)
    {
        explanation.refusals = Refusals::only(Refusal::BeingFreed { node });
    }
    explanation
}

fn at_home(state: &State, ask: &Ask<'_>, home: &NodeName, crowd: &Crowd<'_>) -> Explanation {
    let why = match state.node(home) {
        None => None,
        Some(node) => match refusal_now(ask, node, &state.node_use(home), crowd) {
            None => return Explanation { fits: vec![home.clone()], ..Explanation::default() },
            Some(refusal) => Some(Box::new(refusal)),
        },
    };
    let never = state.node(home).is_some_and(|node| refusal_when_empty(ask.spec, node).is_some());
    let refusals = Refusals::only(Refusal::Data { node: home.clone(), why });
    Explanation { fits: Vec::new(), refusals, never }
}
