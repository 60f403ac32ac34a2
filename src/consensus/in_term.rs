//! What a leader decides holds only while it leads: its decisions are never passed on to another,
//! who may know better by then.

use tokio::time::Instant;

use super::handle::{Consensus, ProposeError};
use super::peers::CallError;
use crate::state::codec::{self, BatchWriter};
use crate::state::{Rejected, Reply, Request};

/// Requests that are in the log of a majority and applied.
#[derive(Debug, Clone)]
pub struct Decided {
    /// What the state answered to each, in their order.
    pub replies: Vec<Result<Reply, Rejected>>,
    /// Index of the last log entry that held some of them; 0 if there were none.
    pub index: u64,
}

impl Consensus {
    /// Has `requests` carried out in this order, by this server as the leader of `term` and by
    /// nobody else. They share log entries as far as they fit; others' requests may come between
    /// two entries.
    ///
    /// # Errors
    /// See [`ProposeError`]; the first requests may have been carried out then.
    pub async fn propose_in_term(
        &self,
        term: u64,
        requests: &[Request],
    ) -> Result<Decided, ProposeError> {
        let core = self.core();
        let mut encoded = Vec::with_capacity(requests.len());
        for request in requests {
            let request = codec::encode_request(request);
            encoded.push(request.map_err(|error| ProposeError::TooLarge(error.to_string()))?);
        }
        let mut decided = Decided { replies: Vec::with_capacity(requests.len()), index: 0 };
        let mut rest = encoded.as_slice();
        while !rest.is_empty() {
            let mut writer = BatchWriter::new(core.state_time());
            while let Some((first, others)) = rest.split_first()
                && writer.has_room(first.len())
            {
                writer.push(first);
                rest = others;
            }
            let count = writer.len();
            let deadline = Instant::now() + core.tuning().propose_deadline;
            let outcome = core.write_in(Some(term), writer.finish().into(), deadline).await;
            let (index, replies) = outcome.map_err(|error| match error {
                CallError::NotDone(message) => ProposeError::NoLeader(message),
                CallError::Unknown(message) => ProposeError::Unknown(message),
                CallError::Refused(message) | CallError::Retired(message) => {
                    ProposeError::Stopping(message)
                }
            })?;
            if replies.len() != count {
                let message = "the answers don't fit the questions".to_owned();
                return Err(ProposeError::Unknown(message));
            }
            decided.replies.extend(replies);
            decided.index = index;
        }
        Ok(decided)
    }
}
