//! Jobs: rows of the list, the full status, versions, and what changes them.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::allocation::AllocationRow;
use super::deployment::DeploymentRow;
use super::time::Time;

/// A job in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobRow {
    /// The owning project.
    pub project: String,
    /// The job's name in it.
    pub job: String,
    /// The current version, from 1.
    pub version: u64,
    /// `service`, `batch` or `system`.
    pub r#type: String,
    /// Services and system jobs: `pending` (nothing placed), `starting`, `updating` (old copies go
    /// on until they are replaced), `running` (every copy is healthy and up to date), `degraded`
    /// (some copies are healthy), `failed` (none is, and some gave up), `stopping`, `stopped`.
    /// Batch jobs: `pending`, `starting`, `running`, `complete`, `failed`, `stopping`, `stopped`.
    pub state: String,
    /// Copies wanted; of a system job, the nodes that fit.
    pub desired: u32,
    /// Copies whose tasks all run.
    pub running: u32,
    /// Copies that run, pass their checks and can take traffic.
    pub healthy: u32,
    /// Healthy copies that run what the current version asks for.
    pub up_to_date: u32,
    /// Copies whose agent gave up, or that followed one and are not healthy yet.
    pub failing: u32,
    /// 1 (lowest) to 100.
    pub priority: u8,
    /// One line about why it is not as wanted; empty if it is.
    pub message: String,
    /// First submission.
    pub created_at: Time,
    /// Last change by a user.
    pub changed_at: Time,
}

/// Everything about a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobStatus {
    /// The row of the list.
    #[serde(flatten)]
    pub row: JobRow,
    /// How it is and why, in one sentence.
    #[serde(default)]
    pub sentence: String,
    /// Its newest deployments, the newest first; the list of deployments has all that are kept.
    #[serde(default)]
    pub deployments: Vec<DeploymentRow>,
    /// The current version as a job file; passwords are left out.
    #[schema(value_type = Object)]
    pub spec: Value,
    /// It is forgotten once its allocations have ended.
    pub purged: bool,
    /// Each wanted copy, and those that are still stopping; at most 1000, the list of allocations
    /// has them all.
    pub allocations: Vec<AllocationRow>,
    /// Why copies are not placed; absent if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unplaced: Option<Unplaced>,
    /// What went wrong last with each copy that fails; at most 50.
    pub failures: Vec<Failure>,
}

/// Why copies of a job are not placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unplaced {
    /// How many copies.
    pub replicas: u32,
    /// Nodes looked at.
    pub nodes: u32,
    /// It fits no node even if all of them were empty.
    pub never_fits: bool,
    /// Which nodes were refused for which reason, the most frequent first.
    pub refusals: Vec<Refusal>,
    /// All of it in one sentence.
    pub message: String,
}

/// Nodes that were refused for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// In words: `no memory`, `constraint attr.zone != c`.
    pub reason: String,
    /// How many nodes.
    pub nodes: u32,
}

/// What went wrong last with a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The allocation.
    pub id: String,
    /// The copy's number.
    pub index: u32,
    /// Where it is or was.
    pub node: String,
    /// The task.
    pub task: String,
    /// How far the allocation is.
    pub state: String,
    /// The last thing that went wrong.
    pub error: String,
    /// Of the last end; 128 + N for signal N.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Killed for want of memory.
    pub oom_killed: bool,
    /// Restarts so far.
    pub restarts: u32,
    /// The last end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// The end of what it printed; may be empty.
    pub output_tail: String,
}

/// Jobs were submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmitReply {
    /// One for each document, in their order.
    pub jobs: Vec<SubmittedJob>,
}

/// A job was submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubmittedJob {
    /// The owning project.
    pub project: String,
    /// The job's name in it.
    pub job: String,
    /// Its version now.
    pub version: u64,
    /// Whether that is a new one.
    pub changed: bool,
    /// What the user should know at once, such as that no node can ever take it.
    pub warnings: Vec<String>,
}

/// A job was scaled or stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobChanged {
    /// The owning project.
    pub project: String,
    /// The job's name in it.
    pub job: String,
    /// Its version now.
    pub version: u64,
    /// Whether anything changed.
    pub changed: bool,
}

/// Asks for another number of copies of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// How many.
    pub replicas: u32,
}

/// One version of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobVersionRow {
    /// Counts from 1.
    pub version: u64,
    /// Submission.
    pub at: Time,
    /// What made it: `created`, `updated`, `scaled`, `reverted`, `rolled back`, `restarted`.
    pub change: String,
    /// It is the one that is wanted now.
    pub current: bool,
    /// All its copies were ready once: a rollback may go to it.
    #[serde(default)]
    pub was_healthy: bool,
    /// The first version that runs the same, if that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<u64>,
    /// How it was brought out; absent of batch jobs, and if it is no longer kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<VersionDeployment>,
    /// What differs from the version before; empty for the oldest that is kept.
    pub changes: Vec<FieldChange>,
}

/// How a version was brought out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionDeployment {
    /// As `d17`.
    pub id: String,
    /// `running`, `paused`, `successful`, `failed` or `superseded`.
    pub status: String,
    /// Why; may be empty.
    pub reason: String,
}

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// Path in the job file, as `tasks.web.environment.MODE`.
    pub field: String,
    /// Absent if the field was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Absent if the field is no longer there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}
