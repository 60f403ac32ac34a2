//! Files of tasks.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Time;

/// What lies at a path of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileStatus {
    /// The last part of its path.
    pub name: String,
    /// `file`, `directory`, `link` or `other`.
    pub kind: String,
    /// A directory, or a link to one.
    pub directory: bool,
    /// Bytes.
    pub size: u64,
    /// Rights, as `755`.
    pub mode: String,
    /// Last change.
    pub modified: Time,
    /// Where a link leads; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub link_target: String,
}
