//! A file beside sled's, in which every group of changes becomes durable before sled has it.
//!
//! sled's flush is two waits for the disk (its own, and ours that makes it outlive a loss of power),
//! passes through its pool of threads, and wakes all of them. A group is written here at once, into
//! blocks that the file already has, and one `fdatasync` later it is durable; sled gets it then, and
//! writes in its own time. When the journal is full, sled is flushed and the journal begins anew.
//!
//! A record: `crc32 u32 | length u32 | number u64 | changes`, numbers big-endian, the checksum over
//! everything behind it. The number is that of the sync, each one higher than the last. sled knows
//! the number of the last sync before the journal began anew, so that the first record here has the
//! next one: what stands here from before never fits.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::changes::Changes;
use crate::limits::{LOG_JOURNAL_BYTES, LOG_JOURNAL_STEP_BYTES};

const FILE: &str = "journal";
const HEAD_BYTES: usize = 4 + 4 + 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    /// Where the next record goes.
    at: u64,
    /// Length of the file, which is written up to there.
    length: u64,
    /// The record that is being written.
    record: Vec<u8>,
}

impl Journal {
    /// Opens the journal in `dir`, and makes it if there is none; returns what was written to it
    /// since the sync of number `synced`, in order.
    ///
    /// # Errors
    /// When the file system fails.
    pub(super) fn open(dir: &Path, synced: u64) -> io::Result<(Self, Vec<Changes>)> {
        let path = dir.join(FILE);
        let is_new = !path.try_exists()?;
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
        if is_new {
            // Not only what is in it, its name too must outlive a loss of power.
            File::open(dir)?.sync_all()?;
        }
        let bytes = std::fs::read(&path)?;
        let mut found = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((changes, behind)) = read(rest, synced + 1 + found.len() as u64) {
            found.push(changes);
            rest = behind;
        }
        let length = bytes.len() as u64;
        Ok((Self { file, at: 0, length, record: Vec::new() }, found))
    }

    /// Whether there is room for a record of `changes`; one alone always fits.
    pub(super) fn has_room(&self, changes: &Changes) -> bool {
        self.at == 0 || self.at + (HEAD_BYTES + changes.bytes()) as u64 <= LOG_JOURNAL_BYTES
    }

    /// Writes a record, for which there must be room, and makes it durable.
    ///
    /// # Errors
    /// When the file system fails.
    pub(super) fn append(&mut self, number: u64, changes: &Changes) -> io::Result<()> {
        self.record.clear();
        self.record.resize(HEAD_BYTES, 0);
        changes.write(&mut self.record);
        let length = (self.record.len() - HEAD_BYTES) as u32;
        self.record[4..8].copy_from_slice(&length.to_be_bytes());
        self.record[8..HEAD_BYTES].copy_from_slice(&number.to_be_bytes());
        let crc = crc32fast::hash(&self.record[4..]);
        self.record[..4].copy_from_slice(&crc.to_be_bytes());
        let end = self.at + self.record.len() as u64;
        if end > self.length {
            // Blocks that are there already need no more than their bytes written.
            let more = (end - self.length).next_multiple_of(LOG_JOURNAL_STEP_BYTES);
            self.file.write_all_at(&vec![0; usize::try_from(more).unwrap_or(0)], self.length)?;
            self.length += more;
        }
        self.file.write_all_at(&self.record, self.at)?;
        self.file.sync_data()?;
        self.at = end;
        Ok(())
    }

    /// Forgets all that is in it: sled has it, durably, and the number of a sync that is later.
    ///
    /// # Errors
    /// When the file system fails.
    pub(super) fn begin_anew(&mut self) -> io::Result<()> {
        self.at = 0;
        // What one large group took is given back.
        self.record = Vec::new();
        if self.length > LOG_JOURNAL_BYTES {
            self.file.set_len(LOG_JOURNAL_BYTES)?;
            self.length = LOG_JOURNAL_BYTES;
        }
        Ok(())
    }
}

/// The record of that number at the beginning of `bytes`, and what is behind it.
fn read(bytes: &[u8], number: u64) -> Option<(Changes, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let [c0, c1, c2, c3, l0, l1, l2, l3, ..] = *head;
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).ok()?;
    let (changes, behind) = rest.split_at_checked(length)?;
    if head[8..] != number.to_be_bytes() {
        return None;
    }
    let crc = crc32fast::hash(&bytes[4..HEAD_BYTES + length]);
    if crc != u32::from_be_bytes([c0, c1, c2, c3]) {
        return None;
    }
    Some((Changes::read(changes)?, behind))
}
