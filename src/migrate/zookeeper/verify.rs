//! A copy held against a fresh one: all nodes, access lists and sessions, at the same transaction.
//!
//! The fresh one is exact at some transaction, and the other is ahead of that or behind it. What
//! comes for the fresh one while the other comes up is held back, since no more of it may be
//! applied than the other has then. Where that becomes too much it is applied, and the other has
//! to come up to there: nothing is lost, and memory is bounded.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::chunks::{Chunks, first_rows};
use super::link::LiveSource;
use crate::consensus::View;
use crate::jute::Field;
use crate::limits::ZK_HELD_BYTES_MAX;
use crate::state::znodes::ZkImport;
use crate::zookeeper::observer::Event;

/// A number that is neither the ensemble's nor the one that follows it.
const SERVER_ID: i64 = 249;
/// Pieces that wait for whoever builds the tree.
const WAITING: usize = 16;
/// What a transaction takes beside its bytes.
const HELD_OVERHEAD: usize = 48;

/// What came of it.
pub(super) struct Compared {
    /// The transaction at which both were.
    pub(super) zxid: i64,
    /// Where they differ; none: nowhere.
    pub(super) difference: Option<String>,
}

/// What a tree is built of.
enum Piece {
    Rows(Vec<u8>),
    Copied(i64),
    Transactions(Vec<u8>),
}

/// Transactions that are held back, in order.
#[derive(Debug, Default)]
struct Held {
    transactions: Vec<(i64, Vec<u8>)>,
    bytes: usize,
}

impl Held {
    /// Adds one; all of them come back once they are too much.
    fn add(&mut self, zxid: i64, transaction: Vec<u8>) -> Vec<(i64, Vec<u8>)> {
        self.bytes += transaction.len() + HELD_OVERHEAD;
        self.transactions.push((zxid, transaction));
        match self.bytes > ZK_HELD_BYTES_MAX {
            true => std::mem::take(self).transactions,
            false => Vec::new(),
        }
    }

    /// Those up to `zxid`; the others are not needed any more.
    fn up_to(mut self, zxid: i64) -> Vec<(i64, Vec<u8>)> {
        self.transactions.truncate(self.transactions.partition_point(|(each, _)| *each <= zxid));
        self.transactions
    }
}

async fn put(pieces: &mpsc::Sender<Piece>, piece: Piece) -> Result<(), String> {
    pieces.send(piece).await.map_err(|_| "the second copy can't be built".to_owned())
}

/// Takes a second copy of the source, and compares that of the import with it.
///
/// # Errors
/// Why that can't be done now.
pub(super) async fn compare(
    source: LiveSource,
    name: String,
    mut views: watch::Receiver<View>,
) -> Result<Compared, String> {
    let mut observer = source.join(SERVER_ID, 0).await.map_err(|error| error.to_string())?;
    let (pieces, mut incoming) = mpsc::channel(WAITING);
    let builder = tokio::task::spawn_blocking(move || {
        let mut fresh = ZkImport::beside();
        while let Some(piece) = incoming.blocking_recv() {
            match piece {
                Piece::Rows(bytes) => fresh.add_rows(&bytes)?,
                Piece::Copied(zxid) => fresh.copied(zxid),
                Piece::Transactions(bytes) => fresh.add_transactions(&bytes)?,
            }
        }
        Ok::<ZkImport, String>(fresh)
    });
    let framed = |bytes: &[u8]| Some(bytes).to_bytes();
    let (mut chunks, mut last) = (Chunks::default(), 0);
    loop {
        match observer.next().await.map_err(|error| error.to_string())? {
            Event::Snapshot { zxid } => last = zxid,
            Event::Rows(rows) => {
                for (kind, row) in rows.iter() {
                    let full = chunks.add_bytes(kind, row).map_err(|error| error.to_string())?;
                    if let Some(lot) = full {
                        put(&pieces, Piece::Rows(lot)).await?;
                    }
                }
            }
            Event::SnapshotEnd => {
                if let Some(lot) = std::mem::take(&mut chunks).finish() {
                    put(&pieces, Piece::Rows(lot)).await?;
                }
                put(&pieces, Piece::Copied(last)).await?;
            }
            Event::Diff => {
                put(&pieces, Piece::Rows(first_rows())).await?;
                put(&pieces, Piece::Copied(0)).await?;
            }
            Event::Transaction { zxid, bytes } => {
                last = zxid;
                put(&pieces, Piece::Transactions(framed(&bytes))).await?;
            }
            Event::NewLeader { .. } => break,
            Event::Truncate { .. } => return Err("the source has no transactions".to_owned()),
            Event::UpToDate | Event::Heard { .. } => {}
        }
    }
    // Exact from here on. The other copy may be ahead, or still behind.
    let zxid_of =
        |view: &View| view.state.zk_import(&name).map_or(i64::MAX, |import| import.tree.zxid());
    let mut held = Held::default();
    let view = loop {
        let full = tokio::select! {
            view = views.wait_for(|view| zxid_of(view) >= last) => match view {
                Ok(view) => break view.clone(),
                Err(_) => return Err("this server is stopping".to_owned()),
            },
            event = observer.next() => match event.map_err(|error| error.to_string())? {
                Event::Transaction { zxid, bytes } => held.add(zxid, bytes),
                _ => Vec::new(),
            },
        };
        for (zxid, bytes) in full {
            last = zxid;
            put(&pieces, Piece::Transactions(framed(&bytes))).await?;
        }
    };
    let import = view.state.zk_import(&name).cloned();
    let import: Arc<ZkImport> = import.ok_or_else(|| "the import is gone".to_owned())?;
    let target = import.tree.zxid();
    for (zxid, bytes) in held.up_to(target) {
        last = zxid;
        put(&pieces, Piece::Transactions(framed(&bytes))).await?;
    }
    while last < target {
        let event = observer.next().await.map_err(|error| error.to_string())?;
        if let Event::Transaction { zxid, bytes } = event {
            last = zxid;
            put(&pieces, Piece::Transactions(framed(&bytes))).await?;
        }
    }
    drop(pieces);
    let fresh = builder.await.map_err(|error| error.to_string())??;
    let difference = tokio::task::spawn_blocking(move || import.tree.difference(&fresh.tree));
    let difference = difference.await.map_err(|error| error.to_string())?;
    Ok(Compared { zxid: target, difference })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_bounded_and_none_of_it_is_lost() {
        let mut held = Held::default();
        let (mut applied, mut most) = (Vec::new(), 0);
        for zxid in 1..=100 {
            applied.extend(held.add(zxid, vec![0; 1 << 20]).into_iter().map(|(zxid, _)| zxid));
            most = most.max(held.bytes);
        }
        assert!(most <= ZK_HELD_BYTES_MAX, "{most}");
        let first = applied.len();
        assert!((31..100).contains(&first), "{first}");
        // Some of the rest is behind where the other copy is.
        applied.extend(held.up_to(98).into_iter().map(|(zxid, _)| zxid));
        assert_eq!(applied, (1..=98).collect::<Vec<i64>>());
    }

    #[test]
    fn many_small_ones_are_bounded_too() {
        let mut held = Held::default();
        let given_back = (1..).find(|zxid| !held.add(*zxid, Vec::new()).is_empty());
        assert!(
            given_back.is_some_and(|zxid| zxid as usize <= ZK_HELD_BYTES_MAX / HELD_OVERHEAD + 1)
        );
    }
}
