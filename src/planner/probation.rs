//! Ends the probation of nodes that were lost too often and have stayed since.

use super::Pass;
use crate::model::node::NodeState;
use crate::state::Command;

pub(super) fn look(pass: &mut Pass<'_>) {
    for node in pass.state.nodes().filter(|node| node.state == NodeState::Ready) {
        let Some(until) = node.probation_until else { continue };
        if until <= pass.inputs.now {
            pass.plan.commands.push(Command::EndProbation { node: node.name.clone() });
        } else {
            pass.plan.look_at(until);
        }
    }
}
