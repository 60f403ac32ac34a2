//! Moves towards better placement.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Moves work towards better packing or spread.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RebalanceRequest {
    /// Only tells what would be moved.
    #[serde(default)]
    pub dry_run: bool,
    /// The most moves, up to 100; absent: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_moves: Option<u32>,
}

/// What is moved, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebalanceReply {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The best first; empty if placement is as good as it gets without great effort.
    pub moves: Vec<MoveRow>,
}

/// One copy that goes elsewhere: its replacement is healthy before it stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MoveRow {
    /// The owning project.
    pub project: String,
    /// The job.
    pub job: String,
    /// The copy's number.
    pub index: u32,
    /// The allocation.
    pub id: String,
    /// Where it is.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// Why, in words.
    pub why: String,
}
