//! A second copy of an ensemble, in memory: what an import has is held against it, node by node,
//! where no digest says that it is right.

use std::io::Read;

use super::chunks::{Chunks, first_rows};
use super::link::{LinkError, LiveSource};
use crate::jute::Field;
use crate::state::znodes::ZkImport;
use crate::zookeeper::observer::{Event, Observer, ObserverError};
use crate::zookeeper::snapshot_file::{SnapshotError, SnapshotReader};

/// A number that is neither the ensemble's nor of another observer here.
const SERVER_ID: i64 = 246;

/// Why there is none, or nothing can be held against it.
#[derive(Debug, thiserror::Error)]
pub enum SecondCopyError {
    /// Nobody gives it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It broke off.
    #[error(transparent)]
    Observer(#[from] ObserverError),
    /// The source has lost what it had, or is another one.
    #[error("the source has no transactions")]
    Truncated,
    /// It can't be built.
    #[error("{0}")]
    Unfit(String),
    /// The other copy can't be read.
    #[error("the copy that is here: {0}")]
    Snapshot(#[from] SnapshotError),
}

/// A second copy, which goes on with its source.
#[derive(Debug)]
pub struct SecondCopy {
    observer: Observer,
    copy: ZkImport,
    zxid: i64,
}

impl SecondCopy {
    /// Takes one, as it is when its source has sent all that came meanwhile.
    ///
    /// # Errors
    /// See [`SecondCopyError`].
    pub async fn take(source: &LiveSource) -> Result<Self, SecondCopyError> {
        let observer = source.join(SERVER_ID, 0).await?;
        let mut second = Self { observer, copy: ZkImport::beside(), zxid: 0 };
        let mut chunks = Chunks::default();
        let unfit = |error: super::chunks::RowTooLarge| SecondCopyError::Unfit(error.to_string());
        loop {
            match second.observer.next().await? {
                Event::Snapshot { zxid } => second.zxid = zxid,
                Event::Diff => {
                    second.copy.add_rows(&first_rows()).map_err(SecondCopyError::Unfit)?;
                    second.copy.copied(0);
                }
                Event::Rows(rows) => {
                    for (kind, row) in rows.iter() {
                        if let Some(lot) = chunks.add_bytes(kind, row).map_err(unfit)? {
                            second.copy.add_rows(&lot).map_err(SecondCopyError::Unfit)?;
                        }
                    }
                }
                Event::SnapshotEnd => {
                    if let Some(lot) = std::mem::take(&mut chunks).finish() {
                        second.copy.add_rows(&lot).map_err(SecondCopyError::Unfit)?;
                    }
                    second.copy.copied(second.zxid);
                }
                Event::Transaction { zxid, bytes } => second.apply(zxid, &bytes)?,
                Event::NewLeader { .. } => return Ok(second),
                Event::Truncate { .. } => return Err(SecondCopyError::Truncated),
                Event::UpToDate | Event::Heard { .. } => {}
            }
        }
    }

    /// The newest transaction that it has.
    pub fn zxid(&self) -> i64 {
        self.zxid
    }

    /// Takes what comes until it has that transaction too.
    ///
    /// # Errors
    /// See [`SecondCopyError`].
    pub async fn follow_to(&mut self, zxid: i64) -> Result<(), SecondCopyError> {
        while self.zxid < zxid {
            if let Event::Transaction { zxid, bytes } = self.observer.next().await? {
                self.apply(zxid, &bytes)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, zxid: i64, transaction: &[u8]) -> Result<(), SecondCopyError> {
        let framed = Some(transaction).to_bytes();
        self.copy.add_transactions(&framed).map_err(SecondCopyError::Unfit)?;
        self.zxid = zxid;
        Ok(())
    }

    /// The first thing in which a copy differs from this one, access lists and sessions too; the
    /// copy comes as a snapshot file.
    ///
    /// # Errors
    /// See [`SecondCopyError`].
    pub fn difference(&self, snapshot: impl Read) -> Result<Option<String>, SecondCopyError> {
        let mut reader = SnapshotReader::open(snapshot)?;
        let (mut other, mut chunks) = (ZkImport::beside(), Chunks::default());
        while let Some(row) = reader.next_row()? {
            let full = chunks.add(&row).map_err(|e| SecondCopyError::Unfit(e.to_string()))?;
            if let Some(lot) = full {
                other.add_rows(&lot).map_err(SecondCopyError::Unfit)?;
            }
        }
        if let Some(lot) = chunks.finish() {
            other.add_rows(&lot).map_err(SecondCopyError::Unfit)?;
        }
        Ok(other.tree.difference(&self.copy.tree))
    }
}
