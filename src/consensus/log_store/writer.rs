//! The thread that writes the log: takes what has gathered, makes it durable with one sync, tells
//! everyone who waits, and hands it on to sled.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::changes::Changes;
use super::end_mark::EndMark;
use super::journal::Journal;
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
    pub(super) journal: Journal,
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
    /// What is durable, and sled does not have yet.
    owed: Changes,
    /// What sled has, and is to be durable with whatever is written next.
    unsynced: Changes,
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
            owed: Changes::default(),
            unsynced: Changes::default(),
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
        // What is handed on, tidied up, or made ready, keeps nobody waiting.
        self.guarded(Self::settle);
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
        let mut changes = Changes::default();
        let mut batch = FrameBatch::default();
        let mut committed = None;
        let (mut must_sync, mut must_empty) = (false, false);
        for op in ops {
            match op {
                LogOp::Append { entries, committed: news } => {
                    committed = news.or(committed);
                    batch.append(&entries)?;
                    must_sync |= !entries.is_empty();
                }
                LogOp::TruncateFrom(index) => {
                    self.gather(&mut batch, &mut changes);
                    // It looks at what sled has.
                    self.commit(std::mem::take(&mut changes))?;
                    self.settle()?;
                    self.truncate_from(index, &mut changes)?;
                    must_sync = true;
                }
                LogOp::SaveVote(vote) => {
                    self.gather(&mut batch, &mut changes);
                    changes.put_meta(VOTE, sealed(&vote)?);
                    must_sync = true;
                }
                LogOp::Purge(upto) => {
                    self.gather(&mut batch, &mut changes);
                    changes.put_meta(PURGED, sealed::<LogId>(&upto)?);
                    self.purge_upto = self.purge_upto.max(Some(upto.index));
                }
                LogOp::SaveIdentity(identity) => {
                    self.gather(&mut batch, &mut changes);
                    changes.put_meta(IDENTITY, sealed(&identity)?);
                    must_sync = true;
                }
                LogOp::Committed(id) => committed = Some(id),
                LogOp::Close => (must_sync, must_empty) = (true, true),
            }
        }
        self.gather(&mut batch, &mut changes);
        if must_sync {
            if let Some(id) = committed {
                changes.put_meta(COMMITTED, sealed::<LogId>(&id)?);
            }
            self.commit(changes)?;
            if must_empty {
                self.empty_journal()?;
            }
            self.metrics.raft_fsync_seconds.observe(started.elapsed().as_secs_f64());
        } else {
            self.unsynced.append(changes.clone());
            self.owed = changes;
            if let Some(id) = committed {
                // Whoever opens the log finds what it speaks of, or an older one.
                self.meta.insert(COMMITTED, sealed::<LogId>(&id)?).map_err(to_io)?;
            }
        }
        Ok(())
    }

    /// Makes `changes` durable; sled gets them later.
    fn commit(&mut self, changes: Changes) -> io::Result<()> {
        #[cfg(test)]
        if self.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.settle()?;
        let mut record = std::mem::take(&mut self.unsynced);
        record.append(changes.clone());
        if record.is_empty() {
            return Ok(());
        }
        if !self.syncs.journal.has_room(&record) {
            self.empty_journal()?;
        }
        let number = self.syncs.number + 1;
        self.syncs.journal.append(number, &record)?;
        self.owed = changes;
        self.note(number)
    }

    /// Has sled carry out what it is owed.
    fn settle(&mut self) -> io::Result<()> {
        std::mem::take(&mut self.owed).carry_out(&self.log, &self.meta).map_err(to_io)
    }

    /// Makes durable in sled all that there is, so that the journal can begin anew.
    fn empty_journal(&mut self) -> io::Result<()> {
        self.settle()?;
        let number = self.syncs.number + 1;
        // The last of sled's changes: if it is there, all are.
        self.meta.insert(SYNCED, sealed(&number)?).map_err(to_io)?;
        self.db.flush().map_err(to_io)?;
        self.syncs.handle.sync()?;
        self.syncs.journal.begin_anew()?;
        self.note(number)
    }

    fn note(&mut self, number: u64) -> io::Result<()> {
        self.syncs.mark.note(number)?;
        self.syncs.number = number;
        if number.is_multiple_of(SYNCS_BETWEEN_CHECKS) {
            check_blobs(&self.dir).map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn gather(&mut self, batch: &mut FrameBatch, changes: &mut Changes) {
        let FrameBatch { mut records, open, mut frames } = std::mem::take(batch);
        if let Some(frame) = open {
            put_frame(frame, &mut records, &mut frames);
        }
        if let Some((_, info)) = frames.last() {
            let bytes: usize = records.iter().map(|(_, bytes)| bytes.len()).sum();
            self.spacers.note(bytes, info.last + 1);
        }
        add(changes, records);
        self.frames.extend(frames);
    }

    fn truncate_from(&mut self, index: u64, changes: &mut Changes) -> io::Result<()> {
        let (mut records, mut frames) = (Vec::new(), Vec::new());
        let gone = self.frames.split_off(&index);
        let cut = self.frames.last_key_value().filter(|(_, info)| info.last >= index);
        let cut = cut.map(|(first, info)| (*first, *info));
        for (first, info) in gone.into_iter().chain(cut) {
            for part in 0..info.parts {
                changes.remove(key(first, part));
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
        add(changes, records);
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

fn add(changes: &mut Changes, records: Vec<Record>) {
    for (key, bytes) in records {
        changes.put(key, bytes);
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
