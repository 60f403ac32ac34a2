//! Containers that run under Mesos and become copies of a job.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for a new job whose first copies run already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptRequest {
    /// A job file in YAML with this one job.
    pub file: String,
    /// What runs already; at most as many as the job has replicas.
    pub tasks: Vec<AdoptTask>,
    /// Look what would be taken over, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// A Mesos task that runs as a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdoptTask {
    /// Its id: the container has it as the label `MESOS_TASK_ID`.
    pub task_id: String,
    /// The host as Mesos knows it: a node's name, its address or its host name.
    pub host: String,
    /// Its ports on the host, in the order of the job's ports; what the container says counts.
    #[serde(default)]
    pub ports: Vec<u16>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdoptReply {
    /// The owning project.
    pub project: String,
    /// The job's name in it.
    pub job: String,
    /// Its version; 0 if nothing was changed.
    pub version: u64,
    /// Taken over, or ready for it.
    pub adopted: Vec<AdoptedTask>,
    /// Those that can't be. With one of them nothing is changed.
    pub refused: Vec<RefusedTask>,
}

/// A container that was taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdoptedTask {
    /// Its Mesos task id.
    pub task_id: String,
    /// The copy that it is now.
    pub index: u32,
    /// Where it runs.
    pub node: String,
    /// The container.
    pub container_id: String,
    /// Its ports on the host by name.
    pub ports: BTreeMap<String, u16>,
}

/// A task that can't be taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RefusedTask {
    /// Its Mesos task id.
    pub task_id: String,
    /// Its host, as it was named.
    pub host: String,
    /// Why.
    pub reason: String,
}
