//! Trees that are brought from elsewhere: each is built beside the one that clients see, and takes
//! its place, or goes into it, when it is whole.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::acl::{self, AclId};
use super::node::Znode;
use super::session::{Session, imported_password};
use super::tree::{Placed, Tree};
use crate::jute::file::{AclRow, NodeRow, OPEN_ACL_KEY, SessionRow};
use crate::jute::txn::Transaction;
use crate::jute::{Field, Reader, path};
use crate::limits::{ZK_IMPORT_NAME_BYTES_MAX, ZK_IMPORTS_MAX};
use crate::model::time::Timestamp;
use crate::state::apply::Change;
use crate::state::{Rejected, RejectedCode, Reply};

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
        /// Why it begins anew; empty: it does not, or nobody asked for a reason.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
    },
    /// Rows of the copy, in order; see [`ROW_SESSION`] and its likes.
    Rows {
        /// Counts from 0.
        chunk: u64,
        /// A byte for the kind of each row, then the row.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// All rows have come.
    Copied {
        /// The newest transaction that the copy surely has.
        zxid: i64,
        /// Whether it may have some newer ones: it was taken while they came.
        fuzzy: bool,
    },
    /// Transactions behind the copy, in order.
    Transactions {
        /// The newest one that the copy has: those may come once only.
        after: i64,
        /// The length of each in 4 bytes, then the transaction.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// The source has sent all that came while the copy was taken: from now on digests hold.
    Exact,
    /// The copy was compared with a fresh one of the source.
    Compared {
        /// The transaction at which both were.
        zxid: i64,
        /// Where they differ; none: nowhere.
        difference: Option<String>,
    },
    /// The source was heard, and that is how far it is.
    Heard {
        /// Its newest transaction.
        zxid: i64,
    },
    /// The copy is to be compared with a fresh one of the source.
    Compare,
    /// The copy takes the place of the tree that clients see.
    CutOver {
        /// Only if this is the newest transaction that it has.
        at: i64,
    },
    /// The copy, or a part of it, goes into the tree that clients see. The copy is gone then.
    Merge {
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
    Abort {
        /// Why.
        reason: String,
    },
    /// It can't go on by itself.
    Stop {
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

/// Kind of a row: [`SessionRow`].
pub const ROW_SESSION: u8 = b's';
/// Kind of a row: [`AclRow`].
pub const ROW_ACL: u8 = b'a';
/// Kind of a row: [`NodeRow`].
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

/// An import, with its copy until clients use it.
#[derive(Debug, Clone)]
pub struct ZkImport {
    /// What is known of it.
    pub status: ZkImportStatus,
    /// The copy; empty once clients use it, or it was given up.
    pub tree: Tree,
    /// The source's numbers of access lists.
    pub(super) acl_keys: OrdMap<i64, AclId>,
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

pub(super) fn refuse(code: RejectedCode, message: String) -> Rejected {
    Rejected::new(code, message)
}

impl ZkImport {
    fn new(source: String, live: bool, why: String, now: Timestamp) -> Self {
        let status = ZkImportStatus {
            source,
            live,
            phase: ZkImportPhase::Copying,
            reason: why,
            next_chunk: 0,
            transactions: 0,
            proven: 0,
            mismatches: 0,
            unverified_since: None,
            unverified_at: None,
            compared_at: None,
            compare_since: None,
            source_zxid: 0,
            heard: 0,
            zxid_at: Timestamp(0),
            started_at: now,
            heard_at: now,
            cut_over_at: None,
            cut_over_zxid: None,
        };
        Self { status, tree: Tree::empty(), acl_keys: OrdMap::new() }
    }

    /// Whether it still has something to do, or the operator has.
    pub fn is_open(&self) -> bool {
        use ZkImportPhase::{Aborted, Finished, RolledBack};
        !matches!(self.status.phase, Aborted | Finished | RolledBack)
    }

    /// A copy of its own, beside the state: to compare another one with.
    pub fn beside() -> Self {
        Self::new(String::new(), true, String::new(), Timestamp(0))
    }

    /// Says that all rows have come; see [`ZkImportStep::Copied`].
    pub fn copied(&mut self, zxid: i64) {
        self.tree.zxid = zxid;
    }

    /// Adds rows; see [`ZkImportStep::Rows`].
    ///
    /// # Errors
    /// Which row can't be, and why; the copy is of no use then.
    pub fn add_rows(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut reader = Reader::new(bytes);
        while !reader.rest().is_empty() {
            let kind = reader.take(1).map_err(|error| error.to_string())?;
            let added = match kind {
                [ROW_SESSION] => reader.field().map(|row| self.add_session(row)),
                [ROW_ACL] => reader.field().map(|row| self.add_acl(row)),
                [ROW_NODE] => match reader.field() {
                    Ok(row) => {
                        self.add_node(&row)?;
                        Ok(())
                    }
                    Err(error) => Err(error),
                },
                _ => return Err(format!("a row of unknown kind {kind:?}")),
            };
            added.map_err(|error| format!("a row that can't be read: {error}"))?;
        }
        Ok(())
    }

    fn add_session(&mut self, row: SessionRow) {
        let SessionRow { id, timeout } = row;
        let session = Session { timeout, password: imported_password(id), attachment: 0 };
        self.tree.sessions.insert(id, session.into());
    }

    fn add_acl(&mut self, row: AclRow) {
        let id = self.tree.acls.id_of(row.acl.into());
        self.acl_keys.insert(row.key, id);
    }

    fn add_node(&mut self, row: &NodeRow<'_>) -> Result<(), String> {
        let place = if row.path.is_empty() { "/" } else { row.path };
        path::check(place).map_err(|error| format!("node {place:?}: {error}"))?;
        let acl = match row.acl {
            OPEN_ACL_KEY => acl::OPEN,
            key => self.acl_keys.get(&key).copied().unwrap_or(acl::UNKNOWN),
        };
        let node = Znode::new(place, row.data, acl, row.stat);
        match self.tree.insert_as_is(place, node) {
            Placed { has_parent: false, .. } => {
                Err(format!("node {place:?} comes before the one above it"))
            }
            Placed { twice: true, .. } => Err(format!("node {place:?} comes twice")),
            Placed { .. } => Ok(()),
        }
    }

    /// Applies transactions; see [`ZkImportStep::Transactions`].
    ///
    /// # Errors
    /// Which can't be, and why; the copy is of no use then.
    pub fn add_transactions(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.apply_transactions(bytes, Timestamp(0))
    }

    fn apply_transactions(&mut self, bytes: &[u8], now: Timestamp) -> Result<(), String> {
        let mut reader = Reader::new(bytes);
        while !reader.rest().is_empty() {
            let unreadable = |error: crate::jute::Error| format!("a transaction: {error}");
            let bytes: Option<&[u8]> = reader.field().map_err(unreadable)?;
            let transaction =
                Transaction::from_bytes(bytes.unwrap_or_default()).map_err(unreadable)?;
            if transaction.header.zxid <= self.tree.zxid {
                continue;
            }
            self.tree.replay(&transaction).map_err(unreadable)?;
            self.status.transactions += 1;
            let made_at = u64::try_from(transaction.header.time).unwrap_or(0);
            self.status.zxid_at = Timestamp(made_at);
            self.compare_digest(&transaction, now);
        }
        Ok(())
    }

    fn compare_digest(&mut self, transaction: &Transaction<'_>, now: Timestamp) {
        let Some(digest) = &transaction.digest else { return };
        if self.status.phase != ZkImportPhase::Following || digest.version != 2 {
            return;
        }
        let theirs = digest.digest as u64;
        if theirs == self.tree.digest() || theirs == self.tree.digest_ascii() {
            self.status.proven += 1;
            self.status.verified();
        } else {
            self.status.mismatches += 1;
            self.status.unverified_since.get_or_insert(transaction.header.zxid);
            self.status.unverified_at.get_or_insert(now);
        }
    }
}

impl ZkImportStatus {
    fn verified(&mut self) {
        self.unverified_since = None;
        self.unverified_at = None;
    }
}

impl Change<'_> {
    pub(in crate::state) fn zk_import(
        &mut self,
        name: &str,
        step: &ZkImportStep,
    ) -> Result<Reply, Rejected> {
        if let ZkImportStep::Start { source, live, again, why } = step {
            return self.zk_import_start(name, source, *live, *again, why);
        }
        let now = self.stamp.at;
        let mut import = match self.state.zk_imports.get(name) {
            Some(import) => ZkImport::clone(import),
            None => return Err(Rejected::not_found("import", name)),
        };
        let phase = import.status.phase;
        let wrong_phase = || {
            let message = format!("the import {name} is {}; that can't be done now", phase.word());
            Err(refuse(RejectedCode::Conflict, message))
        };
        use ZkImportPhase::{CatchingUp, Copying, CutOver, Following, RolledBack, Stopped};
        match step {
            ZkImportStep::Start { .. } => {}
            ZkImportStep::Rows { chunk, .. } if *chunk < import.status.next_chunk => {
                // It came before, and the answer got lost.
                return Ok(Reply::Done);
            }
            ZkImportStep::Rows { chunk, .. } if *chunk > import.status.next_chunk => {
                let next = import.status.next_chunk;
                let message = format!("lot {chunk} of the rows came, and {next} is next");
                return Err(refuse(RejectedCode::Conflict, message));
            }
            ZkImportStep::Rows { bytes, .. } => {
                if phase != Copying {
                    return wrong_phase();
                }
                import.add_rows(bytes).map_err(|why| refuse(RejectedCode::Invalid, why))?;
                import.status.next_chunk += 1;
                import.status.heard_at = now;
            }
            ZkImportStep::Copied { zxid, fuzzy } => {
                if phase != Copying {
                    return wrong_phase();
                }
                if import.tree.get("/").is_none() {
                    let message = "the copy has no root: it is not whole".to_owned();
                    return Err(refuse(RejectedCode::Invalid, message));
                }
                import.tree.zxid = *zxid;
                if *fuzzy {
                    import.status.phase = CatchingUp;
                } else {
                    import.tree.quota_count_all();
                    import.status.phase = Following;
                }
            }
            ZkImportStep::Transactions { after, bytes } => {
                if !matches!(phase, CatchingUp | Following) {
                    return wrong_phase();
                }
                if *after != import.tree.zxid {
                    let message =
                        format!("the copy is at 0x{:x}, not at 0x{after:x}", import.tree.zxid);
                    return Err(refuse(RejectedCode::Conflict, message));
                }
                import
                    .apply_transactions(bytes, now)
                    .map_err(|why| refuse(RejectedCode::Invalid, why))?;
                import.status.source_zxid = import.status.source_zxid.max(import.tree.zxid);
                import.status.heard_at = now;
            }
            ZkImportStep::Exact => match phase {
                CatchingUp => {
                    import.tree.quota_count_all();
                    import.status.phase = Following;
                }
                Following => {}
                _ => return wrong_phase(),
            },
            // The answer to a comparison may come late: clients may be here already.
            ZkImportStep::Compared { .. } if phase != Following => return wrong_phase(),
            ZkImportStep::Compared { zxid, difference: None } => {
                import.status.compared_at = Some(*zxid);
                if import.status.compare_since.is_some_and(|since| since <= *zxid) {
                    import.status.compare_since = None;
                }
                if import.status.unverified_since.is_some_and(|since| since <= *zxid) {
                    import.status.verified();
                }
            }
            ZkImportStep::Compared { difference: Some(difference), .. } => {
                import.status.phase = Stopped;
                import.status.reason = format!("the copy differs from the source: {difference}");
            }
            ZkImportStep::Heard { zxid } => {
                if !matches!(phase, CatchingUp | Following) {
                    return wrong_phase();
                }
                import.status.source_zxid = *zxid;
                import.status.heard += 1;
                import.status.heard_at = now;
            }
            ZkImportStep::Compare => {
                if phase != Following {
                    return wrong_phase();
                }
                import.status.compare_since.get_or_insert(import.tree.zxid);
            }
            ZkImportStep::CutOver { at } => {
                if phase != Following {
                    return wrong_phase();
                }
                if *at != import.tree.zxid || import.status.unverified_since.is_some() {
                    let message = format!(
                        "the copy is at 0x{:x}, not at 0x{at:x}, or not proven there; look at its \
                         status and try again",
                        import.tree.zxid
                    );
                    return Err(refuse(RejectedCode::Conflict, message));
                }
                self.zk_must_be_new()?;
                import.status.phase = CutOver;
                import.status.cut_over_at = Some(now);
                import.status.cut_over_zxid = Some(import.tree.zxid);
                let tree = std::mem::replace(&mut import.tree, Tree::empty());
                self.zk_put_tree(tree);
            }
            ZkImportStep::Merge { at, only, existing } => {
                if import.status.live || !matches!(phase, CatchingUp | Following) {
                    return wrong_phase();
                }
                self.zk_merge(&mut import, at, only, *existing)?;
                import.status.phase = ZkImportPhase::Finished;
                import.status.cut_over_at = Some(now);
            }
            ZkImportStep::Finish => {
                if phase != CutOver {
                    return wrong_phase();
                }
                import.status.phase = ZkImportPhase::Finished;
            }
            ZkImportStep::RolledBack => {
                if phase != CutOver {
                    return wrong_phase();
                }
                import.status.phase = RolledBack;
                // The clients go elsewhere with it: from here on it does not change.
                import.tree = self.state.zk.clone();
                self.zk_put_tree(Tree::default());
            }
            ZkImportStep::Abort { reason } => {
                if !matches!(phase, Copying | CatchingUp | Following | Stopped | RolledBack) {
                    return wrong_phase();
                }
                import.status.phase = ZkImportPhase::Aborted;
                import.status.reason.clone_from(reason);
                import.tree = Tree::empty();
                import.acl_keys = OrdMap::new();
            }
            ZkImportStep::Stop { reason } => {
                if !matches!(phase, Copying | CatchingUp | Following) {
                    return wrong_phase();
                }
                import.status.phase = Stopped;
                import.status.reason.clone_from(reason);
            }
        }
        self.state.zk_imports.insert(name.to_owned(), Arc::new(import));
        Ok(Reply::Done)
    }

    fn zk_import_start(
        &mut self,
        name: &str,
        source: &str,
        live: bool,
        again: bool,
        why: &str,
    ) -> Result<Reply, Rejected> {
        if name.is_empty() || name.len() > ZK_IMPORT_NAME_BYTES_MAX {
            let message =
                format!("the name of an import has 1 to {ZK_IMPORT_NAME_BYTES_MAX} bytes");
            return Err(refuse(RejectedCode::Invalid, message));
        }
        let known = self.state.zk_imports.get(name);
        let goes_on = known.is_some_and(|known| {
            known.status.source == source && known.status.live == live && known.is_open()
        });
        let rolled_back = |import: &ZkImport| import.status.phase == ZkImportPhase::RolledBack;
        if known.is_some_and(|known| rolled_back(known)) {
            let message = format!(
                "{name} was rolled back, and what its clients wrote here is kept with it: see that \
                 the ensemble has it, then abort {name}, or choose another name"
            );
            return Err(refuse(RejectedCode::Conflict, message));
        }
        if let Some(stopped) = known.filter(|known| known.status.phase == ZkImportPhase::Stopped)
            && !again
        {
            let message = format!(
                "{name} has stopped: {}. Start it again with --again, which copies anew, or abort it",
                stopped.status.reason
            );
            return Err(refuse(RejectedCode::Conflict, message));
        }
        if goes_on && !again && known.is_some_and(|k| k.status.phase != ZkImportPhase::CutOver) {
            return Ok(Reply::Done);
        }
        if known.is_some_and(|known| known.status.phase == ZkImportPhase::CutOver) {
            let message = format!("clients use the import {name} already; finish it first");
            return Err(refuse(RejectedCode::Conflict, message));
        }
        if known.is_some_and(|known| known.is_open() && !again) {
            let message = format!(
                "the import {name} is under way from another source; abort it first, or choose \
                 another name"
            );
            return Err(refuse(RejectedCode::Conflict, message));
        }
        let other = |(other, import): (&String, &Arc<ZkImport>)| {
            (other != name && import.status.live && import.is_open()).then(|| other.clone())
        };
        if live && let Some(other) = self.state.zk_imports.iter().find_map(other) {
            let message = format!("the migration {other} is under way; finish or abort it first");
            return Err(refuse(RejectedCode::Conflict, message));
        }
        if live {
            self.zk_must_be_new()?;
        }
        if known.is_none() && self.state.zk_imports.len() >= ZK_IMPORTS_MAX {
            let ended = self.state.zk_imports.iter();
            let ended = ended.filter(|(_, import)| !import.is_open() && !rolled_back(import));
            let oldest = ended.min_by_key(|(_, import)| import.status.started_at);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                let message = format!("{ZK_IMPORTS_MAX} imports are under way; abort one first");
                return Err(refuse(RejectedCode::TooLarge, message));
            };
            self.state.zk_imports.remove(&oldest);
        }
        let (source, why) = (source.to_owned(), why.to_owned());
        let import = ZkImport::new(source, live, why, self.stamp.at);
        self.state.zk_imports.insert(name.to_owned(), Arc::new(import));
        Ok(Reply::Done)
    }

    /// Refuses if clients have made something here, or are here.
    pub(super) fn zk_must_be_new(&self) -> Result<(), Rejected> {
        let tree = &self.state.zk;
        if tree.node_count() > Tree::default().node_count() || tree.session_count() > 0 {
            let message = format!(
                "the tree that clients see here is not empty ({} nodes, {} sessions); remove it \
                 first (orch zk rm -r), or use orch zk import with --existing",
                tree.node_count(),
                tree.session_count()
            );
            return Err(refuse(RejectedCode::Conflict, message));
        }
        Ok(())
    }

    /// Puts a tree in the place of the one that clients see. Who follows its changes finds that
    /// they don't go on, and begins anew.
    pub(super) fn zk_put_tree(&mut self, mut tree: Tree) {
        tree.make_own_nodes();
        tree.quota_settle();
        tree.follow(&self.state.zk);
        self.state.zk = tree;
    }
}

impl Tree {
    /// Makes the nodes that every ensemble has, if they did not come along.
    fn make_own_nodes(&mut self) {
        let usual = Self::default();
        for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            if let (None, Some(node)) = (self.get(path), usual.get(path)) {
                let acl = self.acls.id_of(usual.acls.list(node.acl()));
                self.insert_as_is(path, Znode::new(path, node.data(), acl, node.persisted()));
            }
        }
    }
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
