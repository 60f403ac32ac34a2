//! Endpoints: where a job's replicas take traffic.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Time;

/// All endpoints of a job at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoints {
    /// The owning project.
    pub project: String,
    /// The job's name in it.
    pub job: String,
    /// Index of the last log entry in the state it was read from.
    pub index: u64,
    /// By replica, then port. Empty if none is ready.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a replica that takes traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// The port's name in the job.
    pub port: String,
    /// Host and port: `10.0.0.1:25001`, `[fd00::1]:25001`.
    pub address: String,
    /// The node's address alone.
    pub host: String,
    /// The port's number on the host.
    pub host_port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The replica's number.
    pub replica: u32,
    /// Which version of the job it runs.
    pub version: u64,
    /// The allocation.
    pub allocation: String,
    /// Where.
    pub node: String,
    /// Since when it is ready.
    pub ready_since: Time,
}
