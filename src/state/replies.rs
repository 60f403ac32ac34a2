//! Replies to requests with an `Idempotency-Key`, so that a repeat changes nothing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Rejected, RejectedCode, Reply, Request, Stamp, State, codec};
use crate::limits::IDEMPOTENCY_KEPT;
use crate::model::time::Timestamp;

/// A reply under its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// Of the command's bytes: another command under the same key is an error.
    pub(super) command_hash: u64,
    pub(super) reply: Result<Reply, Rejected>,
    pub(super) at: Timestamp,
}

fn command_hash(request: &Request) -> u64 {
    // A command that can't be encoded was never in a log.
    codec::to_bytes(&request.command).map_or(0, |bytes| xxh3_64(&bytes))
}

impl State {
    pub(super) fn remembered_reply(&self, request: &Request) -> Option<Result<Reply, Rejected>> {
        let key = request.idempotency_key.as_ref()?;
        let known = self.replies.get(key)?;
        if known.command_hash == command_hash(request) {
            return Some(known.reply.clone());
        }
        let message =
            format!("the Idempotency-Key {key:?} was used for another request; use a new one");
        Some(Err(Rejected::new(RejectedCode::KeyReused, message)))
    }

    pub(super) fn remember_reply(
        &mut self,
        stamp: Stamp,
        request: &Request,
        reply: &Result<Reply, Rejected>,
    ) {
        let Some(key) = &request.idempotency_key else { return };
        let (command_hash, reply) = (command_hash(request), reply.clone());
        let remembered = Remembered { command_hash, reply, at: stamp.at };
        self.replies.insert(key.clone(), Arc::new(remembered));
        self.replies_order.push_back(key.clone());
        while self.replies_order.len() > IDEMPOTENCY_KEPT {
            if let Some(oldest) = self.replies_order.pop_front() {
                self.replies.remove(&oldest);
            }
        }
    }

    pub(super) fn forget_replies_before(&mut self, before: Timestamp) {
        while let Some(oldest) = self.replies_order.front() {
            if self.replies.get(oldest).is_some_and(|known| known.at >= before) {
                break;
            }
            if let Some(oldest) = self.replies_order.pop_front() {
                self.replies.remove(&oldest);
            }
        }
    }
}
