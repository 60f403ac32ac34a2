//! A copy out of a data directory: the newest whole snapshot, then the transactions behind it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::chunks::{Chunks, FIRST_NODES, RowTooLarge, TransactionLots};
use super::inventory::Inventory;
use crate::jute::file::{NodeRow, OPEN_ACL_KEY};
use crate::jute::rows::Row;
use crate::jute::txn::{Transaction, TxnDigest};
use crate::jute::{Field, StatPersisted};
use crate::limits::ZK_CHUNK_BYTES;
use crate::zookeeper::data_dir::{Chosen, DataDir, DataDirError, NamedFile};
use crate::zookeeper::snapshot_file::{SnapshotError, SnapshotReader};
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
    /// The digest that the source says the tree has after all of it, if it says one.
    pub digest: Option<TxnDigest>,
    /// Logs that end within a transaction, as after a crash; it was never acknowledged.
    pub torn: Vec<PathBuf>,
}

impl Files {
    /// Looks at `path`, and `logs` if `dataLogDir` names another one.
    ///
    /// # Errors
    /// If there is nothing that can be copied.
    pub fn open(path: &Path, logs: Option<&Path>) -> Result<Self, FilesError> {
        let directory = DataDir::find(path, logs)?;
        let chosen = directory.newest_snapshot()?;
        let place = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let identity = match &chosen.snapshot {
            None => format!("{} (logs from the first on)", place.display()),
            Some((file, _)) => {
                let name = file.path.file_name().unwrap_or_default().to_string_lossy();
                format!("{} ({name}, {})", place.display(), fingerprint(&file.path)?)
            }
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
        let mut copied = Copied { zxid: self.chosen.zxid(), ..Copied::default() };
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
                copied.digest = tail
                    .digest
                    .map(|found| TxnDigest { version: found.version, digest: found.digest });
            }
        }
        if let Some(lot) = chunks.finish()
            && !take(lot)
        {
            return Err(FilesError::NotTaken);
        }
        Ok(copied)
    }

    /// Reads the transactions behind the snapshot; each full lot goes to `take` with the
    /// transaction before it.
    ///
    /// # Errors
    /// If one can't be read, or `take` wants no more.
    pub fn read_transactions(
        &self,
        copied: &mut Copied,
        mut take: impl FnMut(i64, Vec<u8>) -> bool,
    ) -> Result<(), FilesError> {
        let mut transactions = self.directory.transactions(copied.zxid);
        let mut lots = TransactionLots::default();
        let mut after = copied.zxid;
        while let Some((zxid, bytes)) = transactions.next_transaction()? {
            let transaction = Transaction::from_bytes(bytes)
                .map_err(|error| FilesError::Transaction { zxid, error })?;
            let full = lots.add(zxid, bytes)?;
            if let Some(lot) = full {
                if !take(after, lot) {
                    return Err(FilesError::NotTaken);
                }
                after = copied.zxid;
            }
            copied.zxid = zxid;
            copied.transactions += 1;
            // A request that failed says nothing, and changes nothing.
            if transaction.digest.is_some() {
                copied.digest = transaction.digest;
            }
        }
        if let Some(lot) = lots.take()
            && !take(after, lot)
        {
            return Err(FilesError::NotTaken);
        }
        let torn = |end| matches!(end, Some(LogEnd::Torn { .. }));
        copied.torn = transactions
            .used()
            .iter()
            .filter(|used| torn(used.end))
            .map(|used| used.file.path.clone())
            .collect();
        Ok(())
    }
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
