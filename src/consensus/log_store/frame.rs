//! The bytes of a frame: entries that became durable together.
//!
//! `magic u32 | version u8 | entries u32 | crc32 u32 | (term u64 | index u64 | kind u8 | length
//! u32 | payload)*`, numbers big-endian, the checksum over everything behind it. A membership is
//! MessagePack with field names; a batch is as `state::codec` wrote it.

use bytes::Bytes;

use crate::consensus::types::{Batch, Entry, LogId, Membership, Payload};
use crate::limits::{ENTRY_BYTES_MAX, LOG_GROUP_ENTRIES_MAX};
use crate::state::codec;

const MAGIC: u32 = 0x6f72_6c67;
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 4 + 1 + 4 + 4;
const ENTRY_HEAD_BYTES: usize = 8 + 8 + 1 + 4;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Bytes that are no frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// Written by a newer release.
    #[error("frame format {0} is newer than this release knows")]
    Version(u8),
    /// Damaged.
    #[error("{0}")]
    Damaged(&'static str),
}

/// Collects entries into a frame.
#[derive(Debug)]
pub(super) struct FrameWriter {
    bytes: Vec<u8>,
    first: u64,
    count: u32,
}

impl FrameWriter {
    /// A frame that begins with the entry at `first`.
    pub(super) fn new(first: u64) -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.resize(HEAD_BYTES, 0);
        Self { bytes, first, count: 0 }
    }

    /// Index of the first entry.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Index behind the last entry.
    pub(super) fn next(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds the next entry.
    ///
    /// # Errors
    /// If it can't be encoded, which no entry of ours is.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<(), codec::CodecError> {
        self.bytes.extend_from_slice(&entry.log_id.leader_id.term.to_be_bytes());
        self.bytes.extend_from_slice(&entry.log_id.index.to_be_bytes());
        match &entry.payload {
            Payload::Blank => self.put(BLANK, &[]),
            Payload::Normal(batch) => self.put(NORMAL, &batch.0),
            Payload::Membership(membership) => {
                let bytes = codec::to_bytes(membership)?;
                self.put(MEMBERSHIP, &bytes);
            }
        }
        self.count += 1;
        Ok(())
    }

    fn put(&mut self, kind: u8, payload: &[u8]) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(payload);
    }

    /// The frame's bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let crc = crc32fast::hash(&self.bytes[HEAD_BYTES..]);
        self.bytes[..4].copy_from_slice(&MAGIC.to_be_bytes());
        self.bytes[4] = VERSION;
        self.bytes[5..9].copy_from_slice(&self.count.to_be_bytes());
        self.bytes[9..HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
        self.bytes
    }
}

/// The entries of a frame.
///
/// # Errors
/// If the bytes are no frame, or a damaged one.
pub(super) fn read_frame(frame: &Bytes) -> Result<Vec<Entry>, FrameError> {
    let damaged = FrameError::Damaged;
    let head: &[u8; HEAD_BYTES] =
        frame.first_chunk().ok_or(damaged("it is shorter than a frame's head"))?;
    let number =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if number(0) != MAGIC {
        return Err(damaged("it does not begin as a frame does"));
    }
    if head[4] != VERSION {
        return Err(FrameError::Version(head[4]));
    }
    let mut rest = frame.slice(HEAD_BYTES..);
    if crc32fast::hash(&rest) != number(9) {
        return Err(damaged("its checksum does not fit"));
    }
    let count = number(5) as usize;
    if count > LOG_GROUP_ENTRIES_MAX {
        return Err(damaged("it claims too many entries"));
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let head: &[u8; ENTRY_HEAD_BYTES] =
            rest.first_chunk().ok_or(damaged("it ends within an entry's head"))?;
        let mut eight = [0; 8];
        eight.copy_from_slice(&head[..8]);
        let term = u64::from_be_bytes(eight);
        eight.copy_from_slice(&head[8..16]);
        let index = u64::from_be_bytes(eight);
        let kind = head[16];
        let length = u32::from_be_bytes([head[17], head[18], head[19], head[20]]) as usize;
        let end = ENTRY_HEAD_BYTES + length;
        if length > ENTRY_BYTES_MAX + 64 || rest.len() < end {
            return Err(damaged("it ends within an entry"));
        }
        let payload = rest.slice(ENTRY_HEAD_BYTES..end);
        let payload = match kind {
            BLANK => Payload::Blank,
            // Its own copy: a slice would keep the whole frame in memory.
            NORMAL => Payload::Normal(Batch(Bytes::copy_from_slice(&payload))),
            MEMBERSHIP => Payload::Membership(
                codec::from_bytes::<Membership>(&payload)
                    .map_err(|_| damaged("a membership in it can't be read"))?,
            ),
            _ => return Err(damaged("an entry in it is of no known kind")),
        };
        entries.push(Entry { log_id: LogId::new_term_index(term, index), payload });
        rest = rest.slice(end..);
    }
    if !rest.is_empty() {
        return Err(damaged("there are bytes behind its last entry"));
    }
    Ok(entries)
}
