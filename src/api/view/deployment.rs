//! Deployments: how a job gets from one version to the next.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Time;

/// The move of a service or system job from one version to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentRow {
    /// As `d17`; never used twice.
    pub id: String,
    /// The owning project.
    pub project: String,
    /// The job's name in it.
    pub job: String,
    /// The version that comes.
    pub version: u64,
    /// The version it leaves, the last one that was healthy; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// `rolling`, `canary` or `blue-green`.
    pub strategy: String,
    /// `running`, `paused`, `successful`, `failed` or `superseded`.
    pub status: String,
    /// Why it is in this status; may be empty.
    pub reason: String,
    /// How far it is; absent if a newer one has begun since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<DeploymentProgress>,
    /// What it waits for; absent if it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<DeploymentWait>,
    /// Its canaries or its second set are ready, and it goes on when someone promotes it.
    pub needs_promotion: bool,
    /// When it was promoted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<Time>,
    /// The failed deployment that this one takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts: Option<String>,
    /// The deployment that takes this one back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverted_by: Option<String>,
    /// The version's submission.
    pub started_at: Time,
    /// The last change of its status.
    pub changed_at: Time,
}

/// How far a deployment is, in replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentProgress {
    /// Those that are to run the version in the end.
    pub wanted: u32,
    /// Those of the version that are there, ready or not.
    pub updated: u32,
    /// Those that have been ready for as long as the job asks.
    pub ready: u32,
    /// Those of other versions that are still meant to run.
    pub old: u32,
}

/// What a deployment waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeploymentWait {
    /// In words: `web.3 to become ready`.
    pub what: String,
    /// Since when.
    pub since: Time,
    /// When something else happens; absent if nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// What happens then; empty without `until`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub then: String,
}

/// Gives a deployment up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AbortRequest {
    /// Go back to the last healthy version, if there is one; `true` unless given.
    #[serde(default = "yes")]
    pub revert: bool,
}

fn yes() -> bool {
    true
}

impl Default for AbortRequest {
    fn default() -> Self {
        Self { revert: true }
    }
}

/// Submits an earlier version of a job again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// Which; the last healthy one that runs something else than the current one unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}
