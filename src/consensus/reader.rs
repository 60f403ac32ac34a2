//! Linearizable reads: all that gather while a round is on its way share the next one.

use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use openraft::errors::RaftError;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::core::{Core, Reader};
use super::handle::{ReadError, View};
use super::peers::{Answer, Call, CallError};

const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// For the leader's answer to one question.
const ROUND_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn run(core: Arc<Core>, mut queue: mpsc::Receiver<Reader>) {
    loop {
        let first = tokio::select! {
            biased;
            () = core.stopping.cancelled() => break,
            first = queue.recv() => first,
        };
        let Some(first) = first else { break };
        // Only who came before the round begins may share it.
        let mut readers = vec![first];
        while let Ok(reader) = queue.try_recv() {
            readers.push(reader);
        }
        let answer = read(&core).await;
        for reader in readers {
            let _ = reader.send(answer.clone());
        }
    }
}

async fn read(core: &Core) -> Result<View, ReadError> {
    let deadline = Instant::now() + core.tuning().propose_deadline;
    let mut why = "none is elected".to_owned();
    loop {
        let index = if core.leads() {
            core.read_index().await
        } else if let Some(leader) = core.other_leader() {
            match core.ask(&leader, Call::ReadIndex, true, ROUND_TIMEOUT).await {
                Ok(Answer::ReadIndex(index)) => Ok(index),
                Ok(_) => Err(CallError::NotDone("the leader answered something else".to_owned())),
                Err(error) => Err(error),
            }
        } else {
            Err(CallError::NotDone(why.clone()))
        };
        match index {
            Ok(index) => {
                let applied = tokio::time::timeout_at(deadline, core.applied(index)).await;
                return applied.unwrap_or_else(|_| {
                    let message = format!("this server is behind: entry {index} has not come");
                    Err(ReadError::NoLeader(message))
                });
            }
            Err(CallError::Retired(message)) => return Err(ReadError::Stopping(message)),
            // A read changes nothing: whatever went wrong, it may be asked again.
            Err(error) => why = error.to_string(),
        }
        if let Some(why) = core.why_stopping() {
            return Err(ReadError::Stopping(why));
        }
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(ReadError::NoLeader(why));
        }
        core.leader_change(RETRY_PAUSE).await;
    }
}

impl Core {
    /// The index up to which a server must have applied to see everything acknowledged so far;
    /// asks a majority whether this server still leads.
    pub(super) async fn read_index(&self) -> Result<u64, CallError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(error)) => Err(CallError::NotDone(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(CallError::NotDone(error.to_string())),
        }
    }
}
