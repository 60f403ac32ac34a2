//! Gathers requests while earlier ones are on their way, and has each lot carried out as one
//! entry of the log, by this server or by the leader.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::impls::ProgressResponder;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;

use super::core::Core;
use super::handle::{Committed, ProposeError};
use super::peers::{Answer, Call, CallError};
use super::types::Batch;
use crate::state::codec::BatchWriter;
use crate::state::{Rejected, Reply};

/// Pause before a request is tried again while nobody leads.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// A request on its way.
pub(super) struct Pending {
    /// As `state::codec` encodes it.
    pub(super) request: Bytes,
    pub(super) answer: oneshot::Sender<Result<Committed, ProposeError>>,
    /// Its share of the bytes that may wait.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// What became of a batch.
type Outcome = Result<(u64, Vec<Result<Reply, Rejected>>), ProposeError>;

pub(super) async fn run(core: Arc<Core>, mut queue: mpsc::Receiver<Pending>) {
    let mut in_flight = FuturesUnordered::new();
    // Taken from the queue, but there was no room for it.
    let mut held: Option<Pending> = None;
    loop {
        let may_send = in_flight.len() < core.tuning().batches_in_flight;
        tokio::select! {
            biased;
            Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
            first = next(&mut held, &mut queue), if may_send => {
                let Some(first) = first else { break };
                let mut writer = BatchWriter::new(core.state_time());
                writer.push(&first.request);
                let mut batch = vec![first];
                while let Ok(pending) = queue.try_recv() {
                    if !writer.has_room(pending.request.len()) {
                        held = Some(pending);
                        break;
                    }
                    writer.push(&pending.request);
                    batch.push(pending);
                }
                core.metrics.raft_batch_requests.observe(batch.len() as f64);
                in_flight.push(carry_out(core.clone(), batch, writer.finish().into()));
            }
            () = core.stopping.cancelled() => break,
        }
    }
    // What is on its way comes to its end; what is not is told by its dropped answer.
    while in_flight.next().await.is_some() {}
}

async fn next(held: &mut Option<Pending>, queue: &mut mpsc::Receiver<Pending>) -> Option<Pending> {
    match held.take() {
        Some(pending) => Some(pending),
        None => queue.recv().await,
    }
}

async fn carry_out(core: Arc<Core>, batch: Vec<Pending>, entry: Bytes) {
    let outcome = propose(&core, &batch, entry).await;
    match outcome {
        Ok((index, replies)) if replies.len() == batch.len() => {
            for (pending, reply) in batch.into_iter().zip(replies) {
                let answer = reply.map(|reply| Committed { reply, index });
                let _ = pending.answer.send(answer.map_err(ProposeError::Rejected));
            }
        }
        Ok(_) => {
            let error = ProposeError::Unknown("the answers don't fit the questions".to_owned());
            answer_all(batch, &error);
        }
        Err(error) => answer_all(batch, &error),
    }
}

fn answer_all(batch: Vec<Pending>, error: &ProposeError) {
    for pending in batch {
        let _ = pending.answer.send(Err(error.clone()));
    }
}

/// Tries until the outcome is known, or the time is up.
async fn propose(core: &Core, batch: &[Pending], entry: Bytes) -> Outcome {
    let deadline = Instant::now() + core.tuning().propose_deadline;
    let mut why = "none is elected".to_owned();
    loop {
        let attempt = if core.leads() {
            core.write(entry.clone(), deadline).await
        } else if let Some(leader) = core.other_leader() {
            let requests = batch.iter().map(|pending| pending.request.clone()).collect();
            let timeout = deadline.saturating_duration_since(Instant::now());
            match core.ask(&leader, Call::Propose(requests), true, timeout).await {
                Ok(Answer::Proposed { index, replies }) => Ok((index, replies)),
                Ok(_) => Err(CallError::Unknown("the leader answered something else".to_owned())),
                Err(error) => Err(error),
            }
        } else {
            Err(CallError::NotDone(why.clone()))
        };
        match attempt {
            Ok(done) => return Ok(done),
            Err(CallError::NotDone(message)) => why = message,
            Err(CallError::Unknown(message)) => return Err(ProposeError::Unknown(message)),
            Err(CallError::Refused(message) | CallError::Retired(message)) => {
                return Err(ProposeError::Stopping(message));
            }
        }
        if let Some(why) = core.why_stopping() {
            return Err(ProposeError::Stopping(why));
        }
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(ProposeError::NoLeader(why));
        }
        core.leader_change(RETRY_PAUSE).await;
    }
}

impl Core {
    /// Has this server, as the leader, write `entry` and apply it.
    pub(super) async fn write(
        &self,
        entry: Bytes,
        deadline: Instant,
    ) -> Result<(u64, Vec<Result<Reply, Rejected>>), CallError> {
        self.write_in(None, entry, deadline).await
    }

    /// As [`Core::write`], and only in that term.
    pub(super) async fn write_in(
        &self,
        term: Option<u64>,
        entry: Bytes,
        deadline: Instant,
    ) -> Result<(u64, Vec<Result<Reply, Rejected>>), CallError> {
        let started = Instant::now();
        let (responder, answer) = ProgressResponder::complete_only();
        let write = self.raft.write(Batch(entry)).responder(responder);
        let sent = match term {
            Some(term) => write.with_leader(term).await,
            None => write.await,
        };
        sent.map_err(|fatal: Fatal<_>| CallError::NotDone(fatal.to_string()))?;
        let answer = match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                return Err(CallError::Unknown("this server stopped meanwhile".to_owned()));
            }
            Err(_) => {
                return Err(CallError::Unknown("no majority answered in time".to_owned()));
            }
        };
        match answer {
            Ok(done) => {
                self.metrics.raft_commit_seconds.observe(started.elapsed().as_secs_f64());
                Ok((done.log_id.index, done.data.0))
            }
            Err(ClientWriteError::ForwardToLeader(_)) => {
                Err(CallError::NotDone("this server does not lead".to_owned()))
            }
            Err(other) => Err(CallError::Unknown(other.to_string())),
        }
    }
}
