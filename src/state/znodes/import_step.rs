//! The steps of an import, and what is known of one.

use serde::{Deserialize, Serialize};

use crate::model::time::Timestamp;

/// A step of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZkImportStep {
    /// It begins, or begins anew if `again`.
    Start {
        /// Where from, as the operator said it.
        source: String,
        /// Follow the source until it is cut over; otherwise it is copied once.
        live: bool,
        /// What was copied so far is thrown away.
        again: bool,
    },
    /// The copy is thrown away, and another one begins.
    Anew {
        /// Of the copy; see [`ZkImportStatus::generation`].
        generation: u64,
        /// Why; empty: nobody need know.
        why: String,
    },
    /// Rows of the copy, in order; see [`ROW_SESSION`] and its likes.
    Rows {
        /// Of the copy.
        generation: u64,
        /// Counts from 0.
        chunk: u64,
        /// A byte for the kind of each row, then the row.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// All rows have come.
    Copied {
        /// Of the copy.
        generation: u64,
        /// The newest transaction that the copy surely has.
        zxid: i64,
        /// Whether it may have some newer ones: it was taken while they came.
        fuzzy: bool,
    },
    /// Transactions behind the copy, in order.
    Transactions {
        /// Of the copy.
        generation: u64,
        /// The newest one that the copy has: those may come once only.
        after: i64,
        /// The length of each in 4 bytes, then the transaction.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The source has sent all that came while the copy was taken: from now on digests hold.
    Exact {
        /// Of the copy.
        generation: u64,
    },
    /// The copy was compared with a fresh one of the source.
    Compared {
        /// Of the copy.
        generation: u64,
        /// The transaction at which both were.
        zxid: i64,
        /// Where they differ; none: nowhere.
        difference: Option<String>,
    },
    /// The source was heard, and that is how far it is.
    Heard {
        /// Of the copy.
        generation: u64,
        /// Its newest transaction.
        zxid: i64,
    },
    /// The copy is to be compared with a fresh one of the source.
    Compare,
    /// The copy takes the place of the tree that clients see.
    CutOver {
        /// Only if this is the newest transaction that it has.
        at: i64,
        /// Only if no such attempt was called off since; see [`ZkImportStatus::attempt`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attempt: Option<u64>,
    },
    /// Attempts to cut over that are on their way come to nothing. Refused once one was carried
    /// out: whoever takes this step knows from the answer which of the two it is.
    CallOff,
    /// Client ports of the source were seen open.
    PortsOpen {
        /// `host:port` of each.
        ports: Vec<String>,
        /// The machine from which they were.
        from: String,
    },
    /// The copy, or a part of it, goes into the tree that clients see. The copy is gone then.
    Merge {
        /// Of the copy; none: whichever there is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
        /// Where that node comes to, whatever its name is there; the ones above it are made. At `/`
        /// the root keeps its own data and access list, unless all is taken.
        at: String,
        /// Node from which on it is taken; `/`: all of it.
        only: String,
        /// What becomes of nodes that are there already.
        existing: ZkExisting,
    },
    /// It is over and can't be taken back.
    Finish,
    /// The clients went back to the source, with what was written since.
    RolledBack,
    /// It is given up; the copy is thrown away, unless clients use it already.
    ///
    /// The endpoint stays closed to clients: theirs are elsewhere, and would find nothing here.
    Abort {
        /// Why.
        reason: String,
        /// Only that copy; none: whichever there is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
        /// Clients may come, to the tree that is here; of one that was given up already too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        open: bool,
    },
    /// It can't go on by itself.
    Stop {
        /// Of the copy.
        generation: u64,
        /// Why.
        reason: String,
    },
}

/// What becomes of nodes that are there already when others are put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZkExisting {
    /// Nothing may be there.
    Refuse,
    /// They stay as they are.
    Keep,
    /// Their data and access lists are replaced.
    Overwrite,
    /// Everything there is removed before.
    Replace,
}

/// Kind of a row: [`crate::jute::file::SessionRow`].
pub const ROW_SESSION: u8 = b's';
/// Kind of a row: [`crate::jute::file::AclRow`].
pub const ROW_ACL: u8 = b'a';
/// Kind of a row: [`crate::jute::file::NodeRow`].
pub const ROW_NODE: u8 = b'n';

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZkImportPhase {
    /// Rows come.
    Copying,
    /// Transactions come, some of which the copy may have already.
    CatchingUp,
    /// Transactions come, and each proves the copy.
    Following,
    /// Clients use the copy.
    CutOver,
    /// It can't go on by itself.
    Stopped,
    /// It is over: clients stay here.
    Finished,
    /// It is over: clients went back.
    RolledBack,
    /// It was given up.
    Aborted,
}

/// A client port that was seen open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZkPortSeen {
    /// `host:port`.
    pub address: String,
    /// The machine from which it was.
    pub from: String,
    /// When it last was.
    pub at: Timestamp,
}

/// What is known of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZkImportStatus {
    /// Where from.
    pub source: String,
    /// Whether it follows the source.
    pub live: bool,
    /// How far it is.
    pub phase: ZkImportPhase,
    /// Which copy this is: each has a greater number than those before it. What was sent for an
    /// earlier one has no place in it.
    pub generation: u64,
    /// How often attempts to cut over were called off.
    pub attempt: u64,
    /// It is over, and the endpoint stays closed to clients nevertheless.
    pub keeps_closed: bool,
    /// Client ports of the source that were seen open.
    pub ports_seen: Vec<ZkPortSeen>,
    /// Why it does not go on, was given up, or began anew.
    pub reason: String,
    /// Number of the next lot of rows.
    pub next_chunk: u64,
    /// Transactions applied behind the copy.
    pub transactions: u64,
    /// Transactions after which the digests were equal.
    pub proven: u64,
    /// Transactions after which they were not.
    pub mismatches: u64,
    /// The first transaction of those that are not proven yet; ZooKeeper itself writes wrong
    /// digests for a while when `/` is written beside its children.
    pub unverified_since: Option<i64>,
    /// When the first of those came.
    pub unverified_at: Option<Timestamp>,
    /// The newest transaction at which the copy was compared with a fresh one, and was equal.
    pub compared_at: Option<i64>,
    /// The transaction since which such a comparison is asked for.
    pub compare_since: Option<i64>,
    /// The newest transaction of the source, as it was last heard.
    pub source_zxid: i64,
    /// Times that the source said how far it is.
    pub heard: u64,
    /// When the source made the newest transaction that the copy has, by the source's clock.
    pub zxid_at: Timestamp,
    /// When it began.
    pub started_at: Timestamp,
    /// When the source last gave something.
    pub heard_at: Timestamp,
    /// When clients began to use it.
    pub cut_over_at: Option<Timestamp>,
    /// The newest transaction of the source then.
    pub cut_over_zxid: Option<i64>,
}

impl ZkImportPhase {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::CatchingUp => "catching up",
            Self::Following => "following",
            Self::CutOver => "cut over",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::RolledBack => "rolled back",
            Self::Aborted => "aborted",
        }
    }
}
