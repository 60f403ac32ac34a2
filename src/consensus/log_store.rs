//! The log, the vote and a server's identity on sled: the only place that names it.
//!
//! One record a group commit, not one an entry. Entries are durable once the [`journal`] has them,
//! which is synced each time; sled has them a moment later. Before the journal begins anew, sled is
//! flushed *and* a second descriptor of its file is synced: sled's own flush does not outlive a
//! loss of power. Start at [`LogStore::open`].

mod changes;
mod end_mark;
mod frame;
mod journal;
mod open;
mod spacers;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tokio::sync::mpsc;

use self::frame::{FrameWriter, read_frame};
pub use self::open::Opened;
use self::writer::Writer;
use super::log_disk::{LogDisk, LogJob};
use crate::state::codec;

/// Names of the trees.
const LOG: &str = "log";
const META: &str = "meta";
/// Keys of the tree `META`.
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const IDENTITY: &str = "identity";
/// The number of the last sync.
const SYNCED: &str = "synced";
/// A frame's bytes are cut into records of this size, each under (first index, part): a leaf of
/// sled's tree, which has up to 17 of them, must stay below a quarter of a segment. A larger one
/// would be a sled "blob", a file of its own that sled neither syncs nor always removes.
const PART_BYTES: usize = 96 << 10;

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogOpenError {
    /// Another process has it.
    #[error(
        "{dir} is in use by another process; is this server running already? \
         Stop it, or give this one another --data-dir"
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The file system failed.
    #[error("{dir}: {error}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// What is there can't be trusted.
    #[error(
        "the log in {dir} is damaged: {what}. Nothing was changed. To go on without this copy, \
         take the server out of the cluster (`orch server remove NAME` on another server), empty \
         its data directory, and start it with --join; if it was the only server, restore a saved \
         snapshot into a new one (`orch snapshot restore FILE`)"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by a newer release.
    #[error(
        "{dir} has format {format}, and this release knows formats up to {known}: start the server \
         with the release that wrote it, or a newer one"
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        format: u32,
        /// The newest one that can be read.
        known: u32,
    },
}

/// An open log directory.
pub struct LogStore {
    writer: Writer,
}

impl LogDisk for LogStore {
    fn serve(self: Box<Self>, queue: mpsc::Receiver<LogJob>) {
        let name = "log-writer".to_owned();
        let spawned =
            std::thread::Builder::new().name(name).spawn(move || self.writer.serve(queue));
        if let Err(error) = spawned {
            // The queue is dropped with the closure: every change fails from now on.
            tracing::error!(%error, "the log's thread can't be started");
        }
    }
}

/// A second descriptor of sled's file.
#[derive(Debug, Clone)]
struct SyncHandle(std::sync::Arc<File>);

impl SyncHandle {
    fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self(std::sync::Arc::new(File::options().read(true).write(true).open(dir.join("db"))?)))
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// The bytes of a value of the tree `META`: its checksum, then MessagePack.
fn sealed<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let body = codec::to_bytes(value).map_err(io::Error::other)?;
    let mut bytes = crc32fast::hash(&body).to_be_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn unsealed<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (crc, body) = bytes.split_first_chunk()?;
    if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
        return None;
    }
    codec::from_bytes(body).ok()
}

/// The key of a part of the frame that begins at `first`.
fn key(first: u64, part: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&first.to_be_bytes());
    key[8..].copy_from_slice(&part.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(u64, u16)> {
    let (first, part) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*first), u16::from_be_bytes(part.try_into().ok()?)))
}
