//! How an agent finds out whether a task is alive and ready.

use serde::{Deserialize, Serialize};

use super::name::PortName;
use super::time::Millis;

/// A check of a task. The same form serves liveness and readiness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From the end of one check to the start of the next.
    #[serde(default = "HealthCheck::interval_default")]
    pub interval: Millis,
    /// A check that takes longer has failed.
    #[serde(default = "HealthCheck::timeout_default")]
    pub timeout: Millis,
    /// Failures in a row that make it fail.
    #[serde(default = "HealthCheck::retries_default")]
    pub retries: u32,
    /// Successes in a row that make it pass.
    #[serde(default = "HealthCheck::successes_default")]
    pub successes: u32,
    /// Failures this soon after the start don't count.
    #[serde(default)]
    pub start_period: Millis,
}

impl HealthCheck {
    /// A check with the default times and thresholds.
    pub const fn new(probe: Probe) -> Self {
        Self {
            probe,
            interval: Self::interval_default(),
            timeout: Self::timeout_default(),
            retries: Self::retries_default(),
            successes: Self::successes_default(),
            start_period: Millis(0),
        }
    }

    /// Five seconds.
    pub const fn interval_default() -> Millis {
        Millis::from_secs(5)
    }

    /// Two seconds.
    pub const fn timeout_default() -> Millis {
        Millis::from_secs(2)
    }

    /// Three.
    pub const fn retries_default() -> u32 {
        3
    }

    /// One.
    pub const fn successes_default() -> u32 {
        1
    }
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// GET; a status from 200 to 399 is healthy.
    Http {
        /// Path with query.
        path: String,
        /// Port by name.
        port: PortName,
    },
    /// The port takes a connection.
    Tcp {
        /// Port by name.
        port: PortName,
    },
    /// A command in the task ends with 0.
    Command {
        /// Its words.
        command: Vec<String>,
    },
    /// `grpc.health.v1.Health/Check` answers SERVING (the gRPC health checking protocol).
    Grpc {
        /// The service that is asked about; empty: the server as a whole.
        service: String,
        /// Port by name.
        port: PortName,
    },
}
