//! Why a job is not running, asked of every node.

use super::ports::choose_ports;
use super::score::Crowd;
use super::{Ask, Refusals, refusal, refusal_when_empty};
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
    let id = spec.id();
    let crowd = Crowd::new(state, &id, spec);
    let ask = Ask { id: &id, version: 0, spec, index: u32::MAX, node: None, previous: None };
    let mut explanation = Explanation { never: true, ..Explanation::default() };
    for node in state.nodes() {
        if refusal_when_empty(spec, node).is_none() {
            explanation.never = false;
        }
        let refused = refusal::before_use(spec, node).or_else(|| {
            let used = state.node_use(&node.name);
            refusal::in_use(&ask, node, &used, &crowd)
                .or_else(|| choose_ports(&ask, node, &used).err())
        });
        match refused {
            None => explanation.fits.push(node.name.clone()),
            Some(refusal) => explanation.refusals.add(refusal),
        }
    }
    explanation
}
