//! ZooKeeper's nodes, and imports of them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::time::Time;

/// What a node has beside its data. Transactions and sessions are in hexadecimal, as `0x1f`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkStat {
    /// `persistent`, `ephemeral`, `container` or `ttl`.
    pub kind: String,
    /// Transaction that made it.
    pub czxid: String,
    /// Transaction that last replaced its data.
    pub mzxid: String,
    /// Transaction that last made or removed a child.
    pub pzxid: String,
    /// When it was made.
    pub created_at: Time,
    /// When its data were last replaced.
    pub modified_at: Time,
    /// How often its data were replaced: what `?version=` is compared with.
    pub version: i32,
    /// How often children were made and removed.
    pub cversion: i32,
    /// How often its access list was replaced.
    pub aversion: i32,
    /// The session it goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Its time to live, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<i64>,
    /// Bytes of data.
    pub bytes: u64,
    /// Children.
    pub children: u32,
}

/// What somebody may do with a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkAcl {
    /// Letters: c(reate), d(elete), r(ead), w(rite), a(dmin).
    pub perms: String,
    /// The scheme: `world`, `digest`, `ip`, `x509`, `sasl`.
    pub scheme: String,
    /// Who, within the scheme.
    pub id: String,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkNode {
    /// Its path.
    pub path: String,
    /// Its data in Base64; none is not the same as empty.
    pub data: Option<String>,
    /// The rest.
    pub stat: ZkStat,
    /// Who may do what.
    pub acl: Vec<ZkAcl>,
}

/// A child in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkChild {
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// The rest.
    pub stat: ZkStat,
}

/// A node was made or written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkWritten {
    /// Its path.
    pub path: String,
    /// Whether it was not there before.
    pub created: bool,
    /// Its version now.
    pub version: i32,
    /// The transaction.
    pub zxid: String,
}

/// Nodes were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkRemoved {
    /// How many.
    pub nodes: u64,
}

/// A node of a tree, with what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkTreeRow {
    /// Its path.
    pub path: String,
    /// Steps below the top.
    pub depth: u32,
    /// `persistent`, `ephemeral`, `container` or `ttl`.
    pub kind: String,
    /// Children.
    pub children: u32,
    /// Bytes of data.
    pub bytes: u64,
    /// Nodes at and below it.
    pub nodes: u64,
    /// Bytes of data at and below it.
    pub bytes_below: u64,
}

/// The upper part of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkTree {
    /// Nodes, each before those below it.
    pub rows: Vec<ZkTreeRow>,
    /// Whether there were more than are told.
    pub cut: bool,
}

/// The nodes as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkSummary {
    /// The newest transaction.
    pub zxid: String,
    /// The digest of all nodes, as ZooKeeper 3.6 and later compute it.
    pub digest: String,
    /// Nodes.
    pub nodes: u64,
    /// Bytes of paths and data.
    pub bytes: u64,
    /// Different access lists.
    pub acls: u64,
    /// Sessions.
    pub sessions: u64,
    /// Ephemeral nodes.
    pub ephemerals: u64,
    /// Containers and nodes with a time to live.
    pub mortals: u64,
    /// What `?since=` of the changes goes on from.
    pub position: u64,
}

/// A node has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkChange {
    /// What `?since=` goes on behind.
    pub position: u64,
    /// `created`, `deleted` or `data`.
    pub change: String,
    /// Its path.
    pub path: String,
    /// The transaction.
    pub zxid: String,
}

/// A client port of a source that was seen open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkPortSeen {
    /// `host:port`.
    pub address: String,
    /// The machine from which it was.
    pub from: String,
    /// When it last was.
    pub at: Time,
}

/// A member of an ensemble that is a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkMember {
    /// Its number.
    pub id: i64,
    /// `host:port` of its port for learners.
    pub quorum: String,
    /// `host:port` of its client port, if it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// A tree that is brought from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZkImportRow {
    /// Its name.
    pub name: String,
    /// Where from.
    pub source: String,
    /// Whether it follows the source until it is cut over.
    pub live: bool,
    /// `copying`, `catching_up`, `following`, `cut_over`, `stopped`, `finished`, `rolled_back` or
    /// `aborted`.
    pub phase: String,
    /// Why it does not go on, or was given up.
    pub reason: String,
    /// Which copy this is: each has a greater number than those before it.
    pub generation: u64,
    /// How often attempts to cut over were called off.
    pub attempt: u64,
    /// Whether the endpoint stays closed to clients although it is over.
    pub keeps_closed: bool,
    /// Client ports of the source that were seen open.
    pub ports_seen: Vec<ZkPortSeen>,
    /// The members of the source, as its `/zookeeper/config` in the copy names them.
    pub members: Vec<ZkMember>,
    /// Number of the next lot of rows.
    pub next_chunk: u64,
    /// The newest transaction that the copy has.
    pub zxid: String,
    /// The digest of the copy.
    pub digest: String,
    /// The same as a server computes whose character set is ASCII.
    pub digest_ascii: String,
    /// Nodes of the copy.
    pub nodes: u64,
    /// Bytes of its paths and data.
    pub bytes: u64,
    /// Sessions of the copy.
    pub sessions: u64,
    /// Ephemeral nodes of the copy.
    pub ephemerals: u64,
    /// Transactions applied behind the copy.
    pub transactions: u64,
    /// Transactions after which the digests were equal.
    pub proven: u64,
    /// Transactions after which they were not.
    pub mismatches: u64,
    /// The first transaction of those that are not proven yet.
    pub unverified_since: Option<String>,
    /// The newest transaction at which the copy was compared with a fresh one.
    pub compared_at: Option<String>,
    /// Since which transaction a comparison is asked for.
    pub compare_since: Option<String>,
    /// The newest transaction of the source, as it was last heard.
    pub source_zxid: String,
    /// Transactions that the copy is behind the source; none if that is not known.
    pub lag_transactions: Option<u64>,
    /// Milliseconds between the newest transaction of the copy and what was last heard, if it is
    /// behind.
    pub lag_ms: u64,
    /// Times that the source said how far it is.
    pub heard: u64,
    /// The shortest time-out of a session of the copy, in milliseconds.
    pub shortest_timeout_ms: Option<i32>,
    /// When it began.
    pub started_at: Time,
    /// When the source last gave something.
    pub heard_at: Time,
    /// When clients began to use it.
    pub cut_over_at: Option<Time>,
    /// The newest transaction of the source then.
    pub cut_over_zxid: Option<String>,
}

/// A step of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum ZkStep {
    /// It begins, or goes on if it did before from the same source.
    Start {
        /// Where from.
        source: String,
        /// Follow the source until it is cut over.
        #[serde(default)]
        live: bool,
        /// What was copied so far is thrown away.
        #[serde(default)]
        again: bool,
    },
    /// What was copied so far is thrown away, and another copy begins.
    Anew {
        /// Only if it is that copy: the import's `generation`.
        generation: u64,
        /// Why; empty: nobody need know.
        #[serde(default)]
        why: String,
    },
    /// All rows have come.
    Copied {
        /// Only if it is that copy: the import's `generation`.
        generation: u64,
        /// The newest transaction that the copy surely has, as `0x1f`.
        zxid: String,
        /// Whether it may have some newer ones.
        fuzzy: bool,
    },
    /// All transactions have come that the copy may have in part.
    Exact {
        /// Only if it is that copy: the import's `generation`.
        generation: u64,
    },
    /// The copy is to be compared with a fresh one of the source, access lists and sessions too.
    Compare,
    /// The copy takes the place of the nodes that clients see.
    CutOver {
        /// Only if this is the newest transaction that it has, as `0x1f`.
        at: String,
        /// Only if no such attempt was called off since the import had this `attempt`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u64>,
    },
    /// Attempts to cut over that are on their way come to nothing; refused once one was carried
    /// out.
    CallOff,
    /// Client ports of the source were seen open.
    PortsOpen {
        /// `host:port` of each.
        ports: Vec<String>,
        /// The machine from which they were.
        from: String,
    },
    /// The copy, or a part of it, goes into the nodes that clients see.
    Merge {
        /// Only if it is that copy: the import's `generation`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
        /// Where that node comes to; the ones above it are made. At `/` the root keeps its own data
        /// and access list, unless all is taken.
        at: String,
        /// Node from which on it is taken.
        only: String,
        /// `refuse`, `keep`, `overwrite` or `replace`: what becomes of nodes that are there.
        existing: String,
    },
    /// Clients stay here for good.
    Finish,
    /// Clients go back to the source.
    RolledBack,
    /// It is given up. If it was to be followed, the endpoint stays closed to clients, who are
    /// elsewhere.
    Abort {
        /// Why.
        reason: String,
        /// Only if it is that copy: the import's `generation`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
        /// Open the endpoint to clients, who find the tree that is here; of one that was given up
        /// already too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        open: bool,
    },
}
