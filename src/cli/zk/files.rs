//! An import from a data directory.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::feed::{Feed, progress};
use super::import::{Copy, Proof, hex, is_digest_of};
use crate::api::view::zk::{ZkImportRow, ZkStep};
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::cli::words::count;
use crate::limits::ZK_EXAMPLES_MAX;
use crate::migrate::zookeeper::files::{Copied, Files, TransactionLot};
use crate::zookeeper::data_dir::{DataDir, DataDirError};

/// Lots of transactions between who reads and who sends.
const LOTS: usize = 4;

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// Looks whether there is something to copy at all: a wrong name is told before any server is asked.
async fn look(path: &Path, logs: Option<&Path>) -> Result<(), Failure> {
    let (path, logs) = (path.to_owned(), logs.map(Path::to_owned));
    let found = tokio::task::spawn_blocking(move || DataDir::find(&path, logs.as_deref()));
    match found.await.map_err(failed)? {
        Ok(_) => Ok(()),
        Err(error @ DataDirError::Open { .. }) => Err(failed(error).hint(
            "name the directory that dataDir names in the source's zoo.cfg (and with --log-dir that \
             of dataLogDir), or a copy of it on this host",
        )),
        Err(error) => Err(failed(error)),
    }
}

/// Copies all of it; goes on where an earlier command ended.
pub(super) async fn copy(
    path: &Path,
    logs: Option<&Path>,
    again: bool,
    feed: &Feed<'_>,
) -> Result<Copy, Failure> {
    look(path, logs).await?;
    let (path, logs) = (path.to_owned(), logs.map(Path::to_owned));
    let begun = feed.find().await?.filter(|row| {
        !again && matches!(row.phase.as_str(), "copying" | "catching_up" | "following")
    });
    let begun = begun.map(|row| row.source);
    let opened = tokio::task::spawn_blocking(move || {
        Files::open_begun(&path, logs.as_deref(), begun.as_deref())
    });
    let files = Arc::new(opened.await.map_err(failed)?.map_err(failed)?);
    for refused in files.refused() {
        note(&format!("note: a newer snapshot is not whole and is passed over: {refused}"));
    }
    let source = files.identity.clone();
    let start = feed.step(&ZkStep::Start { source, live: false, again }).await?;
    let (row, copied) = rows(&files, &start, feed).await?;
    let row = match row.phase.as_str() {
        "copying" => {
            let zxid = format!("{:#x}", files.snapshot_zxid());
            let generation = row.generation;
            feed.step(&ZkStep::Copied { generation, zxid, fuzzy: true }).await?
        }
        _ => row,
    };
    let (row, copied, right) = transactions(&files, copied, row, feed).await?;
    for torn in &copied.torn {
        note(&format!(
            "note: {} ends within a transaction, which was never acknowledged",
            torn.display()
        ));
    }
    let proof = proof(files, &row, &copied, right == Some(true)).await?;
    Ok(Copy { row, inventory: copied.inventory, proof, losses: Vec::new() })
}

/// What the files say of the copy, now that it has all of them.
async fn proof(
    files: Arc<Files>,
    row: &ZkImportRow,
    copied: &Copied,
    right_at_first: bool,
) -> Result<Proof, Failure> {
    if copied.zxid < copied.exact_from {
        return Ok(Proof::Open(format!(
            "the logs end at {:#x}, and the snapshot was finished at {:#x}: it may have parts of \
             transactions that are missing",
            copied.zxid, copied.exact_from
        )));
    }
    if let Some(since) = &row.unverified_since {
        let zxid = super::number(since)?;
        let wrote = tokio::task::spawn_blocking(move || files.paths_of(zxid));
        let wrote = wrote.await.map_err(failed)?.map_err(failed)?;
        let at = match wrote.as_slice() {
            [] => "no node".to_owned(),
            some => some[..some.len().min(ZK_EXAMPLES_MAX)].join(", "),
        };
        let place = match row.proven > 0 || right_at_first {
            true => {
                format!("the copy was right before it, so what differs, if anything, began at {at}")
            }
            false => format!(
                "it wrote {at}; no digest was equal before, so where it differs is not known"
            ),
        };
        return Ok(Proof::Open(format!(
            "from the transaction {since} on, the digests that the logs tell are not those of the \
             copy ({} in all); {place}",
            count(row.mismatches, "mismatch", "mismatches")
        )));
    }
    match (copied.digest.filter(|_| row.proven > 0), copied.snapshot_digest) {
        (Some(digest), _) => Ok(Proof::Digest(digest)),
        (None, Some(digest)) if is_digest_of(row, digest) => Ok(Proof::Digest(digest)),
        (None, Some(digest)) => Ok(Proof::Open(format!(
            "the snapshot says that the digest is {}, and that of the copy is {}",
            hex(digest),
            row.digest
        ))),
        (None, None) => Ok(Proof::Silent),
    }
}

async fn rows(
    files: &Arc<Files>,
    start: &ZkImportRow,
    feed: &Feed<'_>,
) -> Result<(ZkImportRow, Copied), Failure> {
    // What is there is read again as well: its figures and the digest are wanted, and that is
    // quick beside sending it.
    let first = if start.phase == "copying" { start.next_chunk } else { u64::MAX };
    if first > 0 {
        note(&format!("going on behind lot {}", start.next_chunk));
    }
    let (source, bar) = (files.clone(), progress(files.nodes(), "nodes"));
    let counted = bar.clone();
    let read = move |take: &mut dyn FnMut(Vec<u8>) -> bool| {
        counted.reset();
        let nodes = source.nodes();
        let lots = source.lots_about();
        let mut number = 0;
        source.read_snapshot(|lot| {
            number += 1;
            counted.set_position(nodes.min(nodes * number / lots.max(1)));
            take(lot)
        })
    };
    if first == u64::MAX {
        let copied = tokio::task::spawn_blocking(move || read(&mut |_| true));
        let copied = copied.await.map_err(failed)?.map_err(failed)?;
        bar.finish_and_clear();
        return Ok((start.clone(), copied));
    }
    let (row, copied) = feed.all_rows(start.generation, first, read).await?;
    bar.finish_and_clear();
    Ok((row, copied))
}

/// Sends what is behind the snapshot and not here yet; and whether the copy was right where the
/// snapshot was finished, if that was seen now.
async fn transactions(
    files: &Arc<Files>,
    mut copied: Copied,
    mut row: ZkImportRow,
    feed: &Feed<'_>,
) -> Result<(ZkImportRow, Copied, Option<bool>), Failure> {
    let (sender, mut lots) = mpsc::channel::<TransactionLot>(LOTS);
    let (source, has) = (files.clone(), super::number(&row.zxid)?);
    let (exact_from, snapshot_digest) = (copied.exact_from, copied.snapshot_digest);
    let reader = tokio::task::spawn_blocking(move || {
        let read =
            source.read_transactions(&mut copied, has, |lot| sender.blocking_send(lot).is_ok());
        read.map(|()| copied)
    });
    let generation = row.generation;
    let exact = async |row: ZkImportRow| {
        if row.phase != "catching_up" {
            return Ok((row, None));
        }
        let right = snapshot_digest.map(|digest| is_digest_of(&row, digest));
        // From now on the digest of each transaction is compared there.
        Ok::<_, Failure>((feed.step(&ZkStep::Exact { generation }).await?, right))
    };
    let mut right = None;
    let bar = progress(0, "transactions");
    while let Some(lot) = lots.recv().await {
        if lot.first > exact_from {
            right = right.or(exact(row).await?.1);
        }
        row = feed.transactions(generation, lot.after, lot.bytes).await?;
        bar.set_length(row.transactions);
        bar.set_position(row.transactions);
    }
    bar.finish_and_clear();
    let copied = reader.await.map_err(failed)?.map_err(failed)?;
    if copied.zxid >= exact_from {
        let (now, seen) = exact(row).await?;
        (row, right) = (now, right.or(seen));
    }
    Ok((row, copied, right))
}
