//! The thread that writes the log: takes what has gathered, makes it durable with one sync, and
//! tells everyone who waits.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::end_mark::EndMark;
use super::open::check_blobs;
use super::spacers::Spacers;
use super::{
    COMMITTED, FrameWriter, IDENTITY, PART_BYTES, PURGED, SYNCED, SyncHandle, VOTE, key,
    read_frame, sealed,
};
use crate::consensus::log_disk::{Done, LogJob, LogOp};
use crate::consensus::types::{Entry, LogId, entry_bytes};
use crate::limits::{
    LOG_FRAME_BYTES, LOG_GROUP_BYTES_MAX, LOG_GROUP_ENTRIES_MAX, LOG_PURGE_FRAMES,
};
use crate::observe::metrics::Metrics;

/// sled's directory is looked at again after so many syncs.
const SYNCS_BETWEEN_CHECKS: u64 = 4096;

/// Where a frame ends, and how many records it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameInfo {
    pub(super) last: u64,
    pub(super) parts: u16,
}

/// Syncs, and their numbers.
pub(super) struct Syncs {
    pub(super) handle: SyncHandle,
    pub(super) mark: EndMark,
    /// Of the last one.
    pub(super) number: u64,
}

/// What is in the log's tree.
pub(super) struct Records {
    /// By first index.
    pub(super) frames: BTreeMap<u64, FrameInfo>,
    pub(super) spacers: Spacers,
}

pub(super) struct Writer {
    db: sled::Db,
    log: sled::Tree,
    meta: sled::Tree,
    syncs: Syncs,
    /// By first index.
    frames: BTreeMap<u64, FrameInfo>,
    spacers: Spacers,
    /// Frames up to here are to go.
    purge_upto: Option<u64>,
    failed: Option<String>,
    dir: PathBuf,
    metrics: Metrics,
    /// As if the disk were full.
    #[cfg(test)]
    pub(super) full: bool,
}

impl Writer {
    pub(super) fn new(
        db: sled::Db,
        log: sled::Tree,
        meta: sled::Tree,
        syncs: Syncs,
        records: Records,
        dir: PathBuf,
        metrics: Metrics,
    ) -> Self {
        let Records { frames, spacers } = records;
        let (purge_upto, failed) = (None, None);
        Self {
            db,
            log,
            meta,
            syncs,
            frames,
            spacers,
            purge_upto,
            failed,
            dir,
            metrics,
            #[cfg(test)]
            full: false,
        }
    }

    /// Runs until the queue is closed or asks for the end.
    pub(super) fn serve(mut self, mut queue: mpsc::Receiver<LogJob>) {
        while let Some(first) = self.next(&mut queue) {
            let mut group = vec![first];
            let (mut entries, mut bytes) = (0, 0);
            while entries < LOG_GROUP_ENTRIES_MAX && bytes < LOG_GROUP_BYTES_MAX {
                match queue.try_recv() {
                    Ok(job) => {
                        if let LogOp::Append { entries: new, .. } = &job.op {
                            entries += new.len();
                            bytes += new.iter().map(entry_bytes).sum::<usize>();
                        }
                        group.push(job);
                    }
                    Err(_) => break,
                }
            }
            let close = group.iter_mut().find(|job| matches!(job.op, LogOp::Close));
            let closed = close.map(|job| std::mem::take(&mut job.done));
            self.carry_out(group);
            if let Some(closed) = closed {
                let outcome = self.outcome();
                // Whoever waits for it may open the directory again.
                drop(self);
                closed.complete(outcome);
                return;
            }
        }
    }

    fn outcome(&self) -> io::Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(message) => Err(io::Error::other(message.clone())),
        }
    }

    /// The next job; purges a step at a time while there is none.
    fn next(&mut self, queue: &mut mpsc::Receiver<LogJob>) -> Option<LogJob> {
        loop {
            if self.purge_upto.is_none() || self.failed.is_some() {
                return queue.blocking_recv();
            }
            match queue.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => self.guarded(Self::purge_step),
            }
        }
    }

    fn carry_out(&mut self, group: Vec<LogJob>) {
        let (ops, waiting): (Vec<LogOp>, Vec<Done>) =
            group.into_iter().map(|job| (job.op, job.done)).unzip();
        self.guarded(|writer| writer.write(ops));
        for done in waiting {
            done.complete(self.outcome());
        }
        // What is tidied up, or made ready, keeps nobody waiting.
        if self.purge_upto.is_some() {
            self.guarded(Self::purge_step);
        }
        self.guarded(Self::space_step);
    }

    /// After one failure nothing is written any more: what a failed sync left behind is unknown.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.failed.is_some() {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| work(self)));
        let what = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) if error.kind() == io::ErrorKind::StorageFull => {
                format!("{error}; make room and start the server again")
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "sled panicked; is the disk full?".to_owned(),
        };
        let message = format!("the log in {} can't be written: {what}", self.dir.display());
        tracing::error!("{message}");
        self.failed = Some(message);
    }

    fn write(&mut self, ops: Vec<LogOp>) -> io::Result<()> {
        let started = Instant::now();
        let mut batch = FrameBatch::default();
        let mut committed = None;
        let mut must_sync = false;
        for op in ops {
            match op {
                LogOp::Append { entries, committed: news } => {
                    committed = news.or(committed);
                    batch.append(&entries)?;
                    must_sync |= !entries.is_empty();
                }
                LogOp::TruncateFrom(index) => {
                    self.apply(&mut batch)?;
                    self.truncate_from(index)?;
                    must_sync = true;
                }
                LogOp::SaveVote(vote) => {
                    self.apply(&mut batch)?;
                    self.put(VOTE, &vote)?;
                    must_sync = true;
                }
                LogOp::Purge(upto) => {
                    self.apply(&mut batch)?;
                    self.put::<LogId>(PURGED, &upto)?;
                    self.purge_upto = self.purge_upto.max(Some(upto.index));
                }
                LogOp::SaveIdentity(identity) => {
                    self.put(IDENTITY, &identity)?;
                    must_sync = true;
                }
                LogOp::Committed(id) => committed = Some(id),
                LogOp::Close => must_sync = true,
            }
        }
        self.apply(&mut batch)?;
        if let Some(id) = committed {
            self.put::<LogId>(COMMITTED, &id)?;
        }
        if must_sync {
            #[cfg(test)]
            if self.full {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let number = self.syncs.number + 1;
            self.put(SYNCED, &number)?;
            self.db.flush().map_err(to_io)?;
            self.syncs.handle.sync()?;
            self.syncs.mark.note(number)?;
            self.syncs.number = number;
            self.metrics.raft_fsync_seconds.observe(started.elapsed().as_secs_f64());
            if number.is_multiple_of(SYNCS_BETWEEN_CHECKS) {
                check_blobs(&self.dir).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    fn put<T: serde::Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        self.meta.insert(name, sealed(value)?).map_err(to_io)?;
        Ok(())
    }

    fn apply(&mut self, batch: &mut FrameBatch) -> io::Result<()> {
        let FrameBatch { mut records, open, mut frames } = std::mem::take(batch);
        if let Some(frame) = open {
            put_frame(frame, &mut records, &mut frames);
        }
        if let Some((_, info)) = frames.last() {
            let bytes: usize = records.iter().map(|(_, bytes)| bytes.len()).sum();
            self.spacers.note(bytes, info.last + 1);
            self.insert(records)?;
            self.frames.extend(frames);
        }
        Ok(())
    }

    /// All of them, or none. A batch of sled's is written and waited for in three pieces; one
    /// record is whole by itself, goes to the disk with whatever else is to go, and is what nearly
    /// every group has.
    fn insert(&self, mut records: Vec<Record>) -> io::Result<()> {
        if records.len() == 1
            && let Some((key, bytes)) = records.pop()
        {
            self.log.insert(key, bytes).map_err(to_io)?;
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        add(&mut batch, records);
        self.log.apply_batch(batch).map_err(to_io)
    }

    fn truncate_from(&mut self, index: u64) -> io::Result<()> {
        let mut batch = sled::Batch::default();
        let (mut records, mut frames) = (Vec::new(), Vec::new());
        let gone = self.frames.split_off(&index);
        let cut = self.frames.last_key_value().filter(|(_, info)| info.last >= index);
        let cut = cut.map(|(first, info)| (*first, *info));
        for (first, info) in gone.into_iter().chain(cut) {
            for part in 0..info.parts {
                batch.remove(&key(first, part));
            }
        }
        if let Some((first, info)) = cut {
            let entries = self.read(first, info)?;
            let mut frame = FrameWriter::new(first);
            for entry in entries.iter().filter(|entry| entry.log_id.index < index) {
                frame.push(entry).map_err(io::Error::other)?;
            }
            put_frame(frame, &mut records, &mut frames);
        }
        add(&mut batch, records);
        self.log.apply_batch(batch).map_err(to_io)?;
        self.frames.extend(frames);
        Ok(())
    }

    fn read(&self, first: u64, info: FrameInfo) -> io::Result<Vec<Entry>> {
        let mut bytes = Vec::new();
        for part in 0..info.parts {
            let record = self.log.get(key(first, part)).map_err(to_io)?;
            bytes.extend_from_slice(&record.ok_or_else(|| io::Error::other("a frame is missing"))?);
        }
        read_frame(&Bytes::from(bytes)).map_err(io::Error::other)
    }

    fn space_step(&mut self) -> io::Result<()> {
        match self.frames.last_key_value() {
            Some((_, last)) => self.spacers.step(&self.log, last.last + 1),
            // Nobody knows where the log goes on.
            None => Ok(()),
        }
    }

    fn purge_step(&mut self) -> io::Result<()> {
        let Some(upto) = self.purge_upto else { return Ok(()) };
        let mut records = sled::Batch::default();
        let mut count = 0;
        while count < LOG_PURGE_FRAMES {
            match self.frames.first_key_value() {
                Some((first, info)) if info.last <= upto => {
                    for part in 0..info.parts {
                        records.remove(&key(*first, part));
                    }
                    self.frames.pop_first();
                    count += 1;
                }
                _ => {
                    let room = LOG_PURGE_FRAMES - count;
                    if self.spacers.purge(upto, room, &mut records) {
                        self.purge_upto = None;
                    }
                    count = LOG_PURGE_FRAMES;
                }
            }
        }
        if count > 0 {
            self.log.apply_batch(records).map_err(to_io)?;
        }
        Ok(())
    }
}

/// Key and bytes of a part of a frame.
type Record = ([u8; 10], sled::IVec);

fn add(batch: &mut sled::Batch, records: Vec<Record>) {
    for (key, bytes) in records {
        batch.insert(&key, bytes);
    }
}

/// Frames on their way into sled.
#[derive(Default)]
struct FrameBatch {
    records: Vec<Record>,
    open: Option<FrameWriter>,
    frames: Vec<(u64, FrameInfo)>,
}

impl FrameBatch {
    fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        for entry in entries {
            let index = entry.log_id.index;
            let fits = |frame: &FrameWriter| {
                frame.next() == index
                    && frame.len() < LOG_FRAME_BYTES
                    && index - frame.first() < LOG_GROUP_ENTRIES_MAX as u64
            };
            if self.open.as_ref().is_some_and(|frame| !fits(frame))
                && let Some(full) = self.open.take()
            {
                put_frame(full, &mut self.records, &mut self.frames);
            }
            let frame = self.open.get_or_insert_with(|| FrameWriter::new(index));
            frame.push(entry).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

fn put_frame(frame: FrameWriter, records: &mut Vec<Record>, frames: &mut Vec<(u64, FrameInfo)>) {
    let (first, next) = (frame.first(), frame.next());
    let bytes = frame.finish();
    let mut parts = 0;
    for part in bytes.chunks(PART_BYTES) {
        records.push((key(first, parts), part.into()));
        parts += 1;
    }
    frames.push((first, FrameInfo { last: next - 1, parts }));
}

pub(super) fn to_io(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
