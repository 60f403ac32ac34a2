//! What a process stands on: the machine's clock, network and threads in life, simulated ones in
//! simulation.

use crate::clock::{SharedClock, SystemClock};
use crate::net::{OsNet, SharedNet};

/// See the module; clones are the same.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Time of day and random numbers.
    pub clock: SharedClock,
    /// The way to other processes.
    pub net: SharedNet,
    /// Where long work goes.
    pub offload: Offload,
}

impl Ground {
    /// This machine.
    pub fn machine() -> Self {
        let (clock, net) = (SystemClock::shared(), OsNet::shared());
        Self { clock, net, offload: Offload::Threads }
    }
}

/// Where work goes that would hold up other tasks for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// To a thread of its own.
    #[default]
    Threads,
    /// Nowhere: a simulation has one thread, so that one seed decides everything.
    Inline,
}

impl Offload {
    /// Does it.
    ///
    /// # Errors
    /// If it panics, or the process is stopping.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other),
            Self::Inline => Ok(work()),
        }
    }
}
