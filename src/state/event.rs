//! What commands changed, in the order applied. Everything outside the state follows events.

use serde::{Deserialize, Serialize};

use crate::model::allocation::{AllocStatus, Health};
use crate::model::deployment::DeploymentId;
use crate::model::name::{AllocId, JobId, NodeName, ProjectName};
use crate::model::node::NodeState;
use crate::model::time::Timestamp;
use crate::model::variable::VariablePath;

/// An event with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Counts events from 1 without a gap; a stream is resumed after one of these.
    pub index: u64,
    /// When it was applied.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}

/// One thing that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A job was created, changed, scaled, stopped or purged.
    JobChanged {
        /// Which.
        job: JobId,
        /// Its version now.
        version: u64,
        /// What happened to it.
        change: JobChange,
    },
    /// An allocation was placed or changed.
    AllocChanged {
        /// Which.
        alloc: AllocId,
        /// Its job.
        job: JobId,
        /// Its replica number.
        index: u32,
        /// Where it is.
        node: NodeName,
        /// What happened to it.
        change: AllocChange,
        /// How far it is now.
        status: AllocStatus,
        /// Whether its checks pass now.
        health: Health,
        /// More about it; may be empty.
        message: String,
    },
    /// A node registered, changed or was forgotten.
    NodeChanged {
        /// Which.
        node: NodeName,
        /// What happened to it.
        change: NodeChange,
        /// Its state now.
        state: NodeState,
        /// More about it; may be empty.
        message: String,
    },
    /// A variable was written or deleted.
    VariableChanged {
        /// Project.
        project: ProjectName,
        /// Path.
        path: VariablePath,
        /// Whether it is gone.
        deleted: bool,
    },
    /// The whole state was replaced by a saved snapshot.
    Restored,
    /// A deployment began or changed.
    DeploymentChanged {
        /// Which.
        deployment: DeploymentId,
        /// Its job.
        job: JobId,
        /// The version that comes.
        version: u64,
        /// What happened to it.
        change: DeploymentChange,
        /// More about it; may be empty.
        message: String,
    },
}

/// What happened to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobChange {
    /// First version.
    Created,
    /// A new version.
    Updated,
    /// Another number of replicas.
    Scaled,
    /// Stopped.
    Stopped,
    /// All its allocations completed (batch).
    Completed,
    /// It gave up (batch).
    Failed,
    /// Forgotten.
    Purged,
    /// A failed deployment was taken back.
    Reverted,
    /// The user went back to an earlier version.
    RolledBack,
    /// All replicas are to be replaced by new ones.
    Restarted,
}

/// What happened to a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentChange {
    /// It began.
    Started,
    /// A canary's successors follow, or a second set takes over.
    Promoted,
    /// It is held.
    Paused,
    /// It goes on.
    Resumed,
    /// It has come to its end.
    Successful,
    /// It did not get there.
    Failed,
    /// A newer one took its place.
    Superseded,
}

/// What happened to an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllocChange {
    /// Placed on a node.
    Placed,
    /// Asked to end.
    Stopping,
    /// Its status is another.
    Status,
    /// Its health is another.
    Health,
    /// A task of it was restarted.
    Restarted,
    /// Its message is another.
    Message,
    /// Forgotten.
    Removed,
    /// It is to go elsewhere.
    Moving,
    /// Nothing takes its place any more.
    GaveUp,
}

/// What happened to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeChange {
    /// First registration.
    Joined,
    /// Registered again, or with other properties.
    Registered,
    /// Its state is another.
    State,
    /// It takes new work, or no longer does.
    Eligibility,
    /// Work is being moved away.
    Draining,
    /// Forgotten.
    Removed,
}
