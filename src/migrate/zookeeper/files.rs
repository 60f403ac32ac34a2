//! A copy out of a data directory: the newest whole snapshot, then the transactions behind it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chunks::{Chunks, FIRST_NODES, RowTooLarge, TransactionLots};
use super::inventory::Inventory;
use crate::jute::digest::VERSION;
use crate::jute::file::{NodeRow, OPEN_ACL_KEY};
use crate::jute::rows::Row;
use crate::jute::txn::{Transaction, Txn};
use crate::jute::{Field, Reader, StatPersisted};
use crate::limits::ZK_CHUNK_BYTES;
use crate::zookeeper::data_dir::{Chosen, DataDir, DataDirError, NamedFile};
use crate::zookeeper::snapshot_file::{SnapshotError, SnapshotReader, verify};
use crate::zookeeper::txn_log_file::LogEnd;

/// Why a directory can't be copied.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// What is in it.
    #[error(transparent)]
    Directory(#[from] DataDirError),
    /// The snapshot.
    #[error("{}: {error}", path.display())]
    Snapshot {
        /// Which one.
        path: PathBuf,
        /// What is wrong.
        error: SnapshotError,
    },
    /// The snapshot can't be opened.
    #[error("{}: {error}", path.display())]
    Open {
        /// Which one.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// Something is too large.
    #[error(transparent)]
    TooLarge(#[from] RowTooLarge),
    /// A transaction that can't be read.
    #[error("the transaction {zxid:#x} can't be read: {error}")]
    Transaction {
        /// Which one.
        zxid: i64,
        /// Why not.
        error: crate::jute::Error,
    },
    /// Who takes the copy does not want more of it.
    #[error("the copy was not taken to its end")]
    NotTaken,
}

/// A data directory, ready to be copied.
#[derive(Debug)]
pub struct Files {
    directory: DataDir,
    chosen: Chosen,
    /// Names what is copied, so that nothing else goes on with it.
    pub identity: String,
}

/// What was read of a directory.
#[derive(Debug, Clone, Default)]
pub struct Copied {
    /// What the snapshot holds.
    pub inventory: Inventory,
    /// Transactions behind it.
    pub transactions: u64,
    /// The newest transaction.
    pub zxid: i64,
    /// The transaction with which the snapshot was finished, if it says so: it may have parts of
    /// all up to there, and only behind that the copy is exact.
    pub exact_from: i64,
    /// The digest that the source's tree had there. The server counted it on its own tree, so it is
    /// right also where those of transactions are not.
    pub snapshot_digest: Option<u64>,
    /// The digest that the last transaction says the tree has after it, if one says any.
    pub digest: Option<u64>,
    /// Logs that end within a transaction, as after a crash; it was never acknowledged.
    pub torn: Vec<PathBuf>,
}

/// Transactions that go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionLot {
    /// The transaction before them.
    pub after: i64,
    /// The first of them.
    pub first: i64,
    /// Each behind its length in 4 bytes.
    pub bytes: Vec<u8>,
}

impl Files {
    /// Looks at `path`, and `logs` if `dataLogDir` names another one.
    ///
    /// # Errors
    /// If there is nothing that can be copied.
    pub fn open(path: &Path, logs: Option<&Path>) -> Result<Self, FilesError> {
        Self::open_begun(path, logs, None)
    }

    /// The same with the snapshot that a copy was begun with, by its identity, if it is still there
    /// and whole: its server may have written newer ones since.
    ///
    /// # Errors
    /// If there is nothing that can be copied.
    pub fn open_begun(
        path: &Path,
        logs: Option<&Path>,
        begun: Option<&str>,
    ) -> Result<Self, FilesError> {
        let directory = DataDir::find(path, logs)?;
        let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = |file: &NamedFile| {
            let name = file.path.file_name().unwrap_or_default().to_string_lossy();
            let print = fingerprint(&file.path)?;
            Ok::<_, FilesError>(format!("{} ({name}, {print})", place.display()))
        };
        for file in directory.snapshots().iter().filter(|_| begun.is_some()) {
            if begun == Some(name(file)?.as_str())
                && let Ok(contents) = verify(open(&file.path)?)
            {
                let identity = name(file)?;
                let snapshot = Some((file.clone(), contents));
                let chosen = Chosen { snapshot, refused: Vec::new() };
                return Ok(Self { directory, chosen, identity });
            }
        }
        let chosen = directory.newest_snapshot()?;
        let identity = match &chosen.snapshot {
            None => format!("{} (logs from the first on)", place.display()),
            Some((file, _)) => name(file)?,
        };
        Ok(Self { directory, chosen, identity })
    }

    /// Snapshots that are newer than the one that is taken, and why they are not.
    pub fn refused(&self) -> Vec<String> {
        self.chosen.refused.iter().map(ToString::to_string).collect()
    }

    /// The snapshot that is taken.
    pub fn snapshot(&self) -> Option<&NamedFile> {
        self.chosen.snapshot.as_ref().map(|(file, _)| file)
    }

    /// How many nodes the snapshot has.
    pub fn nodes(&self) -> u64 {
        self.chosen.snapshot.as_ref().map_or(FIRST_NODES.len() as u64, |(_, has)| has.nodes)
    }

    /// How many lots its rows will be, roughly.
    pub fn lots_about(&self) -> u64 {
        self.chosen.snapshot.as_ref().map_or(1, |(_, has)| has.bytes / ZK_CHUNK_BYTES as u64 + 1)
    }

    /// The last transaction that the snapshot surely has.
    pub fn snapshot_zxid(&self) -> i64 {
        self.chosen.zxid()
    }

    /// Reads the snapshot; each full lot of rows goes to `take`.
    ///
    /// # Errors
    /// If it can't be read, or `take` wants no more.
    pub fn read_snapshot(
        &self,
        mut take: impl FnMut(Vec<u8>) -> bool,
    ) -> Result<Copied, FilesError> {
        let zxid = self.chosen.zxid();
        let mut copied = Copied { zxid, exact_from: zxid, ..Copied::default() };
        let mut chunks = Chunks::default();
        let mut add = |row: &Row<'_>, inventory: &mut Inventory| {
            inventory.add(row);
            match chunks.add(row)?.is_none_or(&mut take) {
                true => Ok(()),
                false => Err(FilesError::NotTaken),
            }
        };
        match &self.chosen.snapshot {
            None => {
                for path in FIRST_NODES {
                    let (acl, stat) = (OPEN_ACL_KEY, StatPersisted::default());
                    let row = NodeRow { path, data: Some(&[]), acl, stat };
                    add(&Row::Node(row), &mut copied.inventory)?;
                }
            }
            Some((file, _)) => {
                let path = &file.path;
                let wrong = |error| FilesError::Snapshot { path: path.clone(), error };
                let mut reader = SnapshotReader::open(open(path)?).map_err(wrong)?;
                while let Some(row) = reader.next_row().map_err(wrong)? {
                    add(&row, &mut copied.inventory)?;
                }
                let tail = reader.tail().unwrap_or_default();
                // Zeros, if the server had applied nothing since its start.
                if let Some(found) =
                    tail.digest.filter(|found| found.zxid > 0 && found.zxid >= zxid)
                {
                    let known = found.version == VERSION;
                    copied.exact_from = found.zxid;
                    copied.snapshot_digest = known.then(|| found.digest.cast_unsigned());
                }
            }
        }
        if let Some(lot) = chunks.finish()
            && !take(lot)
        {
            return Err(FilesError::NotTaken);
        }
        Ok(copied)
    }

    /// Reads the transactions behind the snapshot; those behind `has` as well go to `take`, in lots.
    /// None has transactions of both before and behind `copied.exact_from`.
    ///
    /// # Errors
    /// If one can't be read, or `take` wants no more.
    pub fn read_transactions(
        &self,
        copied: &mut Copied,
        has: i64,
        mut take: impl FnMut(TransactionLot) -> bool,
    ) -> Result<(), FilesError> {
        let mut transactions = self.directory.transactions(copied.zxid);
        let mut lots = TransactionLots::default();
        let (mut after, mut first) = (copied.zxid, copied.zxid);
        let mut give = |after, first, lot: Option<Vec<u8>>| {
            let taken = lot.is_none_or(|bytes| take(TransactionLot { after, first, bytes }));
            if taken { Ok(()) } else { Err(FilesError::NotTaken) }
        };
        while let Some((zxid, bytes)) = transactions.next_transaction()? {
            let transaction = Transaction::from_bytes(bytes)
                .map_err(|error| FilesError::Transaction { zxid, error })?;
            if zxid > has {
                if first <= copied.exact_from && zxid > copied.exact_from {
                    give(after, first, lots.take())?;
                }
                let begins = lots.is_empty();
                let full = lots.add(zxid, bytes)?;
                if full.is_some() || begins {
                    give(after, first, full)?;
                    (after, first) = (copied.zxid.max(has), zxid);
                }
            }
            copied.zxid = zxid;
            copied.transactions += 1;
            // A request that failed says nothing, and changes nothing.
            if let Some(digest) = transaction.digest.filter(|digest| digest.version == VERSION) {
                copied.digest = Some(digest.digest.cast_unsigned());
            }
        }
        give(after, first, lots.take())?;
        let torn = |end| matches!(end, Some(LogEnd::Torn { .. }));
        copied.torn = transactions
            .used()
            .iter()
            .filter(|used| torn(used.end))
            .map(|used| used.file.path.clone())
            .collect();
        Ok(())
    }

    /// What a transaction of the logs changes.
    ///
    /// # Errors
    /// If the logs can't be read up to there.
    pub fn paths_of(&self, zxid: i64) -> Result<Vec<String>, FilesError> {
        let mut transactions = self.directory.transactions(zxid.saturating_sub(1));
        match transactions.next_transaction()? {
            Some((found, bytes)) if found == zxid => Transaction::from_bytes(bytes)
                .map(|transaction| paths(&transaction))
                .map_err(|error| FilesError::Transaction { zxid, error }),
            _ => Ok(Vec::new()),
        }
    }
}

/// The nodes that a transaction names.
fn paths(transaction: &Transaction<'_>) -> Vec<String> {
    fn add(txn: &Txn<'_>, found: &mut Vec<String>) {
        match txn {
            Txn::Create(create) => found.push(create.path.to_owned()),
            Txn::Delete(path) => found.push((*path).to_owned()),
            Txn::SetData(set) => found.push(set.path.to_owned()),
            Txn::SetAcl(set) => found.push(set.path.to_owned()),
            Txn::CloseSession(Some(paths)) => {
                found.extend(paths.iter().map(|path| (*path).to_owned()));
            }
            Txn::CloseSession(None)
            | Txn::CreateSession(_)
            | Txn::Error(_)
            | Txn::Check(_)
            | Txn::Multi(_) => {}
        }
    }
    let mut found = Vec::new();
    match &transaction.txn {
        Txn::Multi(changes) => {
            for change in changes {
                let mut reader = Reader::new(change.data.unwrap_or_default());
                if let Ok(txn) = Txn::read(change.op, &mut reader) {
                    add(&txn, &mut found);
                }
            }
        }
        txn => add(txn, &mut found),
    }
    found
}

/// Length and last bytes: there stands a checksum of the whole file, packed or not.
fn fingerprint(path: &Path) -> Result<String, FilesError> {
    const LAST: u64 = 16;
    let failed = |error| FilesError::Open { path: path.to_owned(), error };
    let mut file = open(path)?;
    let length = file.metadata().map_err(failed)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST))).map_err(failed)?;
    let mut last = Vec::new();
    file.take(LAST).read_to_end(&mut last).map_err(failed)?;
    let last: String = last.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{length} bytes, {last}"))
}

fn open(path: &Path) -> Result<File, FilesError> {
    File::open(path).map_err(|error| FilesError::Open { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::file::{AclRow, SessionRow};
    use crate::jute::op::Op;
    use crate::jute::txn::{SubTxn, TxnDigest, TxnHeader};
    use crate::zookeeper::data_dir::{log_name, snapshot_name};
    use crate::zookeeper::snapshot_file::{SnapshotDigest, SnapshotWriter, Tail};
    use crate::zookeeper::txn_log_file::LogWriter;

    const FIRST: i64 = 1 << 32;

    fn transaction(behind: i64, txn: Txn<'_>, op: Op, digest: i64) -> Vec<u8> {
        let zxid = FIRST + behind;
        let header = TxnHeader { client_id: 1, cxid: 1, zxid, time: 1, op: op.number() };
        Transaction { header, txn, digest: Some(TxnDigest { version: VERSION, digest }) }.to_bytes()
    }

    /// A snapshot that was finished with the third of so many transactions.
    fn directory(transactions: i64) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let (sessions, acls): ([SessionRow; 0], [AclRow; 0]) = ([], []);
        let file = File::create(directory.path().join(snapshot_name(FIRST))).unwrap();
        let mut writer = SnapshotWriter::new(file, sessions.iter(), acls.iter()).unwrap();
        let (acl, stat) = (OPEN_ACL_KEY, StatPersisted::default());
        writer.node(&NodeRow { path: "", data: None, acl, stat }).unwrap();
        let digest = SnapshotDigest { zxid: FIRST + 3, version: VERSION, digest: 33 };
        writer.finish(Tail { digest: Some(digest), last_zxid: None }).unwrap();
        let log = File::create(directory.path().join(log_name(FIRST + 1))).unwrap();
        let mut log = LogWriter::new(log).unwrap();
        for behind in 1..=transactions {
            let txn = Txn::CreateSession(1_000);
            log.append(&transaction(behind, txn, Op::CreateSession, behind)).unwrap();
        }
        log.finish().unwrap();
        directory
    }

    /// How many transactions each lot has, and what it says of its place.
    fn lots(directory: &Path, has: i64) -> (Vec<(i64, i64, usize)>, Copied) {
        let files = Files::open(directory, None).unwrap();
        let mut copied = files.read_snapshot(|_| true).unwrap();
        let mut lots = Vec::new();
        let read = files.read_transactions(&mut copied, has, |lot| {
            let mut reader = Reader::new(&lot.bytes);
            let mut count = 0;
            while !reader.rest().is_empty() {
                reader.field::<Option<&[u8]>>().unwrap();
                count += 1;
            }
            lots.push((lot.after - FIRST, lot.first - FIRST, count));
            true
        });
        read.unwrap();
        (lots, copied)
    }

    #[test]
    fn lots_are_of_what_is_not_there_yet_and_cut_where_the_snapshot_was_finished() {
        let directory = directory(9);
        let (all, copied) = lots(directory.path(), 0);
        assert_eq!(all, [(0, 1, 3), (3, 4, 6)]);
        assert_eq!((copied.transactions, copied.zxid), (9, FIRST + 9));
        assert_eq!((copied.exact_from, copied.snapshot_digest), (FIRST + 3, Some(33)));
        assert_eq!(copied.digest, Some(9));
        // Some of a lot are there already, and the others are not left out with them.
        assert_eq!(lots(directory.path(), FIRST + 2).0, [(2, 3, 1), (3, 4, 6)]);
        assert_eq!(lots(directory.path(), FIRST + 3).0, [(3, 4, 6)]);
        assert_eq!(lots(directory.path(), FIRST + 5).0, [(5, 6, 4)]);
        let (none, copied) = lots(directory.path(), FIRST + 9);
        assert_eq!((none.len(), copied.transactions, copied.digest), (0, 9, Some(9)));
    }

    #[test]
    fn a_copy_goes_on_with_the_snapshot_that_it_was_begun_with() {
        let directory = directory(9);
        let begun = Files::open(directory.path(), None).unwrap().identity;
        let newer = snapshot_name(FIRST + 8);
        let older = directory.path().join(snapshot_name(FIRST));
        std::fs::copy(&older, directory.path().join(&newer)).unwrap();
        let open = |begun: &str| Files::open_begun(directory.path(), None, Some(begun)).unwrap();
        assert_eq!((open(&begun).identity, open(&begun).snapshot_zxid()), (begun.clone(), FIRST));
        assert_eq!(open("another").snapshot_zxid(), FIRST + 8);
        std::fs::remove_file(older).unwrap();
        assert_ne!(open(&begun).identity, begun);
    }

    #[test]
    fn what_a_transaction_changes_is_named() {
        let directory = directory(2);
        let files = Files::open(directory.path(), None).unwrap();
        assert_eq!(files.paths_of(FIRST + 2).unwrap(), [""; 0]);
        assert_eq!(files.paths_of(FIRST + 5).unwrap(), [""; 0]);
        let mut delete = Vec::new();
        Txn::Delete("/b").write(&mut delete);
        let both = vec![SubTxn { op: Op::Delete.number(), data: Some(&delete) }];
        let bytes = transaction(1, Txn::Multi(both), Op::Multi, 0);
        assert_eq!(paths(&Transaction::from_bytes(&bytes).unwrap()), ["/b"]);
        let closed = Txn::CloseSession(Some(vec!["/x", "/y"]));
        let bytes = transaction(1, closed, Op::CloseSession, 0);
        assert_eq!(paths(&Transaction::from_bytes(&bytes).unwrap()), ["/x", "/y"]);
    }
}
