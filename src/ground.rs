//! What a process stands on: the machine's clock, network and threads in life, simulated ones in
//! simulation.

use std::sync::Arc;

use crate::clock::{SharedClock, SystemClock};
use crate::net::{OsNet, SharedNet};
use crate::state::State;

/// See the module; clones are the same.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Time of day and random numbers.
    pub clock: SharedClock,
    /// The way to other processes.
    pub net: SharedNet,
    /// Where long work goes.
    pub offload: Offload,
    /// Who watches the state.
    pub witness: Witness,
}

impl Ground {
    /// This machine.
    pub fn machine() -> Self {
        let (clock, net) = (SystemClock::shared(), OsNet::shared());
        Self { clock, net, offload: Offload::Threads, witness: Witness::default() }
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

/// Who is shown the state after every entry of the log, with the entry's index: an invariant's
/// watcher in simulation, nobody in life.
#[derive(Clone, Default)]
pub struct Witness(Option<Arc<Look>>);

type Look = dyn Fn(u64, &State) + Send + Sync;

impl Witness {
    /// Shows it to `look`.
    pub fn new(look: impl Fn(u64, &State) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(look)))
    }

    /// Shows it.
    pub(crate) fn show(&self, index: u64, state: &State) {
        if let Some(look) = &self.0 {
            look(index, state);
        }
    }
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Witness")
    }
}
