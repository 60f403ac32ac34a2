//! openraft's log storage: every entry that is not purged is in memory, and what changes goes to
//! a [`LogDisk`] through one ordered queue. Reads never touch the disk.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, PoisonError, RwLock};

use openraft::base::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::{mpsc, oneshot};

use super::log_disk::{Done, Identity, Loaded, LogDisk, LogJob, LogOp};
use super::types::{Entry, LogId, TypeConfig, Vote, entry_bytes};
use crate::limits::{LOG_JOBS_MAX, LOG_READ_BYTES_MAX};

/// The log; clones are the same one.
#[derive(Debug, Clone)]
pub struct RaftLog {
    tail: Arc<RwLock<Tail>>,
    jobs: mpsc::Sender<LogJob>,
}

#[derive(Debug, Default)]
struct Tail {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// What the disk was told of that.
    committed_told: Option<LogId>,
    last_purged: Option<LogId>,
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl Tail {
    /// Index of the first entry, or of the one that would be.
    fn first(&self) -> u64 {
        let purged = self.last_purged.map_or(0, |id| id.index + 1);
        self.entries.front().map_or(purged, |entry| entry.log_id.index)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.last_purged)
    }

    /// Places in `entries` of the indexes from `start` up to `end`.
    fn places(&self, start: u64, end: u64) -> std::ops::Range<usize> {
        let place = |index: u64| {
            let place = index.saturating_sub(self.first());
            usize::try_from(place).unwrap_or(usize::MAX).min(self.entries.len())
        };
        let start = place(start);
        start..place(end).max(start)
    }
}

/// How much log there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSize {
    /// Entries that are not purged.
    pub entries: u64,
    /// Their bytes, about.
    pub bytes: u64,
}

impl RaftLog {
    /// The log that `disk` had, and keeps from now on.
    pub fn new(disk: Box<dyn LogDisk>, loaded: Loaded) -> Self {
        let (jobs, queue) = mpsc::channel(LOG_JOBS_MAX);
        disk.serve(queue);
        let bytes = loaded.entries.iter().map(|entry| entry_bytes(entry) as u64).sum();
        let tail = Tail {
            vote: loaded.vote,
            committed: loaded.committed,
            committed_told: loaded.committed,
            last_purged: loaded.last_purged,
            entries: loaded.entries.into(),
            bytes,
        };
        Self { tail: Arc::new(RwLock::new(tail)), jobs }
    }

    fn read<T>(&self, look: impl FnOnce(&Tail) -> T) -> T {
        look(&self.tail.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Tail) -> T) -> T {
        change(&mut self.tail.write().unwrap_or_else(PoisonError::into_inner))
    }

    async fn queue(&self, op: LogOp, done: Done) -> io::Result<()> {
        self.jobs.send(LogJob { op, done }).await.map_err(|_| closed())
    }

    /// How far the log is committed, if the disk was not told yet: a hint, which waits for
    /// something that has to be written anyway.
    fn news_of_committed(&self) -> Option<LogId> {
        self.change(|tail| {
            let news = tail.committed.filter(|_| tail.committed != tail.committed_told);
            tail.committed_told = tail.committed;
            news
        })
    }

    async fn carry_out(&self, op: LogOp) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.queue(op, Done::Signal(done)).await?;
        answer.await.map_err(|_| closed())?
    }

    /// Whether anything was ever written: an entry, a purge or a vote.
    pub fn is_pristine(&self) -> bool {
        self.read(|tail| tail.last().is_none() && tail.vote.is_none())
    }

    /// How much log there is.
    pub fn size(&self) -> LogSize {
        self.read(|tail| LogSize { entries: tail.entries.len() as u64, bytes: tail.bytes })
    }

    /// Bytes of the entries from `index` on, about.
    pub fn bytes_from(&self, index: u64) -> u64 {
        self.read(|tail| {
            let before = tail.entries.range(tail.places(tail.first(), index));
            tail.bytes - before.map(|entry| entry_bytes(entry) as u64).sum::<u64>()
        })
    }

    /// The index up to which the log may be purged so that at most `entries` and `bytes` of what
    /// `upto` covers stay; none if nothing is to go.
    pub fn purge_point(&self, upto: u64, entries: u64, bytes: u64) -> Option<u64> {
        self.read(|tail| {
            let covered = tail.places(tail.first(), upto.saturating_add(1));
            let (mut kept, mut kept_bytes) = (0, 0);
            for place in covered.rev() {
                let entry = &tail.entries[place];
                kept += 1;
                kept_bytes += entry_bytes(entry) as u64;
                if kept > entries || kept_bytes > bytes {
                    return Some(entry.log_id.index);
                }
            }
            None
        })
    }

    /// Keeps who this server is.
    ///
    /// # Errors
    /// If it could not be made durable.
    pub async fn save_identity(&self, identity: Identity) -> io::Result<()> {
        self.carry_out(LogOp::SaveIdentity(identity)).await
    }

    /// Tells the disk how far the log is committed, if nothing is written that it could go with.
    pub fn tell_committed(&self) {
        if let Some(committed) = self.news_of_committed() {
            // Only a hint: if the queue is full, another one will come.
            let job = LogJob { op: LogOp::Committed(committed), done: Done::Unasked };
            let _ = self.jobs.try_send(job);
        }
    }

    /// Waits until everything so far is durable, and ends the disk's service.
    ///
    /// # Errors
    /// If it could not be made durable.
    pub async fn close(&self) -> io::Result<()> {
        if let Some(committed) = self.news_of_committed() {
            self.queue(LogOp::Committed(committed), Done::Unasked).await?;
        }
        self.carry_out(LogOp::Close).await
    }
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")
}

impl RaftLogReader<TypeConfig> for RaftLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Ok(self.read(|tail| tail.entries.range(tail.places(start, end)).cloned().collect()))
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read(|tail| {
            let mut bytes = 0;
            let fits = |entry: &&Entry| {
                // The first one always does.
                let fits = bytes == 0 || bytes + entry_bytes(entry) <= LOG_READ_BYTES_MAX;
                bytes += entry_bytes(entry);
                fits
            };
            tail.entries.range(tail.places(start, end)).take_while(fits).cloned().collect()
        }))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.read(|tail| tail.vote))
    }
}

impl RaftLogStorage<TypeConfig> for RaftLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        Ok(self.read(|tail| LogState {
            last_purged_log_id: tail.last_purged,
            last_log_id: tail.last(),
        }))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.carry_out(LogOp::SaveVote(*vote)).await?;
        self.change(|tail| tail.vote = Some(*vote));
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.change(|tail| tail.committed = committed.or(tail.committed));
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.read(|tail| tail.committed))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.change(|tail| {
            for entry in &entries {
                debug_assert!(
                    tail.last().is_none_or(|last| last.index + 1 == entry.log_id.index),
                    "no hole in the log"
                );
                tail.bytes += entry_bytes(entry) as u64;
                tail.entries.push_back(entry.clone());
            }
        });
        let committed = self.news_of_committed();
        self.queue(LogOp::Append { entries, committed }, Done::Flushed(callback)).await
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |id| id.index + 1);
        self.change(|tail| {
            let keep = tail.places(tail.first(), from).end;
            let gone: u64 = tail.entries.range(keep..).map(|entry| entry_bytes(entry) as u64).sum();
            tail.bytes -= gone;
            tail.entries.truncate(keep);
        });
        self.carry_out(LogOp::TruncateFrom(from)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.change(|tail| {
            if tail.last_purged.is_some_and(|purged| purged >= log_id) {
                return;
            }
            let end = tail.places(tail.first(), log_id.index + 1).end;
            let gone: u64 = tail.entries.drain(..end).map(|entry| entry_bytes(&entry) as u64).sum();
            tail.bytes -= gone;
            tail.last_purged = Some(log_id);
        });
        self.queue(LogOp::Purge(log_id), Done::Unasked).await
    }
}
