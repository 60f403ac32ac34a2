//! Nodes as they are shown.

use super::allocation;
use crate::api::view::node::{DrainRow, NodeRow, NodeStatus, NodeUsage};
use crate::model::node::{Node, NodeState};
use crate::rpc::v1::NodeStats;
use crate::state::State;

/// A node as a row.
pub(in crate::api) fn row(state: &State, node: &Node) -> NodeRow {
    let draining = node.state == NodeState::Ready && node.drain.is_some();
    NodeRow {
        name: node.name.to_string(),
        id: format!("{:016x}", node.agent_id),
        state: if draining { "draining" } else { node.state.word() }.to_owned(),
        reason: node.reason.clone(),
        eligible: node.eligible,
        class: node.class.clone(),
        address: node.address.clone(),
        attributes: node.attributes.clone(),
        resources: node.resources.into(),
        allocated: state.node_use(&node.name).resources.into(),
        allocations: state.allocs_on(&node.name).filter(|alloc| !alloc.ended()).count() as u32,
        runtimes: node.runtimes.iter().cloned().collect(),
        version: node.version.clone(),
        registered_at: node.registered_at.into(),
        state_since: node.state_since.into(),
    }
}

/// Everything about a node.
pub(in crate::api) fn status(state: &State, node: &Node, stats: Option<NodeStats>) -> NodeStatus {
    NodeStatus {
        row: row(state, node),
        volume_roots: node.volume_roots.clone(),
        port_range: node.port_range,
        drain: node.drain.as_ref().map(|drain| DrainRow {
            since: drain.since.into(),
            deadline: drain.deadline.map(|deadline| (drain.since + deadline).into()),
        }),
        usage: stats.map(|stats| NodeUsage {
            cpu_used: stats.cpu_used,
            memory_used: stats.memory_used,
            disk_used: stats.disk_used,
            containers_running: stats.containers_running,
        }),
        placed: state
            .allocs_on(&node.name)
            .filter(|alloc| !alloc.ended())
            .map(|alloc| allocation::row(state, alloc))
            .collect(),
    }
}
