//! An import as an observer of an ensemble: the tree of one moment, with sessions and all else.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::feed::{Feed, progress};
use super::import::Copy;
use crate::api::view::zk::ZkStep;
use crate::cli::failure::Failure;
use crate::jute::digest::VERSION;
use crate::jute::txn::Transaction;
use crate::jute::{Field, Reader};
use crate::migrate::zookeeper::chunks::{Chunks, TransactionLots, first_rows};
use crate::migrate::zookeeper::inventory::Inventory;
use crate::migrate::zookeeper::link::LiveSource;
use crate::zookeeper::observer::Event;

/// A number that is neither the ensemble's nor of a migration.
const SERVER_ID: i64 = 247;
/// Lots between who reads and who sends.
const LOTS: usize = 8;

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// What an ensemble sends, in this order.
#[derive(Debug)]
pub(super) enum Piece {
    /// Rows of its tree.
    Rows(Vec<u8>),
    /// All rows have come; the newest transaction that they surely have.
    Copied(i64),
    /// Transactions behind the one that is named.
    Transactions(i64, Vec<u8>),
}

/// What an ensemble sent.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What its tree held when the copy was begun; transactions behind it are not counted in.
    pub(super) inventory: Inventory,
    /// The newest transaction that came.
    pub(super) zxid: i64,
    /// How many transactions came behind the copy.
    pub(super) count: u64,
    /// The tree's digest behind the last transaction that carries one.
    pub(super) digest: Option<u64>,
}

/// Reads what an ensemble sends until that is exact; all of it goes to `take`, and no more is read
/// before that has taken it.
pub(super) async fn read(
    source: &LiveSource,
    mut take: impl AsyncFnMut(Piece) -> Result<(), Failure>,
    nodes: impl Fn(u64),
) -> Result<Seen, Failure> {
    let mut observer = source.join(SERVER_ID, 0).await.map_err(failed)?;
    let (mut seen, mut chunks) = (Seen::default(), Chunks::default());
    let mut lots = TransactionLots::default();
    let mut after = 0;
    loop {
        match observer.next().await.map_err(failed)? {
            Event::Snapshot { zxid } => {
                (seen.zxid, after) = (zxid, zxid);
            }
            Event::Diff => {
                take(Piece::Rows(first_rows())).await?;
                take(Piece::Copied(0)).await?;
            }
            Event::Rows(rows) => {
                for (kind, bytes) in rows.iter() {
                    seen.inventory.add(&kind.read(bytes).map_err(failed)?);
                    if let Some(lot) = chunks.add_bytes(kind, bytes).map_err(failed)? {
                        take(Piece::Rows(lot)).await?;
                    }
                }
                nodes(seen.inventory.nodes);
            }
            Event::SnapshotEnd => {
                if let Some(lot) = std::mem::take(&mut chunks).finish() {
                    take(Piece::Rows(lot)).await?;
                }
                take(Piece::Copied(seen.zxid)).await?;
            }
            Event::Transaction { zxid, bytes } => {
                if let Some(lot) = lots.add(zxid, &bytes).map_err(failed)? {
                    take(Piece::Transactions(after, lot)).await?;
                    after = seen.zxid;
                }
                let transaction = Transaction::read(&mut Reader::new(&bytes)).map_err(failed)?;
                if let Some(digest) = transaction.digest.filter(|digest| digest.version == VERSION)
                {
                    seen.digest = Some(digest.digest.cast_unsigned());
                }
                seen.zxid = zxid;
                seen.count += 1;
            }
            Event::NewLeader { .. } => break,
            Event::Truncate { .. } => return Err(failed("the source has no transactions")),
            Event::UpToDate | Event::Heard { .. } => {}
        }
    }
    if let Some(lot) = lots.take() {
        take(Piece::Transactions(after, lot)).await?;
    }
    Ok(seen)
}

/// Copies all of it, as it is at one moment.
pub(super) async fn copy(
    source: &LiveSource,
    again: bool,
    feed: &Feed<'_>,
) -> Result<Copy, Failure> {
    feed.start_stream(&source.to_string(), again).await?;
    let bar = progress(0, "nodes");
    let counted = bar.clone();
    let (sender, pieces) = mpsc::channel::<Piece>(LOTS);
    let reading = async {
        let sender = sender;
        let gone = || failed("what came was not taken");
        let take = async |piece: Piece| sender.send(piece).await.map_err(|_| gone());
        read(source, take, |nodes| {
            counted.set_length(nodes);
            counted.set_position(nodes);
        })
        .await
    };
    let (seen, sent) = tokio::join!(reading, send(pieces, feed));
    bar.finish_and_clear();
    sent?;
    let seen = seen?;
    let row = feed.step(&ZkStep::Exact).await?;
    let losses = Vec::new();
    Ok(Copy { row, inventory: seen.inventory, source_digest: seen.digest, losses })
}

/// Sends all pieces into the import, those that come while others are on their way no sooner.
async fn send(mut pieces: mpsc::Receiver<Piece>, feed: &Feed<'_>) -> Result<(), Failure> {
    let (rows, lots) = mpsc::channel::<Bytes>(1);
    let copied = async {
        let rows = rows;
        while let Some(piece) = pieces.recv().await {
            match piece {
                Piece::Rows(lot) => rows.send(lot.into()).await.ok()?,
                Piece::Copied(zxid) => return Some(zxid),
                Piece::Transactions(..) => return None,
            }
        }
        None
    };
    let (copied, sent) = tokio::join!(copied, feed.rows(0, lots));
    sent?;
    // Whoever reads says itself why it did not come to the end.
    let Some(zxid) = copied else { return Ok(()) };
    feed.step(&ZkStep::Copied { zxid: format!("{zxid:#x}"), fuzzy: true }).await?;
    while let Some(piece) = pieces.recv().await {
        if let Piece::Transactions(after, lot) = piece {
            feed.transactions(after, lot).await?;
        }
    }
    Ok(())
}
