//! Opening a log directory: the lock, every checksum, no hole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::changes::Changes;
use super::end_mark::EndMark;
use super::journal::Journal;
use super::spacers::{self, Spacers};
use super::writer::{FrameInfo, Records, Syncs, Writer};
use super::{
    COMMITTED, IDENTITY, LOG, LogOpenError, LogStore, META, PURGED, SYNCED, SyncHandle, VOTE,
    parse_key, read_frame, sealed, unsealed,
};
use crate::consensus::log_disk::{Identity, Loaded};
use crate::consensus::types::LogId;
use crate::observe::metrics::Metrics;

/// Of a directory; 2: with spacers and a journal, which a release that knows only 1 would take for damage.
pub(super) const FORMAT: u32 = 2;
/// How long a directory may be locked by someone who is about to let go of it.
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(50);

/// What opening a directory brings.
pub struct Opened {
    /// To serve a log's changes.
    pub store: LogStore,
    /// What the directory held.
    pub loaded: Loaded,
    /// Who the server is.
    pub identity: Identity,
}

impl LogStore {
    /// Opens the log in `dir`, and makes it if there is none; a new server is to be `new_id`.
    /// Blocks for as long as reading the log takes.
    ///
    /// # Errors
    /// See [`LogOpenError`].
    pub fn open(dir: &Path, new_id: u64, metrics: Metrics) -> Result<Opened, LogOpenError> {
        let io_error = |error| LogOpenError::Io { dir: dir.to_owned(), error };
        let damaged = |what: String| LogOpenError::Damaged { dir: dir.to_owned(), what };
        std::fs::create_dir_all(dir).map_err(io_error)?;
        let db = open_db(dir)?;
        let log = db.open_tree(LOG).map_err(|error| damaged(error.to_string()))?;
        let meta = db.open_tree(META).map_err(|error| damaged(error.to_string()))?;
        check_blobs(dir).map_err(|what| damaged(what.to_owned()))?;
        let sync = SyncHandle::open(dir).map_err(io_error)?;
        let (mark, noted) = EndMark::open(dir).map_err(io_error)?;
        let of_sled = get(&meta, SYNCED).map_err(damaged)?.unwrap_or(0);
        let (journal, found) = Journal::open(dir, of_sled).map_err(io_error)?;
        let synced = of_sled + found.len() as u64;
        if synced < noted {
            return Err(damaged(format!(
                "of its writes, the last {} are missing at its end",
                noted - synced
            )));
        }

        let newer = |identity: &Identity| match identity.format {
            format if format > FORMAT => {
                Err(LogOpenError::Newer { dir: dir.to_owned(), format, known: FORMAT })
            }
            _ => Ok(()),
        };
        let identity: Option<Identity> = get(&meta, IDENTITY).map_err(damaged)?;
        identity.as_ref().map_or(Ok(()), newer)?;
        if !found.is_empty() {
            hand_over(found, synced, &log, &meta).map_err(damaged)?;
            db.flush().map_err(|error| damaged(error.to_string()))?;
            sync.sync().map_err(io_error)?;
        }
        let identity = match get(&meta, IDENTITY).map_err(damaged)? {
            Some(identity) => {
                newer(&identity)?;
                identity
            }
            None if !log.is_empty() => return Err(damaged("its identity is missing".to_owned())),
            None => {
                let identity =
                    Identity { format: FORMAT, server_id: new_id, cluster_id: 0, joining: false };
                create(dir, &meta, &sync, &identity).map_err(io_error)?;
                identity
            }
        };
        // From here on it gets what a release that knows only the earlier format can't read.
        let identity = match identity.format {
            FORMAT => identity,
            _ => {
                let identity = Identity { format: FORMAT, ..identity };
                create(dir, &meta, &sync, &identity).map_err(io_error)?;
                identity
            }
        };
        let mut loaded = Loaded {
            vote: get(&meta, VOTE).map_err(damaged)?,
            committed: get(&meta, COMMITTED).map_err(damaged)?,
            last_purged: get(&meta, PURGED).map_err(damaged)?,
            entries: Vec::new(),
        };
        let records = load_records(&log, &mut loaded).map_err(damaged)?;
        let syncs = Syncs { handle: sync, journal, mark, number: synced };
        let writer = Writer::new(db, log, meta, syncs, records, dir.to_owned(), metrics);
        Ok(Opened { store: LogStore { writer }, loaded, identity })
    }
}

/// Waits a little for a lock: a process that is just ending, and sled's own threads after a close,
/// let go of it a moment late.
pub(super) fn open_db(dir: &Path) -> Result<sled::Db, LogOpenError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match try_open_db(dir) {
            Err(LogOpenError::Locked { .. }) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_RETRY);
            }
            opened => return opened,
        }
    }
}

/// sled panics on some kinds of damage: that must not take the process down unexplained.
fn try_open_db(dir: &Path) -> Result<sled::Db, LogOpenError> {
    let owned: PathBuf = dir.to_owned();
    let opened = std::thread::spawn(move || {
        sled::Config::new()
            .path(owned)
            .segment_size(8 << 20)
            .cache_capacity(32 << 20)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(Some(500))
            .use_compression(false)
            .open()
    })
    .join();
    let damaged = |what: String| LogOpenError::Damaged { dir: dir.to_owned(), what };
    match opened {
        Ok(Ok(db)) => Ok(db),
        // sled says so only in words.
        Ok(Err(sled::Error::Io(error)))
            if error.kind() == io::ErrorKind::WouldBlock
                || error.to_string().contains("could not acquire lock") =>
        {
            Err(LogOpenError::Locked { dir: dir.to_owned() })
        }
        Ok(Err(sled::Error::Io(error))) => Err(LogOpenError::Io { dir: dir.to_owned(), error }),
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("sled panicked");
            Err(damaged(format!("the store can't be opened: {what}")))
        }
    }
}

/// A directory of this format: not only its contents, its names too must outlive a loss of power.
fn create(dir: &Path, meta: &sled::Tree, sync: &SyncHandle, identity: &Identity) -> io::Result<()> {
    meta.insert(IDENTITY, sealed(identity)?).map_err(io::Error::other)?;
    meta.flush().map_err(io::Error::other)?;
    sync.sync()?;
    File::open(dir.join("conf"))?.sync_all()?;
    for ancestor in dir.ancestors().take(3).filter(|path| !path.as_os_str().is_empty()) {
        File::open(ancestor)?.sync_all()?;
    }
    Ok(())
}

/// Gives sled what only the journal has, and the number of the last sync with it. All of it is
/// carried out again, in order, whatever sled has of it: that leads to the same.
fn hand_over(
    found: Vec<Changes>,
    synced: u64,
    log: &sled::Tree,
    meta: &sled::Tree,
) -> Result<(), String> {
    let words = |error: sled::Error| error.to_string();
    let purged: Option<LogId> = get(meta, PURGED)?;
    for changes in found {
        changes.carry_out(log, meta).map_err(words)?;
    }
    // Frames are purged in sled alone, which may be further with it.
    if let Some(purged) = purged
        && get::<LogId>(meta, PURGED)?.is_none_or(|again| again.index < purged.index)
    {
        put(meta, PURGED, &purged)?;
    }
    put(meta, SYNCED, &synced)
}

fn put<T: serde::Serialize>(meta: &sled::Tree, name: &str, value: &T) -> Result<(), String> {
    let bytes = sealed(value).map_err(|error| error.to_string())?;
    meta.insert(name, bytes).map(|_| ()).map_err(|error| error.to_string())
}

fn get<T: serde::de::DeserializeOwned>(meta: &sled::Tree, name: &str) -> Result<Option<T>, String> {
    match meta.get(name).map_err(|error| error.to_string())? {
        None => Ok(None),
        Some(bytes) => match unsealed(&bytes) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("the record `{name}` can't be read")),
        },
    }
}

/// Values that large are never written here; sled would keep each in a file that it does not sync.
pub(super) fn check_blobs(dir: &Path) -> Result<(), &'static str> {
    let first = std::fs::read_dir(dir.join("blobs")).ok().and_then(|mut files| files.next());
    if first.is_some() { Err("its directory `blobs` is not empty") } else { Ok(()) }
}

/// Reads all frames behind the last purged entry into `loaded`, and says where they are.
fn load_records(log: &sled::Tree, loaded: &mut Loaded) -> Result<Records, String> {
    let mut frames = BTreeMap::new();
    let mut spaced = BTreeSet::new();
    let mut next = loaded.last_purged.map(|id| id.index + 1);
    let is_frame = |row: &sled::Result<(sled::IVec, sled::IVec)>| match row {
        Ok((key, _)) => match parse_key(key) {
            Some((index, part)) if spacers::is_spacer(part) => {
                spaced.insert(index);
                false
            }
            _ => true,
        },
        Err(_) => true,
    };
    let mut rows = log.iter().filter(is_frame).peekable();
    while let Some(row) = rows.next() {
        let (key, part) = row.map_err(|error| error.to_string())?;
        let Some((first, 0)) = parse_key(&key) else {
            return Err("a record is not where a frame begins".to_owned());
        };
        let mut bytes = part.to_vec();
        let mut parts = 1;
        while let Some(Ok((key, part))) = rows.peek() {
            if parse_key(key) != Some((first, parts)) {
                break;
            }
            bytes.extend_from_slice(part);
            parts += 1;
            rows.next();
        }
        let entries = match read_frame(&Bytes::from(bytes)) {
            Ok(entries) if entries.first().is_some_and(|entry| entry.log_id.index == first) => {
                entries
            }
            found => {
                let what = match found {
                    Ok(_) => "it is not where it belongs".to_owned(),
                    Err(error) => error.to_string(),
                };
                let acknowledged = loaded.committed.is_some_and(|id| id.index >= first);
                if rows.peek().is_some() || acknowledged {
                    return Err(format!("the frame at index {first} is bad: {what}"));
                }
                // Half of a last write, that nobody was told was done.
                tracing::warn!(first, what, "dropping the log's last frame");
                for part in 0..parts {
                    log.remove(super::key(first, part)).map_err(|error| error.to_string())?;
                }
                break;
            }
        };
        let last = entries.last().map_or(first, |entry| entry.log_id.index);
        frames.insert(first, FrameInfo { last, parts });
        for entry in entries {
            let index = entry.log_id.index;
            match next {
                // Left over from a purge that did not get to its end.
                Some(expected) if index < expected && loaded.entries.is_empty() => {}
                Some(expected) if index != expected => {
                    return Err(format!("entries {expected} to {} are missing", index - 1));
                }
                None if index != 0 => {
                    return Err(format!("entries 0 to {} are missing", index - 1));
                }
                _ => {
                    next = Some(index + 1);
                    loaded.entries.push(entry);
                }
            }
        }
    }
    drop(rows);
    check_end(loaded)?;
    Ok(Records { frames, spacers: Spacers::found(spaced) })
}

/// What is known to be committed must be there.
fn check_end(loaded: &Loaded) -> Result<(), String> {
    let last = loaded.entries.last().map(|entry| entry.log_id).or(loaded.last_purged);
    match loaded.committed {
        Some(committed) if last.is_none_or(|last: LogId| last.index < committed.index) => {
            let from = last.map_or(0, |last| last.index + 1);
            Err(format!("entries {from} to {} are missing at its end", committed.index))
        }
        _ => Ok(()),
    }
}
