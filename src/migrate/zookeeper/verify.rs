//! A copy held against a fresh one: all nodes, access lists and sessions, at the same transaction.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::chunks::{Chunks, first_rows};
use super::link::LiveSource;
use crate::consensus::View;
use crate::jute::Field;
use crate::state::znodes::ZkImport;
use crate::zookeeper::observer::Event;

/// A number that is neither the ensemble's nor the one that follows it.
const SERVER_ID: i64 = 249;
/// Pieces that wait for whoever builds the tree.
const WAITING: usize = 16;

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
    let put = async |piece: Piece| {
        pieces.send(piece).await.map_err(|_| "the second copy can't be built".to_owned())
    };
    let framed = |bytes: &[u8]| Some(bytes).to_bytes();
    let (mut chunks, mut last) = (Chunks::default(), 0);
    loop {
        match observer.next().await.map_err(|error| error.to_string())? {
            Event::Snapshot { zxid } => last = zxid,
            Event::Rows(rows) => {
                for (kind, row) in rows.iter() {
                    let full = chunks.add_bytes(kind, row).map_err(|error| error.to_string())?;
                    if let Some(lot) = full {
                        put(Piece::Rows(lot)).await?;
                    }
                }
            }
            Event::SnapshotEnd => {
                if let Some(lot) = std::mem::take(&mut chunks).finish() {
                    put(Piece::Rows(lot)).await?;
                }
                put(Piece::Copied(last)).await?;
            }
            Event::Diff => {
                put(Piece::Rows(first_rows())).await?;
                put(Piece::Copied(0)).await?;
            }
            Event::Transaction { zxid, bytes } => {
                last = zxid;
                put(Piece::Transactions(framed(&bytes))).await?;
            }
            Event::NewLeader { .. } => break,
            Event::Truncate { .. } => return Err("the source has no transactions".to_owned()),
            Event::UpToDate | Event::Heard { .. } => {}
        }
    }
    // Exact from here on. The other copy may be ahead, or still behind.
    let zxid_of =
        |view: &View| view.state.zk_import(&name).map_or(i64::MAX, |import| import.tree.zxid());
    let mut held = Vec::new();
    let view = loop {
        tokio::select! {
            view = views.wait_for(|view| zxid_of(view) >= last) => match view {
                Ok(view) => break view.clone(),
                Err(_) => return Err("this server is stopping".to_owned()),
            },
            event = observer.next() => {
                let event = event.map_err(|error| error.to_string())?;
                if let Event::Transaction { zxid, bytes } = event {
                    held.push((zxid, bytes));
                }
            }
        }
    };
    let import = view.state.zk_import(&name).cloned();
    let import: Arc<ZkImport> = import.ok_or_else(|| "the import is gone".to_owned())?;
    let target = import.tree.zxid();
    for (zxid, bytes) in held {
        if zxid <= target {
            last = zxid;
            put(Piece::Transactions(framed(&bytes))).await?;
        }
    }
    while last < target {
        let event = observer.next().await.map_err(|error| error.to_string())?;
        if let Event::Transaction { zxid, bytes } = event {
            last = zxid;
            put(Piece::Transactions(framed(&bytes))).await?;
        }
    }
    drop(pieces);
    let fresh = builder.await.map_err(|error| error.to_string())??;
    let difference = tokio::task::spawn_blocking(move || import.tree.difference(&fresh.tree));
    let difference = difference.await.map_err(|error| error.to_string())?;
    Ok(Compared { zxid: target, difference })
}
