//! A second copy of an ensemble, in memory: what an import has is held against it, node by node.
//!
//! Whoever reads what the ensemble sends does not build the tree: that is done on another thread.

use std::io::Read;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::chunks::{Chunks, RowTooLarge, first_rows};
use super::link::{LinkError, LiveSource};
use crate::jute::Field;
use crate::state::znodes::ZkImport;
use crate::zookeeper::observer::{Event, Observer, ObserverError};
use crate::zookeeper::snapshot_file::{SnapshotError, SnapshotReader};

/// Pieces that wait for whoever builds the tree.
const WAITING: usize = 16;

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
    /// A row that no copy takes.
    #[error(transparent)]
    TooLarge(#[from] RowTooLarge),
    /// It can't be built.
    #[error("{0}")]
    Unfit(String),
    /// The other copy can't be read.
    #[error("the copy that is here: {0}")]
    Snapshot(#[from] SnapshotError),
}

/// What a tree is built of.
enum Piece {
    Rows(Vec<u8>),
    Copied(i64),
    Transaction(Vec<u8>),
}

fn build(mut pieces: mpsc::Receiver<Piece>) -> Result<ZkImport, SecondCopyError> {
    let mut copy = ZkImport::beside();
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Rows(bytes) => copy.add_rows(&bytes).map_err(SecondCopyError::Unfit)?,
            Piece::Copied(zxid) => copy.copied(zxid),
            Piece::Transaction(bytes) => {
                let framed = Some(bytes.as_slice()).to_bytes();
                copy.add_transactions(&framed).map_err(SecondCopyError::Unfit)?;
            }
        }
    }
    Ok(copy)
}

/// A second copy, which goes on with its source.
#[derive(Debug)]
pub struct SecondCopy {
    observer: Observer,
    pieces: mpsc::Sender<Piece>,
    builder: JoinHandle<Result<ZkImport, SecondCopyError>>,
    zxid: i64,
}

impl SecondCopy {
    /// Takes one, as it is when its source has sent all that came meanwhile; `server_id` is the
    /// observer's number, and no other has it at that time.
    ///
    /// # Errors
    /// See [`SecondCopyError`].
    pub async fn take(source: &LiveSource, server_id: i64) -> Result<Self, SecondCopyError> {
        let observer = source.join(server_id, 0).await?;
        let (pieces, incoming) = mpsc::channel(WAITING);
        let builder = tokio::task::spawn_blocking(move || build(incoming));
        let mut second = Self { observer, pieces, builder, zxid: 0 };
        let mut chunks = Chunks::default();
        loop {
            match second.observer.next().await? {
                Event::Snapshot { zxid } => second.zxid = zxid,
                Event::Diff => {
                    second.put(Piece::Rows(first_rows())).await?;
                    second.put(Piece::Copied(0)).await?;
                }
                Event::Rows(rows) => {
                    for (kind, row) in rows.iter() {
                        if let Some(lot) = chunks.add_bytes(kind, row)? {
                            second.put(Piece::Rows(lot)).await?;
                        }
                    }
                }
                Event::SnapshotEnd => {
                    if let Some(lot) = std::mem::take(&mut chunks).finish() {
                        second.put(Piece::Rows(lot)).await?;
                    }
                    second.put(Piece::Copied(second.zxid)).await?;
                }
                Event::Transaction { zxid, bytes } => second.apply(zxid, bytes).await?,
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

    /// Waits for what its source sends next, if that is a transaction. It is not applied.
    ///
    /// # Errors
    /// See [`SecondCopyError`].
    pub(super) async fn next(&mut self) -> Result<Option<(i64, Vec<u8>)>, SecondCopyError> {
        Ok(match self.observer.next().await? {
            Event::Transaction { zxid, bytes } => Some((zxid, bytes)),
            _ => None,
        })
    }

    /// Applies the transaction that comes next.
    ///
    /// # Errors
    /// See [`SecondCopyError`].
    pub(super) async fn apply(
        &mut self,
        zxid: i64,
        transaction: Vec<u8>,
    ) -> Result<(), SecondCopyError> {
        self.zxid = zxid;
        self.put(Piece::Transaction(transaction)).await
    }

    /// Takes what comes until it has that transaction too.
    ///
    /// # Errors
    /// See [`SecondCopyError`].
    pub async fn follow_to(&mut self, zxid: i64) -> Result<(), SecondCopyError> {
        while self.zxid < zxid {
            if let Some((zxid, transaction)) = self.next().await? {
                self.apply(zxid, transaction).await?;
            }
        }
        Ok(())
    }

    async fn put(&mut self, piece: Piece) -> Result<(), SecondCopyError> {
        if self.pieces.send(piece).await.is_ok() {
            return Ok(());
        }
        // Who builds it has ended, and says why.
        Err(match (&mut self.builder).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => SecondCopyError::Unfit("the second copy ended early".to_owned()),
            Err(error) => SecondCopyError::Unfit(error.to_string()),
        })
    }

    /// Lets go of the source; what there is of it.
    ///
    /// # Errors
    /// See [`SecondCopyError`].
    pub async fn finish(self) -> Result<ZkImport, SecondCopyError> {
        drop(self.pieces);
        self.builder.await.map_err(|error| SecondCopyError::Unfit(error.to_string()))?
    }
}

/// The first thing in which a copy that comes as a snapshot file differs from a second one, access
/// lists and sessions too.
///
/// # Errors
/// See [`SecondCopyError`].
pub fn difference(
    snapshot: impl Read,
    second: &ZkImport,
) -> Result<Option<String>, SecondCopyError> {
    let mut reader = SnapshotReader::open(snapshot)?;
    let (mut other, mut chunks) = (ZkImport::beside(), Chunks::default());
    while let Some(row) = reader.next_row()? {
        if let Some(lot) = chunks.add(&row)? {
            other.add_rows(&lot).map_err(SecondCopyError::Unfit)?;
        }
    }
    if let Some(lot) = chunks.finish() {
        other.add_rows(&lot).map_err(SecondCopyError::Unfit)?;
    }
    Ok(other.tree.difference(&second.tree))
}
