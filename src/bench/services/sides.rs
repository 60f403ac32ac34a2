//! What both sides are asked for, and how their replicas look to a measurement.

use super::super::error::BenchError;

/// A service as both sides can have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) replicas: u32,
    /// Counts the submissions: what tells the replicas of one from those of another.
    pub(super) version: u32,
    pub(super) does: Does,
    /// A command in the container must pass, every second.
    pub(super) checked: bool,
    pub(super) order: Order,
}

/// What its containers run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    /// For as long as they are let.
    Run,
    /// They exit with 1 at once.
    Fail,
}

impl Does {
    pub(super) fn command(self) -> &'static [&'static str] {
        match self {
            Self::Run => &["sleep", "3600"],
            Self::Fail => &["false"],
        }
    }
}

/// Which comes first in an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    StartFirst,
    StopFirst,
}

impl Order {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::StartFirst => "start-first",
            Self::StopFirst => "stop-first",
        }
    }
}

/// A replica as its side tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copy {
    /// This run of its container: another after each start.
    pub(super) run: String,
    /// Absent before there is one.
    pub(super) container: Option<String>,
    /// The side's own number of the submission it came from.
    pub(super) version: u64,
    /// It runs, is healthy and is not asked to end.
    pub(super) ready: bool,
    /// It runs no more.
    pub(super) ended: bool,
}

/// One of the two that are measured.
pub(super) trait Side {
    /// Starts the service, or changes it if it is there; its version now, as [`Copy::version`]
    /// has it.
    async fn submit(&self, service: Service) -> Result<u64, BenchError>;
    /// All replicas that have not been forgotten.
    async fn copies(&self) -> Result<Vec<Copy>, BenchError>;
    /// Whether it takes that version for a good one, to which it would go back.
    async fn trusts(&self, version: u64) -> Result<bool, BenchError>;
    /// Whether it has begun to take that version back.
    async fn takes_back(&self, version: u64) -> Result<bool, BenchError>;
    /// Removes the service and waits until nothing of it is left; nothing to do without one.
    async fn remove(&self) -> Result<(), BenchError>;
}
