//! Rows on their way into the log: several lots at once, each known to be durable before the answer.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};

use crate::api::context::Context;
use crate::api::error::Problem;
use crate::api::view::query::ConsistencyChoice;
use crate::consensus::{Committed, ProposeError};
use crate::limits::{API_BODY_WAIT_MS, ZK_CHUNK_BYTES_MAX, ZK_CHUNKS_IN_FLIGHT};
use crate::state::znodes::ZkImportStep;
use crate::state::{Command, RejectedCode, Request};

/// How often what was not carried out is tried again: between leaders, the order may get lost.
const TRIES: u32 = 5;

type Outcome = Result<Committed, ProposeError>;

/// Lots of rows of one request.
pub(super) struct Upload<'c> {
    context: &'c Context,
    name: &'c str,
    /// Number of the next lot.
    next: u64,
    /// Arrived, and not yet a whole lot.
    held: Vec<u8>,
    /// Proposed and not known to be durable, in order; the first has the number `next - len`.
    sent: VecDeque<Bytes>,
    in_flight: FuturesOrdered<futures::future::BoxFuture<'static, Outcome>>,
}

impl<'c> Upload<'c> {
    pub(super) fn new(context: &'c Context, name: &'c str, from: u64) -> Self {
        Self {
            context,
            name,
            next: from,
            held: Vec::new(),
            sent: VecDeque::new(),
            in_flight: FuturesOrdered::new(),
        }
    }

    pub(super) async fn run(mut self, body: Body) -> Result<(), Problem> {
        let mut stream = body.into_data_stream();
        let patience = Duration::from_millis(API_BODY_WAIT_MS);
        loop {
            let bytes = match tokio::time::timeout(patience, stream.next()).await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(_) => return Err(Problem::bad_request("no more rows came for too long")),
            };
            self.held.extend_from_slice(&bytes.map_err(|error| {
                Problem::bad_request(format!("the rows did not arrive whole: {error}"))
            })?);
            self.send_whole_lots().await?;
        }
        while !self.sent.is_empty() {
            self.wait_for_first().await?;
        }
        match self.held.is_empty() {
            true => Ok(()),
            false => Err(Problem::bad_request("the rows end within a lot")),
        }
    }

    async fn send_whole_lots(&mut self) -> Result<(), Problem> {
        let mut used = 0;
        while let Some(length) = self.held[used..].first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            if length > ZK_CHUNK_BYTES_MAX {
                return Err(Problem::too_large(format!(
                    "a lot of {length} bytes of rows; the most is {ZK_CHUNK_BYTES_MAX}"
                )));
            }
            let Some(lot) = self.held.get(used + 4..used + 4 + length) else { break };
            let lot = Bytes::copy_from_slice(lot);
            used += 4 + length;
            while self.sent.len() >= ZK_CHUNKS_IN_FLIGHT {
                self.wait_for_first().await?;
            }
            self.propose(self.next, &lot);
            self.sent.push_back(lot);
            self.next += 1;
            // Puts it into the queue behind those before it.
            if let Some(Some(outcome)) = self.in_flight.next().now_or_never() {
                self.settle(outcome).await?;
            }
        }
        self.held.drain(..used);
        Ok(())
    }

    fn propose(&mut self, chunk: u64, lot: &Bytes) {
        let step = Box::new(ZkImportStep::Rows { chunk, bytes: lot.to_vec() });
        let command = Command::ImportZk { name: self.name.to_owned(), step };
        let consensus = self.context.consensus.clone();
        let request = Request::from(command);
        self.in_flight.push_back(async move { consensus.propose(request).await }.boxed());
    }

    async fn wait_for_first(&mut self) -> Result<(), Problem> {
        match self.in_flight.next().await {
            Some(outcome) => self.settle(outcome).await,
            None => Err(Problem::internal("rows were sent and nobody waits for them")),
        }
    }

    async fn settle(&mut self, outcome: Outcome) -> Result<(), Problem> {
        match outcome {
            Ok(_) => {
                self.sent.pop_front();
                Ok(())
            }
            Err(ProposeError::Rejected(rejected)) if rejected.code != RejectedCode::Conflict => {
                Err(rejected.into())
            }
            Err(error) => self.send_again(error.into()).await,
        }
    }

    /// Lots came out of order, or a leader went away with some: what the import does not have is
    /// sent again, one by one.
    async fn send_again(&mut self, mut why: Problem) -> Result<(), Problem> {
        while self.in_flight.next().await.is_some() {}
        for _ in 0..TRIES {
            let view = match self.context.view(ConsistencyChoice::Linearizable).await {
                Ok(view) => view,
                Err(problem) => {
                    why = problem;
                    continue;
                }
            };
            let Some(import) = view.state.zk_import(self.name) else {
                return Err(Problem::not_found("import", self.name));
            };
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
                    if self.sent.is_empty() {
                        return Ok(());
                    }
                    return Box::pin(self.send_again(why)).await;
                }
                Some(Err(ProposeError::Rejected(rejected))) => return Err(rejected.into()),
                Some(Err(error)) => why = error.into(),
                None => {}
            }
        }
        Err(why)
    }
}

/// A body with one step's bytes.
pub(super) async fn whole(body: Body) -> Result<Vec<u8>, Problem> {
    let patience = Duration::from_millis(API_BODY_WAIT_MS);
    let read = axum::body::to_bytes(body, ZK_CHUNK_BYTES_MAX);
    match tokio::time::timeout(patience, read).await {
        Ok(Ok(bytes)) => Ok(bytes.to_vec()),
        Ok(Err(_)) => Err(Problem::too_large(format!(
            "the body did not arrive whole, or has more than {ZK_CHUNK_BYTES_MAX} bytes"
        ))),
        Err(_) => Err(Problem::bad_request("the body did not arrive in time")),
    }
}
