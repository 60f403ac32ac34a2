//! What an observer is told.

use crate::jute::rows::Rows;

/// What an observer is told, in this order: [`Self::Snapshot`] with its rows, [`Self::Diff`] or
/// [`Self::Truncate`]; transactions; [`Self::NewLeader`]; transactions; [`Self::UpToDate`];
/// transactions without end. [`Self::Heard`] comes between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The whole tree comes; what was here before is void.
    Snapshot {
        /// The last transaction that is surely in it. Later ones may be in it in part.
        zxid: i64,
    },
    /// Rows of the tree, in the order of [`crate::jute::rows`].
    Rows(Rows),
    /// That was all of the tree.
    SnapshotEnd,
    /// Only what was missed comes.
    Diff,
    /// The leader does not have what is here: it has lost committed transactions, or this is
    /// another ensemble. Nobody should go on from here without a person.
    Truncate {
        /// The last transaction that the leader has.
        zxid: i64,
    },
    /// A committed transaction. None is missing between two, and none comes twice.
    Transaction {
        /// Its number.
        zxid: i64,
        /// It, as [`crate::jute::txn::Transaction`] reads it.
        bytes: Vec<u8>,
    },
    /// All that came while the tree was written has come: from now on the tree is exact.
    NewLeader {
        /// The leader's epoch.
        epoch: i64,
    },
    /// The leader counts this observer as one that is up to date.
    UpToDate,
    /// A sign of life: how far the leader is.
    Heard {
        /// The last transaction that it has proposed; its counter is 0 if there is none in its
        /// epoch yet.
        zxid: i64,
    },
}
