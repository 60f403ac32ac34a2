//! A saved snapshot comes back through the log, piece by piece, and takes the state's place.

use imbl::Vector;
use xxhash_rust::xxh3::Xxh3;

use super::{Change, Event, Rejected, RejectedCode, Reply, State, snapshot};
use crate::limits::{RESTORE_BYTES_MAX, RESTORE_CHUNK_BYTES};

/// The pieces so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Staging {
    pub(super) chunks: Vector<std::sync::Arc<[u8]>>,
    pub(super) length: u64,
}

impl Change<'_> {
    pub(super) fn restore_chunk(&mut self, offset: u64, bytes: &[u8]) -> Result<Reply, Rejected> {
        if offset == 0 {
            self.state.staging = Staging::default();
        }
        let staging = &mut self.state.staging;
        if offset != staging.length {
            let message = format!(
                "a piece at byte {offset} came where byte {} was expected; is someone else \
                 restoring too? Start again",
                staging.length
            );
            return Err(Rejected::new(RejectedCode::Conflict, message));
        }
        if bytes.len() > RESTORE_CHUNK_BYTES || offset + bytes.len() as u64 > RESTORE_BYTES_MAX {
            let message = format!("a snapshot over {RESTORE_BYTES_MAX} bytes can't be restored");
            return Err(Rejected::new(RejectedCode::TooLarge, message));
        }
        staging.length += bytes.len() as u64;
        staging.chunks.push_back(bytes.into());
        Ok(Reply::Done)
    }

    pub(super) fn restore_commit(&mut self, length: u64, checksum: u64) -> Result<Reply, Rejected> {
        let staging = std::mem::take(&mut self.state.staging);
        let invalid = |message: String| Err(Rejected::new(RejectedCode::Invalid, message));
        let mut hasher = Xxh3::new();
        let mut bytes = Vec::with_capacity(staging.length as usize);
        for chunk in &staging.chunks {
            hasher.update(chunk);
            bytes.extend_from_slice(chunk);
        }
        if staging.length != length || hasher.digest() != checksum {
            return invalid("the snapshot did not arrive whole; start again".to_owned());
        }
        let mut restored = match snapshot::read(&mut bytes.as_slice()) {
            Ok(state) => state,
            Err(error) => return invalid(format!("the snapshot can't be read: {error}")),
        };
        // Counters and time never run back: ids stay unique and streams can be resumed.
        let now: &State = self.state;
        restored.cluster_id = now.cluster_id;
        restored.last = now.last;
        restored.next_alloc = restored.next_alloc.max(now.next_alloc);
        restored.next_event = restored.next_event.max(now.next_event);
        restored.next_deployment = restored.next_deployment.max(now.next_deployment);
        let variables = restored.variables.values().map(|variable| variable.modified_index).max();
        restored.last_variable = now.last_variable.max(variables.unwrap_or(0));
        restored.events = now.events.clone();
        restored.replies = now.replies.clone();
        restored.replies_order = now.replies_order.clone();
        restored.retired_servers = now.retired_servers.clone();
        restored.zk.follow(&now.zk);
        restored.renew_orders(self.stamp.index);
        *self.state = restored;
        self.emit(Event::Restored);
        Ok(Reply::Done)
    }
}
