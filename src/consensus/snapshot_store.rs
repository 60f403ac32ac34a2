//! Snapshot files: a head with Raft's metadata, then the state in blocks, each with its
//! checksum. A file is written under another name, synced, and then renamed into place.
//!
//! `ORCHSNPF | version u32 | head length u32 | head crc32 u32 | head | (length u32 | crc32 u32 |
//! bytes)* | 0 u32 | body length u64`, numbers big-endian; the head is MessagePack of
//! [`SnapshotMeta`]. A snapshot that travels has the same body and is written anew.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::directory::{Directory, DurableWrite};
use super::types::SnapshotMeta;
use crate::limits::SNAPSHOT_BLOCK_BYTES;
use crate::state::{State, codec, snapshot};

const MAGIC: &[u8; 8] = b"ORCHSNPF";
const VERSION: u32 = 1;
const HEAD_BYTES_MAX: usize = 1 << 20;
const SUFFIX: &str = ".snapshot";
const UNFINISHED: &str = ".tmp";

/// The snapshots of one server; clones are the same ones.
#[derive(Debug, Clone)]
pub struct SnapshotStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: Arc<dyn Directory>,
    current: Mutex<Option<(SnapshotMeta, String)>>,
    counter: AtomicU64,
}

/// A snapshot's body: a file in the store, in place or not yet.
#[derive(Debug, Clone)]
pub struct SnapshotData {
    store: SnapshotStore,
    name: String,
    /// Held while it is not in place.
    unfinished: Option<Arc<Unfinished>>,
}

/// The file of a snapshot that may never come to its end: it goes with the last who holds it. Once
/// it is in place its name is another, and there is nothing to remove.
#[derive(Debug)]
struct Unfinished {
    directory: Arc<dyn Directory>,
    name: String,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let _ = self.directory.remove(&self.name);
    }
}

impl SnapshotStore {
    /// The snapshots in `directory`: the newest one is kept, what was left unfinished is removed.
    ///
    /// # Errors
    /// If the directory can't be read, or its newest snapshot is damaged.
    pub fn open(directory: Arc<dyn Directory>) -> io::Result<Self> {
        let mut current: Option<(SnapshotMeta, String)> = None;
        for name in directory.list()? {
            if name.ends_with(UNFINISHED) {
                directory.remove(&name)?;
            } else if name.ends_with(SUFFIX) {
                let meta = read_head(&mut directory.open(&name)?)
                    .map_err(|error| damaged(&*directory, &name, &error))?;
                let newer =
                    current.as_ref().is_none_or(|(known, _)| known.last_log_id < meta.last_log_id);
                let (keep, drop) = match current.take() {
                    Some(old) if newer => ((meta, name), Some(old.1)),
                    Some(old) => (old, Some(name)),
                    None => ((meta, name), None),
                };
                current = Some(keep);
                if let Some(name) = drop {
                    directory.remove(&name)?;
                }
            }
        }
        let (current, counter) = (Mutex::new(current), AtomicU64::new(0));
        Ok(Self(Arc::new(Inner { directory, current, counter })))
    }

    /// The newest snapshot.
    pub fn current(&self) -> Option<(SnapshotMeta, SnapshotData)> {
        let current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (meta, name) = current.as_ref()?;
        Some((
            meta.clone(),
            SnapshotData { store: self.clone(), name: name.clone(), unfinished: None },
        ))
    }

    /// Begins a new snapshot, which is nothing until it is finished and promoted.
    ///
    /// # Errors
    /// When the directory does.
    pub fn begin(&self, meta: &SnapshotMeta) -> io::Result<SnapshotWriter> {
        let number = self.0.counter.fetch_add(1, Ordering::Relaxed);
        let name = format!("{number}{UNFINISHED}");
        let mut file = self.0.directory.create(&name)?;
        let directory = self.0.directory.clone();
        let unfinished = Some(Arc::new(Unfinished { directory, name: name.clone() }));
        let head = codec::to_bytes(meta).map_err(io::Error::other)?;
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_be_bytes())?;
        file.write_all(&(head.len() as u32).to_be_bytes())?;
        file.write_all(&crc32fast::hash(&head).to_be_bytes())?;
        file.write_all(&head)?;
        let data = SnapshotData { store: self.clone(), name, unfinished };
        Ok(SnapshotWriter { file, block: Vec::new(), length: 0, data })
    }

    /// Writes `state` and makes it the current snapshot. Blocks.
    ///
    /// # Errors
    /// When the directory does.
    pub fn save(&self, meta: &SnapshotMeta, state: &State) -> io::Result<SnapshotData> {
        let mut writer = self.begin(meta)?;
        snapshot::write(state, &mut writer).map_err(io::Error::other)?;
        let data = writer.finish()?;
        self.promote(meta, data)
    }

    /// Makes a finished snapshot the current one, unless that is newer, and removes the old one.
    ///
    /// # Errors
    /// When the directory does.
    pub fn promote(&self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<SnapshotData> {
        let data = if Arc::ptr_eq(&data.store.0, &self.0) {
            data
        } else {
            // Another server's, where no network lies between.
            let mut writer = self.begin(meta)?;
            io::copy(&mut data.body()?, &mut writer)?;
            writer.finish()?
        };
        if data.unfinished.is_none() {
            return Ok(data);
        }
        let mut current = self.0.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, name)) = &*current
            && known.last_log_id >= meta.last_log_id
        {
            return Ok(SnapshotData { store: self.clone(), name: name.clone(), unfinished: None });
        }
        let (term, index) = meta.last_log_id.map_or((0, 0), |id| (id.leader_id.term, id.index));
        let name = format!("{term:020}-{index:020}{SUFFIX}");
        self.0.directory.rename(&data.name, &name)?;
        if let Some((_, old)) = current.replace((meta.clone(), name.clone()))
            && old != name
        {
            self.0.directory.remove(&old)?;
        }
        Ok(SnapshotData { store: self.clone(), name, unfinished: None })
    }
}

impl SnapshotData {
    /// The body's bytes, each block checked before it is handed out.
    ///
    /// # Errors
    /// If the file is gone or its head damaged.
    pub fn body(&self) -> io::Result<SnapshotBody> {
        let directory = &*self.store.0.directory;
        let mut file = directory.open(&self.name)?;
        read_head(&mut file).map_err(|error| damaged(directory, &self.name, &error))?;
        let described = directory.describe(&self.name);
        Ok(SnapshotBody { file, block: Vec::new(), at: 0, length: 0, ended: false, described })
    }

    /// The whole state. Blocks.
    ///
    /// # Errors
    /// If the file is gone or damaged.
    pub fn state(&self) -> io::Result<State> {
        let mut body = self.body()?;
        let directory = &*self.store.0.directory;
        let state =
            snapshot::read(&mut body).map_err(|error| damaged(directory, &self.name, &error))?;
        match body.read(&mut [0]) {
            Ok(0) => Ok(state),
            Ok(_) => Err(damaged(directory, &self.name, &"there are bytes behind its end")),
            Err(error) => Err(damaged(directory, &self.name, &error)),
        }
    }
}

fn damaged(directory: &dyn Directory, name: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "the snapshot {} can't be read: {error}. Take the server out of the cluster \
             (`orch server remove NAME` on another server), empty its data directory, and start \
             it with --join",
            directory.describe(name)
        ),
    )
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn read_u32(file: &mut dyn Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    file.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn read_head(file: &mut dyn Read) -> io::Result<SnapshotMeta> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Err(invalid("it does not begin as a snapshot file does"));
    }
    let version = read_u32(file)?;
    if version != VERSION {
        return Err(invalid(&format!("format {version} is newer than this release knows")));
    }
    let length = read_u32(file)? as usize;
    if length > HEAD_BYTES_MAX {
        return Err(invalid("its head is too long"));
    }
    let crc = read_u32(file)?;
    let mut head = vec![0; length];
    file.read_exact(&mut head)?;
    if crc32fast::hash(&head) != crc {
        return Err(invalid("the checksum of its head does not fit"));
    }
    codec::from_bytes(&head).map_err(|error| invalid(&error.to_string()))
}

/// A snapshot that is being written.
pub struct SnapshotWriter {
    file: Box<dyn DurableWrite>,
    block: Vec<u8>,
    length: u64,
    data: SnapshotData,
}

impl SnapshotWriter {
    fn put_block(&mut self) -> io::Result<()> {
        if !self.block.is_empty() {
            self.file.write_all(&(self.block.len() as u32).to_be_bytes())?;
            self.file.write_all(&crc32fast::hash(&self.block).to_be_bytes())?;
            self.file.write_all(&self.block)?;
            self.length += self.block.len() as u64;
            self.block.clear();
        }
        Ok(())
    }

    /// Makes it durable.
    ///
    /// # Errors
    /// When the directory does.
    pub fn finish(mut self) -> io::Result<SnapshotData> {
        self.put_block()?;
        self.file.write_all(&0u32.to_be_bytes())?;
        self.file.write_all(&self.length.to_be_bytes())?;
        self.file.sync()?;
        Ok(self.data)
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(SNAPSHOT_BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..taken]);
        if self.block.len() == SNAPSHOT_BLOCK_BYTES {
            self.put_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a snapshot's body.
pub struct SnapshotBody {
    file: Box<dyn Read + Send>,
    block: Vec<u8>,
    at: usize,
    length: u64,
    ended: bool,
    described: String,
}

impl SnapshotBody {
    fn next_block(&mut self) -> io::Result<()> {
        let length = read_u32(&mut *self.file)? as usize;
        if length == 0 {
            let mut total = [0; 8];
            self.file.read_exact(&mut total)?;
            self.ended = true;
            if u64::from_be_bytes(total) != self.length {
                return Err(invalid("blocks are missing"));
            }
            return Ok(());
        }
        if length > SNAPSHOT_BLOCK_BYTES {
            return Err(invalid("a block is too long"));
        }
        let crc = read_u32(&mut *self.file)?;
        self.block.resize(length, 0);
        self.file.read_exact(&mut self.block)?;
        if crc32fast::hash(&self.block) != crc {
            return Err(invalid("the checksum of a block does not fit"));
        }
        (self.at, self.length) = (0, self.length + length as u64);
        Ok(())
    }
}

impl Read for SnapshotBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.block.len() && !self.ended {
            self.next_block().map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.described))
            })?;
            if self.ended {
                self.block.clear();
                self.at = 0;
            }
        }
        let taken = into.len().min(self.block.len() - self.at);
        into[..taken].copy_from_slice(&self.block[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}
