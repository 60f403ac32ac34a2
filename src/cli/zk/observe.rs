//! An import as an observer of an ensemble: the tree of one moment, with sessions and all else.
//!
//! What was copied of it whole, and each transaction behind it, stays when the command ends: joined
//! again, the ensemble sends what came since. Only a tree that is half here is sent anew.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::feed::{Feed, progress};
use super::import::{Copy, Proof, is_digest_of};
use super::wait;
use crate::api::view::zk::{ZkImportRow, ZkStep};
use crate::cli::client::{Call, byte_stream};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::note;
use crate::jute::digest::VERSION;
use crate::jute::txn::Transaction;
use crate::jute::{Field, Reader};
use crate::migrate::zookeeper::chunks::{Chunks, TransactionLots, first_rows};
use crate::migrate::zookeeper::inventory::Inventory;
use crate::migrate::zookeeper::link::LiveSource;
use crate::migrate::zookeeper::second::{SecondCopy, difference};
use crate::zookeeper::observer::{Event, Observer};

/// A number that is neither the ensemble's nor of a migration.
const SERVER_ID: i64 = 247;
/// The second copy's.
const SECOND_ID: i64 = 246;
/// Lots between who reads and who sends.
const LOTS: usize = 8;
/// How often a connection that broke is made again.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// What an ensemble sent.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What its tree held when the copy was begun; transactions behind it are not counted in.
    pub(super) inventory: Inventory,
    /// The newest transaction that came.
    pub(super) zxid: i64,
    /// Transactions behind the copy.
    pub(super) count: u64,
}

/// Reads what an ensemble sends until that is exact, and keeps nothing of it.
pub(super) async fn look(source: &LiveSource) -> Result<Seen, Failure> {
    let mut observer = wait::join(source, SERVER_ID, 0).await.map_err(failed)?;
    let mut seen = Seen::default();
    loop {
        match observer.next().await.map_err(failed)? {
            Event::Snapshot { zxid } => seen.zxid = zxid,
            Event::Rows(rows) => {
                for (kind, bytes) in rows.iter() {
                    seen.inventory.add(&kind.read(bytes).map_err(failed)?);
                }
            }
            Event::Transaction { zxid, .. } => {
                seen.zxid = zxid;
                seen.count += 1;
            }
            Event::NewLeader { .. } => return Ok(seen),
            Event::Truncate { .. } => return Err(truncated()),
            Event::Diff | Event::SnapshotEnd | Event::UpToDate | Event::Heard { .. } => {}
        }
    }
}

fn truncated() -> Failure {
    failed(
        "the source does not have the transactions that are here: it is another one, or lost them",
    )
    .hint("look at the source; --again copies it anew")
}

/// Why learning ended before the end.
enum End {
    /// It goes on from where the import is.
    Broken(Failure),
    Failed(Failure),
}

fn broken(error: impl std::fmt::Display) -> End {
    End::Broken(failed(error))
}

/// What a server refuses stays refused; who can't be reached may be back.
fn of_server(failure: Failure) -> End {
    match failure.exit == Exit::FAILED {
        true => End::Broken(failure),
        false => End::Failed(failure),
    }
}

/// Copies all of it, as it is at one moment, and holds it against what the source says of it or
/// against a second copy. `label` names the source in the import.
pub(super) async fn copy(
    source: &LiveSource,
    label: &str,
    again: bool,
    feed: &Feed<'_>,
) -> Result<Copy, Failure> {
    let start = ZkStep::Start { source: label.to_owned(), live: false, again };
    let row = feed.step(&start).await?;
    if row.phase != "copying" {
        note(&format!("going on behind the transaction {}", row.zxid));
    }
    let inventory = Inventory::default();
    let mut learner = Learner { source, feed, row, inventory, digest: None, joined: false };
    learner.learn().await?;
    let proof = match learner.digest {
        Some(digest) if is_digest_of(&learner.row, digest) => Proof::Digest(digest),
        _ => learner.compare().await?,
    };
    let Learner { row, inventory, .. } = learner;
    Ok(Copy { row, inventory, proof, losses: Vec::new() })
}

/// What is learnt, and what the import has of it.
struct Learner<'l> {
    source: &'l LiveSource,
    feed: &'l Feed<'l>,
    row: ZkImportRow,
    /// Of the tree, if it was sent.
    inventory: Inventory,
    /// Behind the last transaction that carries one.
    digest: Option<u64>,
    /// Whether the source has let us in.
    joined: bool,
}

/// Transactions that the import does not have yet.
struct Behind {
    after: i64,
    last: i64,
    lots: TransactionLots,
}

impl Learner<'_> {
    /// Brings the import to where the source is.
    async fn learn(&mut self) -> Result<(), Failure> {
        let mut tries = 0;
        loop {
            match self.try_learn().await {
                Ok(()) => return Ok(()),
                Err(End::Failed(failure)) => return Err(failure),
                Err(End::Broken(failure)) => {
                    tries += 1;
                    if tries >= TRIES {
                        return Err(failure.hint("the same command goes on where this one ended"));
                    }
                    note(&format!("{failure}; joining again"));
                    tokio::time::sleep(PAUSE).await;
                    self.row = self.feed.same(self.row.generation).await?;
                }
            }
        }
    }

    async fn try_learn(&mut self) -> Result<(), End> {
        if self.row.phase == "copying" {
            // Rows come in no certain order: what is there can't be told from what is missing. And
            // those of an earlier try may still be on their way, even if none has come.
            let begun = self.row.next_chunk > 0;
            let why = "the copy was interrupted before its tree was whole";
            self.anew(if begun { why } else { "" }).await?;
        }
        let has = match self.row.phase.as_str() {
            "copying" => 0,
            _ => super::number(&self.row.zxid).map_err(End::Failed)?,
        };
        let joined = wait::join(self.source, SERVER_ID, has).await;
        // Whoever let us in before will again, if another leads by now.
        let mut observer = joined.map_err(|error| match self.joined {
            true => broken(error),
            false => End::Failed(failed(error)),
        })?;
        self.joined = true;
        let mut behind = Behind { after: has, last: has, lots: TransactionLots::default() };
        let bar = progress(0, "transactions");
        loop {
            match observer.next().await.map_err(broken)? {
                Event::Snapshot { zxid } => {
                    if self.row.phase != "copying" {
                        let why = "the source no longer has the transactions behind those here";
                        self.anew(why).await?;
                    }
                    self.rows(&mut observer).await?;
                    self.copied(zxid).await?;
                    (behind.after, behind.last) = (zxid, zxid);
                }
                Event::Diff if self.row.phase == "copying" => {
                    // An ensemble that still has every transaction since its beginning.
                    let (sender, lots) = mpsc::channel(1);
                    let _ = sender.try_send(Bytes::from(first_rows()));
                    drop(sender);
                    self.feed.rows(self.row.generation, 0, lots).await.map_err(of_server)?;
                    self.copied(0).await?;
                }
                Event::Transaction { zxid, bytes } => {
                    let full = behind.lots.add(zxid, &bytes);
                    if let Some(lot) = full.map_err(|error| End::Failed(failed(error)))? {
                        self.apply(&mut behind, lot).await?;
                        bar.set_length(self.row.transactions);
                        bar.set_position(self.row.transactions);
                    }
                    behind.last = zxid;
                    let transaction = Transaction::read(&mut Reader::new(&bytes));
                    let transaction = transaction.map_err(|error| End::Failed(failed(error)))?;
                    if let Some(says) = transaction.digest.filter(|says| says.version == VERSION) {
                        self.digest = Some(says.digest.cast_unsigned());
                    }
                }
                Event::NewLeader { .. } => break,
                Event::Truncate { .. } => return Err(End::Failed(truncated())),
                Event::Rows(_)
                | Event::SnapshotEnd
                | Event::Diff
                | Event::UpToDate
                | Event::Heard { .. } => {}
            }
        }
        if let Some(lot) = behind.lots.take() {
            self.apply(&mut behind, lot).await?;
        }
        bar.finish_and_clear();
        let exact = ZkStep::Exact { generation: self.row.generation };
        self.row = self.feed.step(&exact).await.map_err(of_server)?;
        Ok(())
    }

    async fn anew(&mut self, why: &str) -> Result<(), End> {
        if !why.is_empty() {
            note(&format!("{why}: it is copied anew"));
        }
        self.row = self.feed.anew(&self.row, why).await.map_err(of_server)?;
        Ok(())
    }

    /// Sends all rows of the tree on.
    async fn rows(&mut self, observer: &mut Observer) -> Result<(), End> {
        let bar = progress(0, "nodes");
        let (sender, lots) = mpsc::channel::<Bytes>(LOTS);
        let mut inventory = Inventory::default();
        let reading = async {
            let sender = sender;
            let mut chunks = Chunks::default();
            loop {
                match observer.next().await.map_err(broken)? {
                    Event::Rows(rows) => {
                        for (kind, bytes) in rows.iter() {
                            let wrong = |error: String| End::Failed(failed(error));
                            let row = kind.read(bytes).map_err(|error| wrong(error.to_string()))?;
                            inventory.add(&row);
                            let full = chunks.add_bytes(kind, bytes);
                            if let Some(lot) = full.map_err(|error| wrong(error.to_string()))? {
                                // Who takes rows says itself why it does not.
                                if sender.send(lot.into()).await.is_err() {
                                    return Err(broken("the rows were not taken"));
                                }
                            }
                        }
                        bar.set_length(inventory.nodes);
                        bar.set_position(inventory.nodes);
                    }
                    Event::SnapshotEnd => break,
                    _ => {}
                }
            }
            if let Some(lot) = chunks.finish() {
                let _ = sender.send(lot.into()).await;
            }
            Ok(())
        };
        let (read, sent) = tokio::join!(reading, self.feed.rows(self.row.generation, 0, lots));
        bar.finish_and_clear();
        sent.map_err(of_server)?;
        read?;
        self.inventory = inventory;
        Ok(())
    }

    async fn copied(&mut self, zxid: i64) -> Result<(), End> {
        let (generation, zxid) = (self.row.generation, format!("{zxid:#x}"));
        let step = ZkStep::Copied { generation, zxid, fuzzy: true };
        self.row = self.feed.step(&step).await.map_err(of_server)?;
        self.digest = None;
        Ok(())
    }

    /// A lot that holds all up to `behind.last`.
    async fn apply(&mut self, behind: &mut Behind, lot: Vec<u8>) -> Result<(), End> {
        let sent = self.feed.transactions(self.row.generation, behind.after, lot).await;
        self.row = sent.map_err(of_server)?;
        behind.after = behind.last;
        Ok(())
    }

    /// Holds the copy against a second one, at the same transaction.
    async fn compare(&mut self) -> Result<Proof, Failure> {
        note(match self.digest {
            Some(_) => {
                "the source's last digest is not that of the copy, which ZooKeeper gets wrong \
                 itself at times: comparing it with a second copy"
            }
            None => "the source says no digest: comparing the copy with a second one",
        });
        let second = SecondCopy::take(self.source, SECOND_ID).await;
        let mut second = match second {
            Ok(second) => second,
            Err(error) => return Ok(Proof::Open(format!("no second copy could be had: {error}"))),
        };
        if super::number(&self.row.zxid)? != second.zxid() {
            self.learn().await?;
        }
        let has = super::number(&self.row.zxid)?;
        if let Err(error) = second.follow_to(has).await {
            return Ok(Proof::Open(format!("the second copy broke off: {error}")));
        }
        if second.zxid() != has {
            let at = second.zxid();
            return Err(failed(format!("the source went back from {at:#x} to {has:#x}")));
        }
        let path = ["zk", "imports", self.row.name.as_str(), "snapshot"];
        let call = Call::get(path).streaming("application/octet-stream");
        let client = &self.feed.context.client;
        let mut blocks = byte_stream(client.send(call).await?);
        let mut file = tempfile::tempfile()
            .map_err(|error| failed(format!("a file to compare with: {error}")))?;
        while let Some(block) = blocks.next().await {
            file.write_all(&block?).map_err(failed)?;
        }
        let second = second.finish().await.map_err(failed)?;
        let compared = tokio::task::spawn_blocking(move || {
            file.seek(SeekFrom::Start(0)).map_err(|error| error.to_string())?;
            difference(file, &second).map_err(|error| error.to_string())
        });
        match compared.await.map_err(failed)?.map_err(failed)? {
            None => Ok(Proof::Compared),
            Some(place) => {
                let reason = format!("the copy differs from the source: {place}");
                // Or it would be gone on with, and digests say nothing of access lists and sessions.
                let generation = Some(self.row.generation);
                let over = ZkStep::Abort { reason: reason.clone(), generation, open: false };
                self.feed.step(&over).await?;
                let hint = "nothing was changed for clients; the same command copies it anew";
                Err(failed(reason).hint(hint))
            }
        }
    }
}
