//! Rows on their way into the log: several lots at once, each known to be durable at the end.

use std::collections::VecDeque;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};

use crate::consensus::{Committed, Consensus, Consistency, ProposeError};
use crate::limits::ZK_CHUNKS_IN_FLIGHT;
use crate::state::znodes::ZkImportStep;
use crate::state::{Command, Rejected, RejectedCode, Request};

/// How often what was not carried out is tried again: between leaders, the order may get lost.
const TRIES: u32 = 5;

type Outcome = Result<Committed, ProposeError>;

/// The way of rows into an import.
pub struct Pipe {
    consensus: Consensus,
    name: String,
    /// The copy that they are for.
    generation: u64,
    /// Number of the next lot.
    next: u64,
    /// Proposed and not known to be durable, in order; the first has the number `next - len`.
    sent: VecDeque<Bytes>,
    in_flight: FuturesOrdered<BoxFuture<'static, Outcome>>,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe").field("name", &self.name).field("next", &self.next).finish()
    }
}

impl Pipe {
    /// For lots from the number `next` on, of the copy with that generation.
    pub fn new(consensus: Consensus, name: &str, generation: u64, next: u64) -> Self {
        let (sent, in_flight) = (VecDeque::new(), FuturesOrdered::new());
        Self { consensus, name: name.to_owned(), generation, next, sent, in_flight }
    }

    /// Sends the next lot; waits while too many are on their way.
    ///
    /// # Errors
    /// Why an earlier lot was refused or got lost.
    pub async fn send(&mut self, lot: Bytes) -> Result<(), ProposeError> {
        while self.sent.len() >= ZK_CHUNKS_IN_FLIGHT {
            self.wait_for_first().await?;
        }
        self.propose(self.next, &lot);
        self.sent.push_back(lot);
        self.next += 1;
        // Puts it into the queue behind those before it.
        match self.in_flight.next().now_or_never() {
            Some(Some(outcome)) => self.settle(outcome).await,
            _ => Ok(()),
        }
    }

    /// Waits until all lots are durable.
    ///
    /// # Errors
    /// Why one was refused or got lost.
    pub async fn finish(&mut self) -> Result<(), ProposeError> {
        while !self.sent.is_empty() {
            self.wait_for_first().await?;
        }
        Ok(())
    }

    fn propose(&mut self, chunk: u64, lot: &Bytes) {
        let (generation, bytes) = (self.generation, lot.to_vec());
        let step = Box::new(ZkImportStep::Rows { generation, chunk, bytes });
        let request = Request::from(Command::ImportZk { name: self.name.clone(), step });
        let consensus = self.consensus.clone();
        self.in_flight.push_back(async move { consensus.propose(request).await }.boxed());
    }

    async fn wait_for_first(&mut self) -> Result<(), ProposeError> {
        match self.in_flight.next().await {
            Some(outcome) => self.settle(outcome).await,
            None => Err(ProposeError::Unknown("rows were sent that nobody waits for".to_owned())),
        }
    }

    async fn settle(&mut self, outcome: Outcome) -> Result<(), ProposeError> {
        match outcome {
            Ok(_) => {
                self.sent.pop_front();
                Ok(())
            }
            Err(ProposeError::Rejected(rejected)) if rejected.code != RejectedCode::Conflict => {
                Err(rejected.into())
            }
            Err(error) => self.send_again(error).await,
        }
    }

    /// Lots came out of order, or a leader went away with some: what the import does not have is
    /// sent again, one by one.
    async fn send_again(&mut self, mut why: ProposeError) -> Result<(), ProposeError> {
        while self.in_flight.next().await.is_some() {}
        let mut tries = 0;
        while tries < TRIES {
            let Ok(view) = self.consensus.read(Consistency::Linearizable).await else {
                tries += 1;
                continue;
            };
            let Some(import) = view.state.zk_import(&self.name) else {
                return Err(Rejected::not_found("import", &self.name).into());
            };
            if import.status.generation != self.generation {
                return Err(why);
            }
            let has = import.status.next_chunk;
            while !self.sent.is_empty() && self.next - (self.sent.len() as u64) < has {
                self.sent.pop_front();
            }
            let Some(lot) = self.sent.front().cloned() else { return Ok(()) };
            let first = self.next - self.sent.len() as u64;
            if first > has {
                return Err(why);
            }
            self.propose(first, &lot);
            match self.in_flight.next().await {
                Some(Ok(_)) => {
                    self.sent.pop_front();
                    tries = 0;
                }
                Some(Err(ProposeError::Rejected(rejected))) => return Err(rejected.into()),
                Some(Err(error)) => {
                    why = error;
                    tries += 1;
                }
                None => tries += 1,
            }
        }
        Err(why)
    }
}
