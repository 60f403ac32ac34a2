//! Why an ensemble's way here could not be measured.

use super::PATIENCE;
use crate::consensus::{OpenError, StartError};
use crate::migrate::zookeeper::chunks::RowTooLarge;
use crate::migrate::zookeeper::link::LinkError;
use crate::zookeeper::client::{ClientError, WireError};
use crate::zookeeper::observer::ObserverError;

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The file system or the network failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The server could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server could not take part.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The ensemble lets nobody learn.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The stream broke.
    #[error(transparent)]
    Observer(#[from] ObserverError),
    /// The ensemble refused something.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A writer's connection broke.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A value is too large.
    #[error(transparent)]
    TooLarge(#[from] RowTooLarge),
    /// A part of the program ended early.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    /// Something was not carried out, or is not valid.
    #[error("{0}")]
    Setup(String),
    /// What was waited for did not come.
    #[error("{0} took more than {seconds} s", seconds = PATIENCE.as_secs())]
    Slow(&'static str),
    /// The user has had enough.
    #[error("interrupted; the nodes that it had made are gone again")]
    Interrupted,
}

pub(super) fn setup(error: impl std::fmt::Display) -> MigrateError {
    MigrateError::Setup(error.to_string())
}
