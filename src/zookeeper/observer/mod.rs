//! Joins an ensemble as an observer: one more server that learns all that is committed, and neither
//! votes nor serves. The ensemble's configuration need not know of it.
//!
//! [`find_leader`] says whom to ask, [`join`] asks, and [`Observer::next`] hands on what comes: the
//! whole tree or what was missed, then each transaction as it is committed. `learner` is the task
//! behind it, which answers the leader meanwhile.

mod config;
mod error;
mod event;
mod learner;
mod leader;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::AbortOnDropHandle;

pub use self::config::{EnsembleServer, read_config};
pub use self::error::{During, ObserverError};
pub use self::event::Event;
pub use self::leader::{Asked, FindError, Leader, QUORUM_PORT, find_leader};
use self::learner::Learner;
use crate::limits::{ZK_JOIN_WAIT_MS, ZK_OBSERVED_EVENTS_MAX};

/// How to join.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// A number that no server of the ensemble has; at most 254.
    pub server_id: i64,
    /// The last transaction that is here already; 0: none.
    pub last_zxid: i64,
    /// How long the leader may take over each answer before it accepts.
    pub wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        // Ensembles number their servers from 1 on.
        Self { server_id: 250, last_zxid: 0, wait: Duration::from_millis(ZK_JOIN_WAIT_MS) }
    }
}

/// An event, and the room that it takes until somebody has it.
type Waiting = (Event, OwnedSemaphorePermit);

/// A place among an ensemble's learners, until it is dropped.
#[derive(Debug)]
pub struct Observer {
    address: String,
    epoch: i64,
    events: mpsc::Receiver<Result<Waiting, ObserverError>>,
    _task: AbortOnDropHandle<()>,
}

/// Asks the leader at `address` (`host:port` of its quorum port) to let an observer join.
///
/// # Errors
/// If it can't be reached, does not answer as a leader does, or refuses.
pub async fn join(address: &str, options: &Options) -> Result<Observer, ObserverError> {
    let connect = tokio::time::timeout(options.wait, TcpStream::connect(address));
    let stream = match connect.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(source)) => {
            return Err(ObserverError::Connect { address: address.to_owned(), source });
        }
        Err(_) => {
            let (address, during) = (address.to_owned(), During::Connecting);
            return Err(ObserverError::Silent { address, during, wait: options.wait });
        }
    };
    let (sender, events) = mpsc::channel(ZK_OBSERVED_EVENTS_MAX);
    let room = Arc::new(Semaphore::new(learner::ROOM));
    let (learner, epoch) = Learner::join(stream, address, options, sender, room).await?;
    let task = AbortOnDropHandle::new(tokio::spawn(learner.run()));
    Ok(Observer { address: address.to_owned(), epoch, events, _task: task })
}

impl Observer {
    /// The leader's quorum port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The leader's epoch.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// What comes next. Up to [`crate::limits::ZK_OBSERVED_BYTES_MAX`] are read ahead; whoever is
    /// slower than that for longer than the ensemble's `syncLimit` is dropped by the leader.
    ///
    /// # Errors
    /// Why nothing more comes; the way on is to join again.
    pub async fn next(&mut self) -> Result<Event, ObserverError> {
        match self.events.recv().await {
            Some(Ok((event, _room))) => Ok(event),
            Some(Err(error)) => Err(error),
            None => Err(ObserverError::Ended),
        }
    }
}

#[cfg(test)]
mod tests;
