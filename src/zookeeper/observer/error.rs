//! Why an observer gets nothing, or nothing more.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::jute::codec;
use crate::jute::rows::RowError;

/// What was going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum During {
    /// The connection was being made.
    Connecting,
    /// The leader was asked to let an observer join.
    Joining,
    /// The leader was to say what it sends.
    Syncing,
    /// The tree came.
    Snapshot,
    /// Transactions came.
    Following,
}

impl fmt::Display for During {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "while connecting",
            Self::Joining => "when it was asked to let an observer join",
            Self::Syncing => "before it sent anything",
            Self::Snapshot => "within the snapshot",
            Self::Following => "while its transactions were followed",
        })
    }
}

/// Why an observer gets nothing, or nothing more.
#[derive(Debug, thiserror::Error)]
pub enum ObserverError {
    /// No connection.
    #[error("{address}: {source}{}", connect_hint(source))]
    Connect {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Nothing came for too long.
    #[error("{address}: nothing came for {} ms {during}{}", wait.as_millis(), hint(*during))]
    Silent {
        /// Where.
        address: String,
        /// When.
        during: During,
        /// How long.
        wait: Duration,
    },
    /// The other side closed the connection.
    #[error("{address} closed the connection {during}{}", hint(*during))]
    Closed {
        /// Where.
        address: String,
        /// When.
        during: During,
    },
    /// The connection broke.
    #[error("{address}: the connection broke {during}: {source}")]
    Broken {
        /// Where.
        address: String,
        /// When.
        during: During,
        /// How.
        source: io::Error,
    },
    /// The other side speaks TLS.
    #[error(
        "{address} speaks TLS (sslQuorum=true in its zoo.cfg), which is not spoken here: \
         set portUnification=true there for the time of the migration, \
         or read the ensemble's files or its clients' port (zk://…) instead"
    )]
    Tls {
        /// Where.
        address: String,
    },
    /// Something that no leader of ZooKeeper says.
    #[error("{address}: {what} {during}: this is not the quorum port of a ZooKeeper from 3.4 on")]
    Foreign {
        /// Where.
        address: String,
        /// When.
        during: During,
        /// What came.
        what: String,
    },
    /// A message that can't be read.
    #[error("{address}: a message that can't be read, {during}: {error}")]
    Message {
        /// Where.
        address: String,
        /// When.
        during: During,
        /// Why.
        error: codec::Error,
    },
    /// A row of the tree that can't be.
    #[error("{address}: in {place} of the snapshot: {error}")]
    Row {
        /// Where.
        address: String,
        /// In which table.
        place: &'static str,
        /// Why.
        error: RowError,
    },
    /// Something else than the end behind the tree.
    #[error("{address}: the snapshot does not end as it should")]
    SnapshotEnd {
        /// Where.
        address: String,
    },
    /// A commit of something else than the oldest proposal.
    #[error("{address}: {committed:#x} is committed, but {} is next", proposal(*.proposed))]
    Commit {
        /// Where.
        address: String,
        /// What is committed.
        committed: i64,
        /// The oldest proposal.
        proposed: Option<i64>,
    },
    /// More is proposed than can be held.
    #[error("{address}: more than {max} bytes are proposed and not committed")]
    TooMuchProposed {
        /// Where.
        address: String,
        /// The bound.
        max: usize,
    },
    /// Transactions are missing.
    #[error("{address}: the transactions between {after:#x} and {found:#x} did not come")]
    Gap {
        /// Where.
        address: String,
        /// The last one before.
        after: i64,
        /// The next one.
        found: i64,
    },
    /// It has ended with an error that was told already.
    #[error("the observer has ended")]
    Ended,
}

fn connect_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::ConnectionRefused => {
            "; only the leader of an ensemble listens on its quorum port \
             (2888 unless zoo.cfg says otherwise), and a standalone server has none"
        }
        _ => "",
    }
}

fn hint(during: During) -> &'static str {
    match during {
        During::Connecting => "; is a firewall between?",
        During::Joining => {
            "; it may ask learners to prove who they are (quorum.auth.learnerRequireSasl or \
             sslQuorum in its zoo.cfg), have no quorum, or this may be another of its ports; \
             where it can't be changed, read the ensemble's files or its clients' port (zk://…)"
        }
        During::Syncing => {
            "; it sends few snapshots at a time (leader.maxConcurrentSnapSyncs) \
             and may have lost its quorum; try again"
        }
        During::Snapshot | During::Following => "",
    }
}

fn proposal(proposed: Option<i64>) -> String {
    proposed.map_or_else(|| "nothing".to_owned(), |zxid| format!("{zxid:#x}"))
}
