//! Applies what is committed, and publishes a view of the state after each lot.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::base::OptionalSend;
use openraft::storage::{
    ApplyResponder, EntryResponder, RaftSnapshotBuilder, RaftStateMachine, Snapshot,
};
use tokio::sync::{mpsc, watch};

use super::handle::View;
use super::snapshot_store::{SnapshotData, SnapshotStore};
use super::types::{
    Batch, LogId, Payload, Replies, SnapshotMeta, StoredMembership, TypeConfig, entry_bytes,
};
use crate::ground::{Offload, Witness};
use crate::observe::metrics::Metrics;
use crate::state::{Stamp, State, codec};

/// Requests applied before a view is published and answers go out, in a long run of entries.
const REQUESTS_PER_VIEW: usize = 1024;
/// Bytes of entries applied before other tasks have a turn.
const BYTES_PER_TURN: usize = 256 << 10;

/// A state at an index where all servers compute its checksum.
#[derive(Debug)]
pub struct Checkpoint {
    /// The index.
    pub index: u64,
    /// The state right after it.
    pub state: State,
}

/// See the module.
#[derive(Debug)]
pub struct StateMachine {
    state: State,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: SnapshotStore,
    offload: Offload,
    views: watch::Sender<View>,
    checkpoints: mpsc::Sender<Checkpoint>,
    checkpoint_every: u64,
    metrics: Metrics,
    witness: Witness,
}

/// What a state machine works with.
#[derive(Debug)]
pub struct Surroundings {
    /// Where snapshots are kept.
    pub snapshots: SnapshotStore,
    /// Where long work goes.
    pub offload: Offload,
    /// Told of every new view.
    pub views: watch::Sender<View>,
    /// Told of every checkpoint there is time for.
    pub checkpoints: mpsc::Sender<Checkpoint>,
    /// Indexes between checkpoints.
    pub checkpoint_every: u64,
    /// Shown every state.
    pub witness: Witness,
    /// To count in.
    pub metrics: Metrics,
}

impl StateMachine {
    /// An empty state; openraft brings it up to date from the current snapshot and the log.
    pub fn new(around: Surroundings) -> Self {
        let Surroundings {
            snapshots,
            offload,
            views,
            checkpoints,
            checkpoint_every,
            witness,
            metrics,
        } = around;
        Self {
            state: State::default(),
            last_applied: None,
            membership: StoredMembership::default(),
            snapshots,
            offload,
            views,
            checkpoints,
            checkpoint_every,
            metrics,
            witness,
        }
    }

    fn publish(&self) {
        let applied_index = self.last_applied.map_or(0, |id| id.index);
        self.views.send_replace(View { state: Arc::new(self.state.clone()), applied_index });
        self.metrics.raft_applied_index.set(i64::try_from(applied_index).unwrap_or(i64::MAX));
    }

    fn apply_batch(
        &mut self,
        index: u64,
        batch: &Batch,
        counts: &mut BTreeMap<&'static str, u64>,
    ) -> io::Result<Replies> {
        let (at, requests) = codec::decode_batch(&batch.0).map_err(|error| {
            // Whoever proposed it checked it: this is a newer format.
            let message = format!("entry {index} of the log can't be applied: {error}");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        let stamp = Stamp { index, at };
        let mut replies = Vec::with_capacity(requests.len());
        for request in &requests {
            *counts.entry(request.command.word()).or_default() += 1;
            replies.push(self.state.apply(stamp, request).reply);
        }
        if requests.is_empty() {
            self.state.pass(index);
        }
        Ok(Replies(replies))
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.last_applied, last_membership: self.membership.clone() }
    }

    fn answer(
        &mut self,
        waiting: &mut Vec<(ApplyResponder<TypeConfig>, Replies)>,
        counts: &mut BTreeMap<&'static str, u64>,
    ) {
        // The view first: who has an answer must find it there.
        self.publish();
        for (responder, replies) in waiting.drain(..) {
            responder.send(replies);
        }
        for (word, count) in std::mem::take(counts) {
            self.metrics.commands_applied.with_label_values(&[word]).inc_by(count);
        }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut waiting = Vec::new();
        let mut counts = BTreeMap::new();
        let mut requests = 0;
        let mut bytes = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            // A run of large ones would hold up heartbeats.
            if bytes >= BYTES_PER_TURN {
                bytes = 0;
                tokio::task::yield_now().await;
            }
            bytes += entry_bytes(&entry);
            let index = entry.log_id.index;
            let replies = match entry.payload {
                Payload::Blank => {
                    self.state.pass(index);
                    Replies::default()
                }
                Payload::Normal(batch) => self.apply_batch(index, &batch, &mut counts)?,
                Payload::Membership(membership) => {
                    self.state.pass(index);
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                    Replies::default()
                }
            };
            self.last_applied = Some(entry.log_id);
            self.witness.show(index, &self.state);
            if index.is_multiple_of(self.checkpoint_every) {
                // A checker that is still busy skips this one.
                let _ = self.checkpoints.try_send(Checkpoint { index, state: self.state.clone() });
            }
            requests += replies.0.len();
            if let Some(responder) = responder {
                waiting.push((responder, replies));
            }
            if requests >= REQUESTS_PER_VIEW {
                requests = 0;
                self.answer(&mut waiting, &mut counts);
            }
        }
        self.answer(&mut waiting, &mut counts);
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            meta: self.meta(),
            state: self.state.clone(),
            snapshots: self.snapshots.clone(),
            offload: self.offload,
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> Result<(), io::Error> {
        let (snapshots, new_meta) = (self.snapshots.clone(), meta.clone());
        let state = self
            .offload
            .run(move || {
                // Read before it takes the old one's place: it may be damaged.
                let state = data.state()?;
                snapshots.promote(&new_meta, data)?;
                Ok::<_, io::Error>(state)
            })
            .await??;
        self.state = state;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<SmSnapshot>, io::Error> {
        Ok(self.snapshots.current().map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A snapshot with its body in a file.
pub type SmSnapshot = openraft::alias::SmSnapshotOf<TypeConfig, StateMachine>;

/// Writes a snapshot of a state that it has for itself.
#[derive(Debug)]
pub struct SnapshotBuilder {
    meta: SnapshotMeta,
    state: State,
    snapshots: SnapshotStore,
    offload: Offload,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<SmSnapshot, io::Error> {
        let (meta, state) = (self.meta.clone(), self.state.clone());
        let snapshots = self.snapshots.clone();
        let snapshot = self.offload.run(move || snapshots.save(&meta, &state)).await??;
        Ok(Snapshot { meta: self.meta.clone(), snapshot })
    }
}
