//! Every JSON type of the API. Field names are stable: programs read them.
//!
//! Servers write these and clients read them, so each is both ways. Requests refuse unknown
//! fields; replies may grow. Start at `job` and `allocation`.

pub mod adopt;
pub mod allocation;
pub mod deployment;
pub mod endpoint;
pub mod event;
pub mod files;
pub mod job;
pub mod job_file;
pub mod node;
pub mod plan;
pub mod problem;
pub mod query;
pub mod rebalance;
pub mod server;
pub mod time;
pub mod usage;
pub mod variable;
pub mod zk;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The rows, in the list's order.
    pub items: Vec<T>,
    /// Names the next page as `?cursor=`; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// An amount of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
    /// Bytes.
    pub disk: u64,
    /// Whole devices.
    pub gpu: u32,
}

impl From<crate::model::resources::Resources> for Resources {
    fn from(from: crate::model::resources::Resources) -> Self {
        Self { cpu_milli: from.cpu_milli, memory: from.memory, disk: from.disk, gpu: from.gpu }
    }
}
