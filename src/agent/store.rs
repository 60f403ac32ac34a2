//! What an agent keeps in its data directory: who it is, whom it belongs to, what it was told.
//!
//! Every file is written beside its place, made durable, and moved there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::config::AgentError;
use super::converge::Alloc;
use crate::model::name::AllocId;
use crate::rpc;

/// Who an agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(super) struct Identity {
    /// Random, made with the directory.
    pub(super) agent_id: u64,
    /// Of the cluster it belongs to; 0 before it has been in one.
    #[serde(default)]
    pub(super) cluster_id: u64,
    /// The highest term it has taken orders from.
    #[serde(default)]
    pub(super) term: u64,
    /// gRPC addresses of the servers it has learnt.
    #[serde(default)]
    pub(super) servers: Vec<String>,
}

/// The data directory, held by this process alone.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    _lock: File,
}

impl Store {
    /// Takes the directory, made if need be.
    ///
    /// # Errors
    /// If another process has it, or it can't be used.
    pub(super) fn open(dir: &Path) -> Result<Self, AgentError> {
        let path = dir.join("allocs");
        fs::create_dir_all(&path).map_err(io_error("cannot make", &path))?;
        let path = dir.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("cannot open", &path))?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(AgentError::InUse(dir.to_owned())),
            Err(error) => Err(io_error("cannot lock", &path)(error.into())),
        }
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Who this agent is; `fresh` is its id if the directory is new.
    ///
    /// # Errors
    /// If the file can't be read, makes no sense, or can't be written.
    pub(super) fn identity(&self, fresh: impl FnOnce() -> u64) -> Result<Identity, AgentError> {
        let path = self.dir.join("identity.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| AgentError::Damaged { path, why: error.to_string() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Identity { agent_id: fresh(), ..Identity::default() };
                self.save_identity(&identity)?;
                Ok(identity)
            }
            Err(error) => Err(io_error("cannot read", &path)(error)),
        }
    }

    /// Keeps who this agent is.
    ///
    /// # Errors
    /// If it can't be written.
    pub(super) fn save_identity(&self, identity: &Identity) -> Result<(), AgentError> {
        let path = self.dir.join("identity.json");
        let bytes = serde_json::to_vec_pretty(identity)
            .map_err(|error| AgentError::Damaged { path: path.clone(), why: error.to_string() })?;
        replace(&path, &bytes).map_err(io_error("cannot write", &path))
    }

    /// The allocations that were kept. A file that makes no sense is put aside, with a warning:
    /// the leader says what is to run anyway.
    ///
    /// # Errors
    /// If the directory can't be read.
    pub(super) fn allocs(&self) -> Result<BTreeMap<AllocId, Alloc>, AgentError> {
        let dir = self.dir.join("allocs");
        let mut allocs = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(io_error("cannot read", &dir))? {
            let path = entry.map_err(io_error("cannot read", &dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(".new") {
                // Half written when the agent was killed.
                let _ = fs::remove_file(&path);
                continue;
            }
            let Ok(id) = name.parse::<AllocId>() else { continue };
            let bytes = fs::read(&path).map_err(io_error("cannot read", &path))?;
            match rpc::unpack::<Alloc>(&bytes) {
                Ok(alloc) if alloc.assignment.id == id => {
                    allocs.insert(id, alloc);
                }
                Ok(_) => put_aside(&path, "it is about another allocation"),
                Err(error) => put_aside(&path, &error.to_string()),
            }
        }
        Ok(allocs)
    }

    /// Where an allocation is kept.
    pub(super) fn alloc_path(&self, id: AllocId) -> PathBuf {
        self.dir.join("allocs").join(id.to_string())
    }
}

fn put_aside(path: &Path, why: &str) {
    tracing::warn!(path = %path.display(), why, "a kept allocation is damaged; put aside");
    let _ = fs::rename(path, path.with_extension("damaged"));
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    let path = path.to_owned();
    move |source| AgentError::DataDir { what, path, source }
}

/// Writes a file as a whole or not at all.
///
/// # Errors
/// If it can't be written.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file =
        File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&new, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// An allocation to be written, or removed.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) id: AllocId,
    pub(super) path: PathBuf,
    /// None if nothing is left of it.
    pub(super) bytes: Option<Vec<u8>>,
}

/// One that could not be written or removed, and why.
#[derive(Debug)]
pub(super) struct Unsaved {
    pub(super) id: AllocId,
    pub(super) error: String,
}

/// Writes some allocations and removes others; for a thread that may block. Says which it could
/// not; the others are carried out all the same.
pub(super) fn save_allocs(changes: Vec<Change>) -> Vec<Unsaved> {
    let mut unsaved = Vec::new();
    for Change { id, path, bytes } in changes {
        let done = match bytes {
            Some(bytes) => replace(&path, &bytes),
            None => match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        if let Err(error) = done {
            unsaved.push(Unsaved { id, error: format!("{}: {error}", path.display()) });
        }
    }
    unsaved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_belongs_to_one_agent() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(matches!(Store::open(dir.path()), Err(AgentError::InUse(_))));
        let first = store.identity(|| 7).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.identity(|| 8).unwrap(), first);
    }

    #[test]
    fn what_cannot_be_written_is_named_and_the_rest_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let change = |id: u64| Change {
            id: AllocId(id),
            path: store.alloc_path(AllocId(id)),
            bytes: Some(b"x".to_vec()),
        };
        // A directory is in the way.
        fs::create_dir(store.alloc_path(AllocId(1)).with_extension("new")).unwrap();
        let unsaved = save_allocs(vec![change(1), change(2)]);
        assert_eq!(unsaved.iter().map(|one| one.id).collect::<Vec<_>>(), [AllocId(1)]);
        assert!(store.alloc_path(AllocId(2)).exists());
        fs::remove_dir(store.alloc_path(AllocId(1)).with_extension("new")).unwrap();
        assert!(save_allocs(vec![change(1)]).is_empty());
    }

    #[test]
    fn damage_is_told_or_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs::write(store.alloc_path(AllocId(3)), b"junk").unwrap();
        assert!(store.allocs().unwrap().is_empty());
        assert!(!store.alloc_path(AllocId(3)).exists());
        fs::write(dir.path().join("identity.json"), b"{").unwrap();
        assert!(matches!(store.identity(|| 8), Err(AgentError::Damaged { .. })));
    }
}
