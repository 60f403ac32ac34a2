//! A server's data directory: which snapshot to begin with, and the transactions behind it from
//! one log file after another.
//!
//! ```text
//! DataDir::find -> newest_snapshot -> its rows
//!               -> transactions(after its zxid) -> next … (to the end) or poll … (as they come)
//! ```

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::snapshot_file::{Contents, SnapshotError, verify};
use super::txn_log_file::{LogEnd, LogError, LogReader};
use crate::jute::txn::{TxnHeader, follows};
use crate::jute::{self, Field, Reader};

/// Below `dataDir` and `dataLogDir`, where the files are.
const VERSION_DIR: &str = "version-2";
const SNAPSHOT: &str = "snapshot";
const LOG: &str = "log";

/// A file with a zxid in its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedFile {
    /// Where it is.
    pub path: PathBuf,
    /// Of a snapshot: the last transaction that is surely in it. Of a log: its first one.
    pub zxid: i64,
}

/// Name of a snapshot file, not packed.
pub fn snapshot_name(zxid: i64) -> String {
    format!("{SNAPSHOT}.{zxid:x}")
}

/// Name of a log file.
pub fn log_name(first_zxid: i64) -> String {
    format!("{LOG}.{first_zxid:x}")
}

/// Why a directory can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A directory or a file can't be opened.
    #[error("{}: {source}", path.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing of ZooKeeper's in it.
    #[error(
        "{}: no files snapshot.* or log.* here nor in {VERSION_DIR} below; \
         give the directory that dataDir names in zoo.cfg (and the one that dataLogDir names, \
         if there is one)", path.display()
    )]
    Nothing {
        /// Where.
        path: PathBuf,
    },
    /// No snapshot is whole, and the logs don't begin at the beginning.
    #[error("{}: no whole snapshot to begin with{}", path.display(), reasons(refused))]
    NoSnapshot {
        /// Where.
        path: PathBuf,
        /// Those that are there, and why each can't be used.
        refused: Vec<Refused>,
    },
    /// A log file that can't be read.
    #[error("{}: {error}", path.display())]
    Log {
        /// Which one.
        path: PathBuf,
        /// Why not.
        error: LogError,
    },
    /// An entry of a log that is no transaction.
    #[error("{}: the entry before byte {offset} is no transaction: {error}", path.display())]
    Entry {
        /// In which file.
        path: PathBuf,
        /// Where it ends.
        offset: u64,
        /// Why.
        error: jute::Error,
    },
    /// Transactions are missing.
    #[error(
        "{}: the transactions between {after:#x} and {found:#x} are missing: \
         a log file was removed or not copied; copy all files log.* of the server, \
         or begin with a newer snapshot", path.display()
    )]
    Gap {
        /// In which file the next one is.
        path: PathBuf,
        /// The last one before.
        after: i64,
        /// The next one that is there.
        found: i64,
    },
}

/// A snapshot that can't be used.
#[derive(Debug)]
pub struct Refused {
    /// Which one.
    pub path: PathBuf,
    /// Why.
    pub error: SnapshotError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

fn reasons(refused: &[Refused]) -> String {
    refused.iter().map(|refused| format!("; {refused}")).collect()
}

/// A directory, and what files are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir {
    snapshots_in: PathBuf,
    logs_in: PathBuf,
    /// Oldest first.
    snapshots: Vec<NamedFile>,
    /// Oldest first.
    logs: Vec<NamedFile>,
}

/// The snapshot to begin with.
#[derive(Debug)]
pub struct Chosen {
    /// The newest one that is whole; none: the logs begin with the first transaction of all.
    pub snapshot: Option<(NamedFile, Contents)>,
    /// Newer ones that are not.
    pub refused: Vec<Refused>,
}

impl Chosen {
    /// The last transaction that is surely in it.
    pub fn zxid(&self) -> i64 {
        self.snapshot.as_ref().map_or(0, |(file, _)| file.zxid)
    }
}

impl DataDir {
    /// Finds the files in `path`, which is what `dataDir` names in `zoo.cfg` or the directory
    /// `version-2` below it. Logs are in `logs`, if `dataLogDir` names another one.
    ///
    /// # Errors
    /// If there is nothing, or it can't be read.
    pub fn find(path: &Path, logs: Option<&Path>) -> Result<Self, DataDirError> {
        let snapshots_in = with_files(path)?;
        let logs_in = logs.map_or_else(|| Ok(snapshots_in.clone()), with_files)?;
        let snapshots = files(&snapshots_in, SNAPSHOT)?;
        let logs = files(&logs_in, LOG)?;
        if snapshots.is_empty() && logs.is_empty() {
            return Err(DataDirError::Nothing { path: path.to_owned() });
        }
        Ok(Self { snapshots_in, logs_in, snapshots, logs })
    }

    /// All snapshots, oldest first.
    pub fn snapshots(&self) -> &[NamedFile] {
        &self.snapshots
    }

    /// All logs, oldest first.
    pub fn logs(&self) -> &[NamedFile] {
        &self.logs
    }

    /// The newest snapshot that is whole. Each is read to its end for that, from the newest on.
    ///
    /// # Errors
    /// If none is, and the logs don't begin with the first transaction of all.
    pub fn newest_snapshot(&self) -> Result<Chosen, DataDirError> {
        let mut refused = Vec::new();
        for file in self.snapshots.iter().rev() {
            match open(&file.path).map(verify)? {
                Ok(contents) => {
                    return Ok(Chosen { snapshot: Some((file.clone(), contents)), refused });
                }
                Err(error) => refused.push(Refused { path: file.path.clone(), error }),
            }
        }
        // Without any snapshot the first epoch's first transaction can stand for the beginning.
        let from_the_beginning = self.logs.first().is_some_and(|log| is_first(log.zxid));
        if from_the_beginning {
            return Ok(Chosen { snapshot: None, refused });
        }
        Err(DataDirError::NoSnapshot { path: self.snapshots_in.clone(), refused })
    }

    /// The transactions after `zxid`, in order.
    pub fn transactions(&self, zxid: i64) -> Transactions {
        // The last log that begins at or before the next one may hold it; so may all later ones.
        let before = self.logs.iter().take_while(|log| log.zxid <= zxid.saturating_add(1)).count();
        let waiting = self.logs[before.saturating_sub(1)..].iter().rev().cloned().collect();
        Transactions {
            logs_in: self.logs_in.clone(),
            waiting,
            current: None,
            last: zxid,
            used: Vec::new(),
            entry: Vec::new(),
        }
    }
}

/// What was read of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedLog {
    /// Which one.
    pub file: NamedFile,
    /// Transactions that were handed on.
    pub transactions: u64,
    /// How it ended, once it has.
    pub end: Option<LogEnd>,
}

/// Transactions from one log after another.
pub struct Transactions {
    logs_in: PathBuf,
    /// Last one first.
    waiting: Vec<NamedFile>,
    current: Option<LogReader<File>>,
    /// The last transaction handed on.
    last: i64,
    used: Vec<UsedLog>,
    entry: Vec<u8>,
}

/// Where in the files one is.
enum At {
    /// A transaction is in `entry`.
    Entry(i64),
    /// There is none yet.
    End,
}

impl Transactions {
    /// The last transaction handed on, or where it began.
    pub fn last_zxid(&self) -> i64 {
        self.last
    }

    /// The logs that were read, in order.
    pub fn used(&self) -> &[UsedLog] {
        &self.used
    }

    /// The next transaction's number and bytes; none at the end of the last log.
    ///
    /// # Errors
    /// A log that can't be read, or a transaction that is missing; there is no way on then.
    pub fn next_transaction(&mut self) -> Result<Option<(i64, &[u8])>, DataDirError> {
        loop {
            if let At::Entry(zxid) = self.advance(false)? {
                return Ok(Some((zxid, &self.entry)));
            }
            if self.waiting.is_empty() {
                return Ok(None);
            }
            self.open_next()?;
        }
    }

    /// The next transaction of a server that still writes its logs; none if there is no further
    /// one yet. New logs are found.
    ///
    /// # Errors
    /// As [`Self::next_transaction`]; and if a log has become shorter.
    pub fn poll_transaction(&mut self) -> Result<Option<(i64, &[u8])>, DataDirError> {
        loop {
            if let At::Entry(zxid) = self.advance(true)? {
                return Ok(Some((zxid, &self.entry)));
            }
            if self.waiting.is_empty() {
                let newest = self.used.last().map_or(i64::MIN, |used| used.file.zxid);
                self.waiting = files(&self.logs_in, LOG)?;
                self.waiting.retain(|file| file.zxid > newest);
                self.waiting.reverse();
            }
            if self.waiting.is_empty() {
                return Ok(None);
            }
            // A newer log says that nothing more comes in this one.
            if let At::Entry(zxid) = self.advance(false)? {
                return Ok(Some((zxid, &self.entry)));
            }
            self.open_next()?;
        }
    }

    fn open_next(&mut self) -> Result<(), DataDirError> {
        if let Some(file) = self.waiting.pop() {
            self.current = Some(LogReader::new(open(&file.path)?));
            self.used.push(UsedLog { file, transactions: 0, end: None });
        }
        Ok(())
    }

    /// Goes to the next transaction of the current log that was not handed on yet.
    fn advance(&mut self, grows: bool) -> Result<At, DataDirError> {
        let (Some(reader), Some(used)) = (&mut self.current, self.used.last_mut()) else {
            return Ok(At::End);
        };
        let path = &used.file.path;
        loop {
            let entry = if grows { reader.poll_entry() } else { reader.next_entry() };
            let entry = entry.map_err(|error| DataDirError::Log { path: path.clone(), error })?;
            let Some(entry) = entry else {
                used.end = reader.end();
                return Ok(At::End);
            };
            let header = TxnHeader::read(&mut Reader::new(entry));
            let zxid = match header {
                Ok(header) => header.zxid,
                Err(error) => {
                    let (path, offset) = (path.clone(), reader.offset());
                    return Err(DataDirError::Entry { path, offset, error });
                }
            };
            if zxid <= self.last {
                continue;
            }
            if !follows(self.last, zxid) {
                let (path, after) = (path.clone(), self.last);
                return Err(DataDirError::Gap { path, after, found: zxid });
            }
            self.last = zxid;
            used.transactions += 1;
            self.entry.clear();
            self.entry.extend_from_slice(entry);
            return Ok(At::Entry(zxid));
        }
    }
}

/// Whether it is the first transaction that a server without data makes: alone, or in an ensemble.
fn is_first(zxid: i64) -> bool {
    matches!(zxid, 1 | 0x1_0000_0001)
}

/// The directory itself, or the one below it that has the files.
fn with_files(path: &Path) -> Result<PathBuf, DataDirError> {
    let below = path.join(VERSION_DIR);
    let has_own = !files(path, SNAPSHOT)?.is_empty() || !files(path, LOG)?.is_empty();
    Ok(if !has_own && below.is_dir() { below } else { path.to_owned() })
}

/// Files called `kind.<zxid in hex>`, with what packing adds; oldest first.
fn files(path: &Path, kind: &str) -> Result<Vec<NamedFile>, DataDirError> {
    let failed = |source| DataDirError::Open { path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let Some(zxid) = entry.file_name().to_str().and_then(|name| zxid_of(name, kind)) {
            found.push(NamedFile { path: entry.path(), zxid });
        }
    }
    found.sort_by(|a, b| (a.zxid, &a.path).cmp(&(b.zxid, &b.path)));
    Ok(found)
}

fn zxid_of(name: &str, kind: &str) -> Option<i64> {
    let rest = name.strip_prefix(kind)?.strip_prefix('.')?;
    let hex = match rest.split_once('.') {
        None => rest,
        Some((hex, "gz" | "snappy")) if kind == SNAPSHOT => hex,
        Some(_) => return None,
    };
    i64::from_str_radix(hex, 16).ok().filter(|zxid| *zxid >= 0)
}

fn open(path: &Path) -> Result<File, DataDirError> {
    File::open(path).map_err(|source| DataDirError::Open { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::jute::file::{AclRow, NodeRow, SessionRow};
    use crate::jute::txn::{Transaction, Txn};
    use crate::jute::{Op, StatPersisted};
    use crate::zookeeper::snapshot_file::{SnapshotWriter, Tail};
    use crate::zookeeper::txn_log_file::LogWriter;

    fn put_snapshot(dir: &Path, zxid: i64) -> PathBuf {
        let (sessions, acls): ([SessionRow; 0], [AclRow; 0]) = ([], []);
        let mut writer = SnapshotWriter::new(Vec::new(), sessions.iter(), acls.iter()).unwrap();
        let stat = StatPersisted::default();
        writer.node(&NodeRow { path: "", data: None, acl: -1, stat }).unwrap();
        let path = dir.join(snapshot_name(zxid));
        fs::write(&path, writer.finish(Tail::default()).unwrap()).unwrap();
        path
    }

    fn transaction(zxid: i64) -> Vec<u8> {
        let op = Op::Error.number();
        let header = TxnHeader { client_id: 0, cxid: 0, zxid, time: 0, op };
        Transaction { header, txn: Txn::Error(-101), digest: None }.to_bytes()
    }

    fn log_bytes(zxids: impl IntoIterator<Item = i64>) -> Vec<u8> {
        let mut writer = LogWriter::new(Vec::new()).unwrap();
        zxids.into_iter().for_each(|zxid| writer.append(&transaction(zxid)).unwrap());
        writer.finish().unwrap()
    }

    fn put_log(dir: &Path, zxids: std::ops::Range<i64>) {
        fs::write(dir.join(log_name(zxids.start)), log_bytes(zxids)).unwrap();
    }

    fn all(mut transactions: Transactions) -> Result<Vec<i64>, DataDirError> {
        let mut found = Vec::new();
        while let Some((zxid, bytes)) = transactions.next_transaction()? {
            assert_eq!(bytes, transaction(zxid));
            found.push(zxid);
        }
        Ok(found)
    }

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn transactions_go_on_from_the_snapshot_through_all_logs() {
        let dir = directory();
        let version = dir.path().join(VERSION_DIR);
        fs::create_dir(&version).unwrap();
        put_snapshot(&version, 0);
        put_snapshot(&version, 5);
        put_log(&version, 1..4);
        put_log(&version, 4..9);
        put_log(&version, 9..12);
        for path in [dir.path(), &version] {
            let found = DataDir::find(path, None).unwrap();
            assert_eq!((found.snapshots().len(), found.logs().len()), (2, 3));
            let chosen = found.newest_snapshot().unwrap();
            assert_eq!(chosen.zxid(), 5);
            assert_eq!(all(found.transactions(5)).unwrap(), (6..12).collect::<Vec<_>>());
            assert_eq!(all(found.transactions(0)).unwrap(), (1..12).collect::<Vec<_>>());
            assert_eq!(all(found.transactions(3)).unwrap(), (4..12).collect::<Vec<_>>());
            assert!(all(found.transactions(11)).unwrap().is_empty());
            assert!(all(found.transactions(i64::MAX)).unwrap().is_empty());
        }
    }

    #[test]
    fn logs_may_be_apart() {
        let (data, logs) = (directory(), directory());
        fs::create_dir(logs.path().join(VERSION_DIR)).unwrap();
        put_snapshot(data.path(), 2);
        put_log(&logs.path().join(VERSION_DIR), 1..5);
        let found = DataDir::find(data.path(), Some(logs.path())).unwrap();
        assert_eq!(found.newest_snapshot().unwrap().zxid(), 2);
        assert_eq!(all(found.transactions(2)).unwrap(), [3, 4]);
    }

    #[test]
    fn a_torn_or_empty_snapshot_gives_way_to_the_one_before() {
        let dir = directory();
        put_snapshot(dir.path(), 3);
        let torn = put_snapshot(dir.path(), 6);
        let whole = fs::read(&torn).unwrap();
        fs::write(&torn, &whole[..whole.len() - 1]).unwrap();
        fs::write(dir.path().join(snapshot_name(8)), b"").unwrap();
        put_log(dir.path(), 1..9);
        let found = DataDir::find(dir.path(), None).unwrap();
        let chosen = found.newest_snapshot().unwrap();
        assert_eq!(chosen.zxid(), 3);
        assert_eq!(chosen.snapshot.unwrap().1.nodes, 1);
        let told: Vec<_> = chosen.refused.iter().map(|refused| refused.error.to_string()).collect();
        assert_eq!(told.len(), 2);
        assert_eq!(told[0], "the file is empty");
        assert!(told[1].contains("not written to its end"), "{}", told[1]);

        // Without a whole one every reason is named.
        fs::write(dir.path().join(snapshot_name(3)), b"").unwrap();
        put_log(dir.path(), 2..9);
        fs::remove_file(dir.path().join(log_name(1))).unwrap();
        let found = DataDir::find(dir.path(), None).unwrap();
        let error = found.newest_snapshot().unwrap_err().to_string();
        assert!(error.contains("snapshot.3: the file is empty"), "{error}");
    }

    #[test]
    fn logs_from_the_first_transaction_on_need_no_snapshot() {
        for epoch in [0, 1] {
            let dir = directory();
            let first = epoch << 32 | 1;
            put_log(dir.path(), first..first + 3);
            let found = DataDir::find(dir.path(), None).unwrap();
            assert_eq!(found.newest_snapshot().unwrap().zxid(), 0);
            assert_eq!(all(found.transactions(0)).unwrap().len(), 3);
        }
        let dir = directory();
        put_log(dir.path(), (2 << 32 | 1)..(2 << 32 | 3));
        let found = DataDir::find(dir.path(), None).unwrap();
        assert!(matches!(found.newest_snapshot(), Err(DataDirError::NoSnapshot { .. })));
    }

    #[test]
    fn what_is_missing_is_told() {
        let dir = directory();
        put_snapshot(dir.path(), 4);
        put_log(dir.path(), 3..8);
        put_log(dir.path(), 10..12);
        let found = DataDir::find(dir.path(), None).unwrap();
        match all(found.transactions(4)) {
            Err(DataDirError::Gap { after: 7, found: 10, path }) => {
                assert!(path.ends_with("log.a"), "{}", path.display());
            }
            other => panic!("{other:?}"),
        }
        // So is what is missing right behind the snapshot.
        assert!(matches!(
            all(found.transactions(1)),
            Err(DataDirError::Gap { after: 1, found: 3, .. })
        ));
    }

    #[test]
    fn a_torn_log_is_followed_by_the_next_one() {
        let dir = directory();
        put_snapshot(dir.path(), 0);
        let mut bytes = log_bytes(1..4);
        bytes.truncate(bytes.len() - 1);
        bytes.resize(bytes.len() + 50, 0);
        fs::write(dir.path().join(log_name(1)), bytes).unwrap();
        put_log(dir.path(), 3..5);
        let found = DataDir::find(dir.path(), None).unwrap();
        let mut transactions = found.transactions(0);
        while transactions.next_transaction().unwrap().is_some() {}
        assert_eq!(transactions.last_zxid(), 4);
        let used = transactions.used();
        assert!(matches!(used[0].end, Some(LogEnd::Torn { .. })), "{used:?}");
        assert_eq!((used[0].transactions, used[1].transactions), (2, 2));
        assert_eq!(used[1].end, Some(LogEnd::Whole));
    }

    #[test]
    fn logs_are_followed_while_they_are_written() {
        let dir = directory();
        put_snapshot(dir.path(), 0);
        let found = DataDir::find(dir.path(), None).unwrap();
        let mut transactions = found.transactions(0);
        assert!(transactions.poll_transaction().unwrap().is_none());
        // Room taken ahead, then entries in halves, then a new file.
        let path = dir.path().join(log_name(1));
        fs::write(&path, [0; 4096]).unwrap();
        assert!(transactions.poll_transaction().unwrap().is_none());
        let bytes = log_bytes(1..3);
        let mut file = File::options().write(true).open(&path).unwrap();
        let mut zxids = Vec::new();
        for piece in bytes.chunks(20) {
            file.write_all(piece).unwrap();
            while let Some((zxid, _)) = transactions.poll_transaction().unwrap() {
                zxids.push(zxid);
            }
        }
        assert_eq!(zxids, [1, 2]);
        put_log(dir.path(), 3..4);
        assert_eq!(transactions.poll_transaction().unwrap().map(|(zxid, _)| zxid), Some(3));
        assert!(transactions.poll_transaction().unwrap().is_none());
        assert_eq!(transactions.used().len(), 2);
    }

    #[test]
    fn names_tell_what_a_file_is() {
        for (name, zxid) in [
            ("snapshot.2a9.gz", Some(0x2a9)),
            ("snapshot.100000000", Some(1 << 32)),
            ("snapshot.0.snappy", Some(0)),
            ("snapshot.2a9.gz.tmp", None),
            ("snapshot.xyz", None),
            ("snapshot.", None),
            ("snapshot.ffffffffffffffffff", None),
            ("log.1", None),
        ] {
            assert_eq!(zxid_of(name, SNAPSHOT), zxid, "{name}");
        }
        assert_eq!(zxid_of("log.1", LOG), Some(1));
        assert_eq!(zxid_of("log.1.gz", LOG), None);
        assert_eq!((snapshot_name(0x2a9), log_name(1)), ("snapshot.2a9".into(), "log.1".into()));
        let dir = directory();
        let error = DataDir::find(dir.path(), None).unwrap_err();
        assert!(error.to_string().contains("dataDir"), "{error}");
        assert!(matches!(
            DataDir::find(&dir.path().join("x"), None),
            Err(DataDirError::Open { .. })
        ));
    }
}
