//! Variables.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Time;

/// A variable in a list; its value is read by its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VariableRow {
    /// The owning project.
    pub project: String,
    /// Its path in it.
    pub path: String,
    /// Bytes of its value.
    pub size: u64,
    /// What `?if_index=` is compared with.
    pub modified_index: u64,
    /// Last write.
    pub modified_at: Time,
}

/// A variable was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VariableWritten {
    /// What `?if_index=` is compared with next time.
    pub index: u64,
}
