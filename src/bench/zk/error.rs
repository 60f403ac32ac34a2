//! Why a measurement failed.

use super::load::Workload;
use crate::zookeeper::client::{ClientError, WireError};

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum ZkError {
    /// A request failed.
    #[error("{label}: {error}")]
    Client {
        /// Of whom.
        label: String,
        /// How.
        error: ClientError,
    },
    /// A connection failed.
    #[error("{label}, at {server}: {error}")]
    Wire {
        /// Of whom.
        label: String,
        /// The server's address.
        server: String,
        /// How.
        error: WireError,
    },
    /// A request of the load was refused.
    #[error("{label}, at {server}: {workload} was refused: {error}")]
    Refused {
        /// Of whom.
        label: String,
        /// The server's address.
        server: String,
        /// Which.
        workload: Workload,
        /// Why.
        error: ClientError,
    },
    /// The user has had enough.
    #[error("interrupted; the nodes that it had made are gone again")]
    Interrupted,
    /// A part of the program ended early.
    #[error("{0}")]
    Task(#[from] tokio::task::JoinError),
}
