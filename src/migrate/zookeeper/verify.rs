//! A copy held against a fresh one: all nodes, access lists and sessions, at the same transaction.
//!
//! The fresh one is exact at some transaction, and the other is ahead of that or behind it. What
//! comes for the fresh one while the other comes up is held back, since no more of it may be
//! applied than the other has then. Where that becomes too much it is applied, and the other has
//! to come up to there: nothing is lost, and memory is bounded.

use std::sync::Arc;

use tokio::sync::watch;

use super::link::LiveSource;
use super::second::{SecondCopy, SecondCopyError};
use crate::consensus::View;
use crate::limits::ZK_HELD_BYTES_MAX;
use crate::state::znodes::ZkImport;

/// A number that is neither the ensemble's nor the one that follows it.
const SERVER_ID: i64 = 249;
/// What a transaction takes beside its bytes.
const HELD_OVERHEAD: usize = 48;

/// What came of it.
pub(super) struct Compared {
    /// The transaction at which both were.
    pub(super) zxid: i64,
    /// Where they differ; none: nowhere.
    pub(super) difference: Option<String>,
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

/// Takes a second copy of the source, and compares that of the import with it.
///
/// # Errors
/// Why that can't be done now.
pub(super) async fn compare(
    source: LiveSource,
    name: String,
    mut views: watch::Receiver<View>,
) -> Result<Compared, String> {
    let said = |error: SecondCopyError| error.to_string();
    let mut fresh = SecondCopy::take(&source, SERVER_ID).await.map_err(said)?;
    // Exact from here on. The other copy may be ahead, or still behind.
    let zxid_of =
        |view: &View| view.state.zk_import(&name).map_or(i64::MAX, |import| import.tree.zxid());
    let mut held = Held::default();
    let view = loop {
        let has = fresh.zxid();
        let full = tokio::select! {
            view = views.wait_for(|view| zxid_of(view) >= has) => match view {
                Ok(view) => break view.clone(),
                Err(_) => return Err("this server is stopping".to_owned()),
            },
            next = fresh.next() => match next.map_err(said)? {
                Some((zxid, transaction)) => held.add(zxid, transaction),
                None => Vec::new(),
            },
        };
        for (zxid, transaction) in full {
            fresh.apply(zxid, transaction).await.map_err(said)?;
        }
    };
    let import = view.state.zk_import(&name).cloned();
    let import: Arc<ZkImport> = import.ok_or_else(|| "the import is gone".to_owned())?;
    let target = import.tree.zxid();
    for (zxid, transaction) in held.up_to(target) {
        fresh.apply(zxid, transaction).await.map_err(said)?;
    }
    fresh.follow_to(target).await.map_err(said)?;
    let fresh = fresh.finish().await.map_err(said)?;
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
