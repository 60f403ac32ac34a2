//! Disks that keep what was synced, and of the rest what they like; that take their time, and run
//! full.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use orch::clock;
use orch::consensus::Storage;
use orch::consensus::directory::{Directory, DurableWrite};
use orch::consensus::log_disk::{Identity, Loaded, LogDisk, LogJob, LogOp};
use orch::consensus::types::{Entry, LogId, Vote};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::chance::below;

/// What is known of a server's disk whatever happens; clones are the same disk.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    identity: Option<Identity>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    last_purged: Option<LogId>,
    entries: Vec<Entry>,
    /// What is being written.
    writing: Vec<LogOp>,
    files: BTreeMap<String, File>,
    /// Nothing more fits.
    full: bool,
    /// The next writes take so long.
    stall: Option<Duration>,
}

#[derive(Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
}

impl Disk {
    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }

    /// What a server finds when it starts.
    pub fn open(&self) -> Storage {
        let mut platter = self.lock();
        let identity = *platter.identity.get_or_insert_with(|| Identity {
            format: 1,
            server_id: clock::random().max(1),
            cluster_id: 0,
            joining: false,
        });
        let loaded = Loaded {
            vote: platter.vote,
            committed: platter.committed,
            last_purged: platter.last_purged,
            entries: platter.entries.clone(),
        };
        let mounted = || Mounted(self.clone());
        Storage { disk: Box::new(mounted()), loaded, identity, directory: Arc::new(mounted()) }
    }

    /// The process ends. What it wrote stays, unless the power goes too.
    pub fn crash(&self, power: bool) {
        let mut platter = self.lock();
        // Of a write that was under way some is there, in its order.
        let mut writing = std::mem::take(&mut platter.writing);
        let kept = below(writing.len() as u64 + 1) as usize;
        writing.truncate(kept);
        writing.into_iter().for_each(|op| platter.carry_out(op));
        if power {
            for file in platter.files.values_mut() {
                let unsynced = (file.bytes.len() - file.synced) as u64;
                let kept = file.synced + below(unsynced + 1) as usize;
                file.bytes.truncate(kept);
            }
        }
    }

    /// From here on nothing fits.
    pub fn fill(&self) {
        self.lock().full = true;
    }

    /// There is room again.
    pub fn clear(&self) {
        self.lock().full = false;
    }

    /// The next write takes so long.
    pub fn stall(&self, length: Duration) {
        self.lock().stall = Some(length);
    }
}

impl Platter {
    fn carry_out(&mut self, op: LogOp) {
        match op {
            LogOp::Append { entries, committed } => {
                self.committed = committed.or(self.committed);
                if let (Some(last), Some(first)) = (self.entries.last(), entries.first()) {
                    assert_eq!(last.log_id.index + 1, first.log_id.index, "the log has a hole");
                }
                self.entries.extend(entries);
            }
            LogOp::TruncateFrom(index) => self.entries.retain(|entry| entry.log_id.index < index),
            LogOp::Purge(id) => {
                self.entries.retain(|entry| entry.log_id.index > id.index);
                self.last_purged = Some(id);
            }
            LogOp::SaveVote(vote) => self.vote = Some(vote),
            LogOp::Committed(id) => self.committed = Some(id),
            LogOp::SaveIdentity(identity) => self.identity = Some(identity),
            LogOp::Close => {}
        }
    }
}

/// A disk as a running server has it.
#[derive(Clone)]
struct Mounted(Disk);

impl fmt::Debug for Mounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mounted")
    }
}

impl LogDisk for Mounted {
    fn serve(self: Box<Self>, mut queue: mpsc::Receiver<LogJob>) {
        tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                let mut group = vec![first];
                while let Ok(job) = queue.try_recv() {
                    group.push(job);
                }
                let (mut ops, mut waiting) = (Vec::new(), Vec::new());
                for LogJob { op, done } in group {
                    ops.push(op);
                    waiting.push(done);
                }
                let (takes, full) = {
                    let mut platter = self.0.lock();
                    let usual = if below(40) == 0 { 20 + below(100) } else { below(4) };
                    let takes = platter.stall.take().unwrap_or(Duration::from_millis(usual));
                    let full =
                        platter.full && ops.iter().any(|op| matches!(op, LogOp::Append { .. }));
                    if !full {
                        platter.writing = ops;
                    }
                    (takes, full)
                };
                if full {
                    let error = || io::Error::from(ErrorKind::StorageFull);
                    waiting.into_iter().for_each(|done| done.complete(Err(error())));
                    continue;
                }
                sleep(takes).await;
                {
                    let mut platter = self.0.lock();
                    let ops = std::mem::take(&mut platter.writing);
                    ops.into_iter().for_each(|op| platter.carry_out(op));
                }
                waiting.into_iter().for_each(|done| done.complete(Ok(())));
            }
        });
    }
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Directory for Mounted {
    fn create(&self, name: &str) -> io::Result<Box<dyn DurableWrite>> {
        let mut platter = self.0.lock();
        if platter.full {
            return Err(ErrorKind::StorageFull.into());
        }
        platter.files.insert(name.to_owned(), File::default());
        Ok(Box::new(Writing { disk: self.0.clone(), name: name.to_owned() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.0.lock().files.get(name).ok_or_else(missing)?.bytes.clone();
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.0.lock();
        let file = platter.files.remove(from).ok_or_else(missing)?;
        platter.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().files.remove(name).map(|_| ()).ok_or_else(missing)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().files.keys().cloned().collect())
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

struct Writing {
    disk: Disk,
    name: String,
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut platter = self.disk.lock();
        if platter.full {
            return Err(ErrorKind::StorageFull.into());
        }
        let file = platter.files.get_mut(&self.name).ok_or_else(missing)?;
        file.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DurableWrite for Writing {
    fn sync(&mut self) -> io::Result<()> {
        let mut platter = self.disk.lock();
        let file = platter.files.get_mut(&self.name).ok_or_else(missing)?;
        file.synced = file.bytes.len();
        Ok(())
    }
}
