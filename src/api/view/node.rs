//! Nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Resources;
use super::allocation::AllocationRow;
use super::time::Time;

/// A node in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeRow {
    /// The operator's name for it.
    pub name: String,
    /// Made with its agent's data directory, as 16 hexadecimal digits.
    pub id: String,
    /// `ready`, `probation`, `draining`, `suspect` (it has missed heartbeats), `lost` or `left`.
    pub state: String,
    /// Why it is in that state; empty when ready.
    pub reason: String,
    /// Whether new work may be placed on it.
    pub eligible: bool,
    /// The operator's class; may be empty.
    pub class: String,
    /// Where published ports are reached.
    pub address: String,
    /// Detected and the operator's own.
    pub attributes: BTreeMap<String, String>,
    /// What jobs can use in all.
    pub resources: Resources,
    /// What is reserved now.
    pub allocated: Resources,
    /// Allocations that have not ended.
    pub allocations: u32,
    /// `docker`, `process`.
    pub runtimes: Vec<String>,
    /// The agent's release.
    pub version: String,
    /// First registration.
    pub registered_at: Time,
    /// Last change of its state.
    pub state_since: Time,
    /// It was lost too often and gets no new work until then; absent if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation_until: Option<Time>,
    /// When its agent was last heard; absent if that is not known, as right after a change of
    /// leaders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard: Option<Time>,
}

/// Everything about a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeStatus {
    /// The row of the list.
    #[serde(flatten)]
    pub row: NodeRow,
    /// Directories under which host paths may be mounted.
    pub volume_roots: Vec<String>,
    /// First and last port that is given out.
    #[schema(value_type = Vec<u16>)]
    pub port_range: (u16, u16),
    /// Work is being moved away; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainRow>,
    /// What its agent measured last; absent if it is not connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<NodeUsage>,
    /// What is on it and has not ended.
    pub placed: Vec<AllocationRow>,
}

/// Work is being moved away from a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainRow {
    /// When it was asked for.
    pub since: Time,
    /// When all that is left is stopped at once; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// The deadline is over.
    #[serde(default)]
    pub overdue: bool,
    /// What has not ended yet, what can't move first.
    #[serde(default)]
    pub left: Vec<DrainLeft>,
}

/// A copy that is left on a node that is being drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainLeft {
    /// The allocation.
    pub allocation: String,
    /// Which it is and why, in words: `db.0 stays: its data (volume pg) is on n1`.
    pub message: String,
    /// It goes by itself; what does not is stopped at the deadline, if there is one.
    pub moves: bool,
}

/// What an agent measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeUsage {
    /// Cores in use.
    pub cpu_used: f64,
    /// Bytes.
    pub memory_used: u64,
    /// Bytes.
    pub disk_used: u64,
    /// Containers and processes of orch that run.
    pub containers_running: u32,
}

/// Lets new work on a node, or keeps it away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EligibilityRequest {
    /// Whether it takes work; `true` ends a drain as well.
    pub eligible: bool,
}

/// Moves work away from a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainRequest {
    /// As `10m`: after it, all that is left is stopped at once. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
}
