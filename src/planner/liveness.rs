//! A node whose agent is not heard for the node timeout is lost.

use super::Pass;
use crate::model::node::NodeState;
use crate::state::Command;

pub(super) fn look(pass: &mut Pass<'_>) {
    let inputs = pass.inputs;
    for node in pass.state.nodes().filter(|node| node.state == NodeState::Ready) {
        // Not in the list: it registered after the list was made, so it was heard just now.
        let Some(heard) = inputs.last_heard.get(&node.name) else { continue };
        let silence = inputs.now.since(*heard);
        if silence < inputs.node_timeout {
            pass.plan.look_at(*heard + inputs.node_timeout);
            continue;
        }
        pass.plan.commands.push(Command::SetNodeState {
            node: node.name.clone(),
            agent_id: node.agent_id,
            state: NodeState::Lost,
            reason: format!("its agent was not heard for {}", inputs.node_timeout),
        });
    }
}
