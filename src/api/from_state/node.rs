//! Nodes as they are shown.

use super::{allocation, drain};
use crate::api::view::node::{NodeRow, NodeStatus, NodeUsage};
use crate::model::node::{Node, NodeState};
use crate::model::time::Timestamp;
use crate::rpc::v1::NodeStats;
use crate::server::Usage;
use crate::state::State;

/// A node as a row.
pub(in crate::api) fn row(state: &State, node: &Node) -> NodeRow {
    let draining = node.state == NodeState::Ready && node.drain.is_some();
    NodeRow {
        name: node.name.to_string(),
        id: format!("{:016x}", node.agent_id),
        state: match node.state {
            NodeState::Ready if draining => "draining",
            NodeState::Ready if node.probation_until.is_some() => "probation",
            state => state.word(),
        }
        .to_owned(),
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
        probation_until: node.probation_until.map(Into::into),
        last_heard: None,
    }
}

/// A node as a row, with what its agent's line tells: a node that has missed heartbeats is
/// `suspect` until it is heard again or counts as lost.
pub(in crate::api) fn heard(state: &State, node: &Node, usage: &Usage, now: Timestamp) -> NodeRow {
    let mut row = row(state, node);
    if let Some(info) = usage.nodes.get(&node.name) {
        row.last_heard = Some((now - info.silent).into());
        if node.state == NodeState::Ready && usage.is_suspect(info) {
            row.state = "suspect".to_owned();
            let silent = format!("not heard for {}s", info.silent.0 / 1000);
            row.reason = match row.reason.as_str() {
                "" => silent,
                reason => format!("{silent}; {reason}"),
            };
        }
    }
    row
}

/// Everything about a node.
pub(in crate::api) fn status(
    state: &State,
    node: &Node,
    usage: &Usage,
    now: Timestamp,
) -> NodeStatus {
    let stats = usage.nodes.get(&node.name).and_then(|info| info.stats.as_ref());
    NodeStatus {
        row: heard(state, node, usage, now),
        volume_roots: node.volume_roots.clone(),
        port_range: node.port_range,
        drain: node.drain.as_ref().map(|drain| drain::row(state, now, node, drain)),
        usage: stats.map(measured),
        placed: state
            .allocs_on(&node.name)
            .filter(|alloc| !alloc.ended())
            .map(|alloc| allocation::row(state, alloc))
            .collect(),
    }
}

/// What a node's agent measured.
pub(in crate::api) fn measured(stats: &NodeStats) -> NodeUsage {
    NodeUsage {
        cpu_used: if stats.cpu_used.is_finite() { stats.cpu_used.max(0.0) } else { 0.0 },
        memory_used: stats.memory_used,
        disk_used: stats.disk_used,
        containers_running: stats.containers_running,
    }
}
