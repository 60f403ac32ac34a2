//! Empty records between the frames, so that sled writes each frame once.
//!
//! A leaf of sled's tree splits when it has more than 16 records, whatever their size, and is
//! written anew with all that it holds when it splits and after every tenth change. Were frames
//! its only records, each would be written about four times more. With spacers ahead of the log's
//! end, leaves split while they are empty, and a frame is nearly alone in its own.

use std::collections::BTreeSet;
use std::io;

use super::key;
use super::writer::to_io;

/// The records of an index have these places behind the parts of its frame.
const FIRST_PART: u16 = u16::MAX - 3;
/// Bytes of a frame from which on being written again costs more than the spacers do.
const LARGE_FRAME_BYTES: usize = 8 << 10;
/// Indexes for which they are made ahead of the log's end.
const AHEAD: u64 = 32;
/// Indexes for which they are made in one step.
const STEP: usize = 8;

/// Whether a record of that place is a spacer.
pub(super) fn is_spacer(part: u16) -> bool {
    part >= FIRST_PART
}

/// Where spacers are, and up to where they are wanted.
#[derive(Debug, Default)]
pub(super) struct Spacers {
    indexes: BTreeSet<u64>,
    wanted: u64,
}

impl Spacers {
    /// Those that were found.
    pub(super) fn found(indexes: BTreeSet<u64>) -> Self {
        Self { indexes, wanted: 0 }
    }

    /// A frame of so many bytes was written, and the next begins at `next`.
    pub(super) fn note(&mut self, frame_bytes: usize, next: u64) {
        if frame_bytes >= LARGE_FRAME_BYTES {
            self.wanted = self.wanted.max(next + AHEAD);
        }
    }

    /// Makes some of those that are wanted from `next` on. They need not be durable.
    pub(super) fn step(&mut self, log: &sled::Tree, next: u64) -> io::Result<()> {
        let missing = (next..self.wanted).filter(|index| !self.indexes.contains(index));
        let missing: Vec<u64> = missing.take(STEP).collect();
        for index in missing {
            for part in FIRST_PART..=u16::MAX {
                log.insert(key(index, part), &[]).map_err(to_io)?;
            }
            self.indexes.insert(index);
        }
        Ok(())
    }

    /// Adds the removal of some up to `upto` to `records`; whether that were all.
    pub(super) fn purge(&mut self, upto: u64, most: usize, records: &mut sled::Batch) -> bool {
        for _ in 0..most {
            match self.indexes.first() {
                Some(index) if *index <= upto => {
                    for part in FIRST_PART..=u16::MAX {
                        records.remove(&key(*index, part));
                    }
                    self.indexes.pop_first();
                }
                _ => return true,
            }
        }
        false
    }
}
