//! A node whose agent is not heard for the node timeout is lost.

use super::Pass;
use crate::limits::STOPS_PER_COMMAND_MAX;
use crate::model::node::NodeState;
use crate::state::Command;

/// Allocations of lost nodes whose jobs have waited for long enough.
fn end_waiting(pass: &mut Pass<'_>) {
    let mut allocs = Vec::new();
    for node in pass.state.nodes().filter(|node| node.state != NodeState::Ready) {
        for alloc in pass.state.allocs_on(&node.name).filter(|alloc| !alloc.ended()) {
            let Some(since) = alloc.disconnected_at else { continue };
            let Some(job) = pass.state.job(&alloc.job) else { continue };
            let until = since + job.policies_of(alloc.version).disconnect.replace_after;
            if until <= pass.inputs.now {
                allocs.push(alloc.id);
            } else {
                pass.plan.look_at(until);
            }
        }
    }
    for allocs in allocs.chunks(STOPS_PER_COMMAND_MAX) {
        pass.plan.commands.push(Command::LoseAllocs { allocs: allocs.to_vec() });
    }
}

pub(super) fn look(pass: &mut Pass<'_>) {
    end_waiting(pass);
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
