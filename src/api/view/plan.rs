//! What a submission would change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::job::{FieldChange, Unplaced};

/// What submitting a job file would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanReply {
    /// One for each document, in their order.
    pub jobs: Vec<JobPlan>,
}

/// What submitting a job would change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobPlan {
    /// The owning project.
    pub project: String,
    /// The job's name in it.
    pub job: String,
    /// `service`, `batch` or `system`.
    pub r#type: String,
    /// `create`, `update`, `start` (it is stopped or has ended) or `none`.
    pub action: String,
    /// Its version now; 0 if there is no such job.
    pub version_now: u64,
    /// Its version then.
    pub version_then: u64,
    /// Copies go on as they are: nothing that runs is different.
    pub in_place: bool,
    /// Field by field.
    pub changes: Vec<FieldChange>,
    /// What would be placed at once, or one after another as copies become healthy.
    pub placements: Vec<PlannedPlacement>,
    /// What would be stopped.
    pub stops: Vec<PlannedStop>,
    /// Why copies would not be placed; absent if all would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unplaced: Option<Unplaced>,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// A copy that would be placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedPlacement {
    /// The job.
    pub job: String,
    /// The copy's number.
    pub index: u32,
    /// Where.
    pub node: String,
    /// Host port of each named port.
    pub ports: BTreeMap<String, u16>,
    /// The allocation that it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
}

/// A copy that would be stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedStop {
    /// The job.
    pub job: String,
    /// The allocation.
    pub id: String,
    /// The copy's number.
    pub index: u32,
    /// Where.
    pub node: String,
    /// Why, in words.
    pub reason: String,
}
