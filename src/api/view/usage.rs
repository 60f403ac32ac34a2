//! What nodes and copies of jobs use now.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Resources;
use super::node::NodeUsage;
use super::time::Time;

/// What is used, as agents measured it last.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct UsageReply {
    /// By name.
    pub nodes: Vec<NodeUse>,
    /// Those that use the most cores first.
    pub allocations: Vec<AllocationUse>,
    /// Further ones, that use less.
    pub more: u64,
}

/// What a node uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeUse {
    /// Its name.
    pub node: String,
    /// As in the list of nodes.
    pub state: String,
    /// What jobs can use in all.
    pub resources: Resources,
    /// What is reserved now.
    pub allocated: Resources,
    /// What its agent measured last; absent before its first heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<NodeUsage>,
    /// When its agent was last heard; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard: Option<Time>,
}

/// What a copy of a job uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AllocationUse {
    /// The owning project.
    pub project: String,
    /// The job's name in it.
    pub job: String,
    /// The copy's number.
    pub index: u32,
    /// The allocation.
    pub id: String,
    /// Where.
    pub node: String,
    /// As in the list of allocations.
    pub state: String,
    /// Cores in use.
    pub cpu: f64,
    /// Cores that are reserved for it.
    pub cpu_reserved: f64,
    /// Bytes, without what the kernel could drop at once.
    pub memory: u64,
    /// Bytes it may use at most; 0: no limit.
    pub memory_limit: u64,
}
