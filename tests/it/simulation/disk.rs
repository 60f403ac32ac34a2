//! Disks that lose what was not synced.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orch::clock;
use orch::consensus::directory::{Directory, DurableWrite};
use orch::consensus::log_disk::{Loaded, LogDisk, LogJob, LogOp};
use orch::consensus::types::{Entry, LogId, Vote};
use orch::consensus::virtual_time;
use tokio::sync::mpsc;

/// What a server's disk holds whatever happens.
#[derive(Debug, Clone, Default)]
pub struct Platter {
    vote: Option<Vote>,
    committed: Option<LogId>,
    last_purged: Option<LogId>,
    entries: Vec<Entry>,
    files: BTreeMap<String, File>,
    /// Counts up with each crash: what was begun before it never ends.
    pub life: u64,
}

#[derive(Debug, Clone, Default)]
struct File {
    bytes: Vec<u8>,
    synced: usize,
}

/// A server's disk; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Disk(pub Arc<Mutex<Platter>>);

/// A disk in one life of its server.
#[derive(Debug, Clone)]
pub struct Mounted {
    disk: Disk,
    life: u64,
}

fn below(bound: u64) -> u64 {
    clock::random() % bound
}

impl Disk {
    pub fn mount(&self) -> Mounted {
        Mounted { disk: self.clone(), life: self.0.lock().unwrap().life }
    }

    pub fn load(&self) -> Loaded {
        let platter = self.0.lock().unwrap();
        Loaded {
            vote: platter.vote,
            committed: platter.committed,
            last_purged: platter.last_purged,
            entries: platter.entries.clone(),
        }
    }

    /// The power goes: files lose what was not synced, or some of it.
    pub fn crash(&self) {
        let mut platter = self.0.lock().unwrap();
        platter.life += 1;
        for file in platter.files.values_mut() {
            let unsynced = (file.bytes.len() - file.synced) as u64;
            let kept = file.synced + below(unsynced + 1) as usize;
            file.bytes.truncate(kept);
        }
    }
}

impl Platter {
    fn carry_out(&mut self, op: LogOp) {
        match op {
            LogOp::Append { entries, committed } => {
                self.committed = committed.or(self.committed);
                if let (Some(last), Some(first)) = (self.entries.last(), entries.first()) {
                    assert_eq!(last.log_id.index + 1, first.log_id.index, "no hole");
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
            LogOp::SaveIdentity(_) | LogOp::Close => {}
        }
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
                // Now and then a disk takes its time.
                let takes = if below(40) == 0 { 20 + below(300) } else { 1 + below(4) };
                virtual_time::sleep(Duration::from_millis(takes)).await;
                let mut platter = self.disk.0.lock().unwrap();
                if platter.life != self.life {
                    // It crashed within the write: some of it is there, in order.
                    if platter.life == self.life + 1 {
                        let kept = below(group.len() as u64 + 1) as usize;
                        group.truncate(kept);
                        group.into_iter().for_each(|job| platter.carry_out(job.op));
                    }
                    return;
                }
                let mut waiting = Vec::new();
                for job in group {
                    platter.carry_out(job.op);
                    waiting.push(job.done);
                }
                drop(platter);
                waiting.into_iter().for_each(|done| done.complete(Ok(())));
            }
        });
    }
}

impl Mounted {
    fn files<T>(
        &self,
        work: impl FnOnce(&mut BTreeMap<String, File>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut platter = self.disk.0.lock().unwrap();
        if platter.life != self.life {
            return Err(io::Error::other("this server has crashed"));
        }
        work(&mut platter.files)
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Directory for Mounted {
    fn create(&self, name: &str) -> io::Result<Box<dyn DurableWrite>> {
        self.files(|files| {
            files.insert(name.to_owned(), File::default());
            Ok(())
        })?;
        Ok(Box::new(Writing { disk: self.clone(), name: name.to_owned() }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.files(|files| Ok(files.get(name).ok_or_else(missing)?.bytes.clone()))?;
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files(|files| {
            let file = files.remove(from).ok_or_else(missing)?;
            files.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files(|files| files.remove(name).map(|_| ()).ok_or_else(missing))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files(|files| Ok(files.keys().cloned().collect()))
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }
}

struct Writing {
    disk: Mounted,
    name: String,
}

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.files(|files| {
            files.get_mut(&self.name).ok_or_else(missing)?.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DurableWrite for Writing {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.files(|files| {
            let file = files.get_mut(&self.name).ok_or_else(missing)?;
            file.synced = file.bytes.len();
            Ok(())
        })
    }
}
