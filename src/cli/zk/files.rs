//! An import from a data directory.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::feed::{Feed, progress};
use super::import::Copy;
use crate::api::view::zk::{ZkImportRow, ZkStep};
use crate::cli::failure::Failure;
use crate::cli::output::note;
use crate::jute::digest::VERSION;
use crate::migrate::zookeeper::files::{Copied, Files};

/// Lots of transactions between who reads and who sends.
const LOTS: usize = 4;

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}

/// Copies all of it; goes on where an earlier command ended.
pub(super) async fn copy(
    path: &Path,
    logs: Option<&Path>,
    again: bool,
    feed: &Feed<'_>,
) -> Result<Copy, Failure> {
    let (path, logs) = (path.to_owned(), logs.map(Path::to_owned));
    let opened = tokio::task::spawn_blocking(move || Files::open(&path, logs.as_deref()));
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
            feed.step(&ZkStep::Copied { zxid, fuzzy: true }).await?
        }
        _ => row,
    };
    let copied = transactions(&files, copied, &row, feed).await?;
    for torn in &copied.torn {
        note(&format!(
            "note: {} ends within a transaction, which was never acknowledged",
            torn.display()
        ));
    }
    let row = feed.step(&ZkStep::Exact).await?;
    let known = copied.digest.filter(|digest| digest.version == VERSION);
    Ok(Copy {
        row,
        inventory: copied.inventory,
        source_digest: known.map(|digest| digest.digest.cast_unsigned()),
        losses: Vec::new(),
    })
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
    let (row, copied) = feed.all_rows(first, read).await?;
    bar.finish_and_clear();
    Ok((row, copied))
}

async fn transactions(
    files: &Arc<Files>,
    mut copied: Copied,
    row: &ZkImportRow,
    feed: &Feed<'_>,
) -> Result<Copied, Failure> {
    let (sender, mut lots) = mpsc::channel::<(i64, Vec<u8>)>(LOTS);
    let source = files.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let read = source.read_transactions(&mut copied, |after, lot| {
            sender.blocking_send((after, lot)).is_ok()
        });
        read.map(|()| copied)
    });
    let has = super::number(&row.zxid)?;
    let bar = progress(0, "transactions");
    while let Some((after, lot)) = lots.recv().await {
        // Lots are cut alike each time: what is there already is there whole.
        if after >= has {
            let row = feed.transactions(after, lot).await?;
            bar.set_length(row.transactions);
            bar.set_position(row.transactions);
        }
    }
    bar.finish_and_clear();
    reader.await.map_err(failed)?.map_err(failed)
}
