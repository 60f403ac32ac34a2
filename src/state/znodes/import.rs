//! Trees that are brought from elsewhere: each is built beside the one that clients see, and takes
//! its place, or goes into it, when it is whole.

use std::sync::Arc;

use imbl::OrdMap;

use super::acl::{self, AclId};
use super::import_step::{
    ROW_ACL, ROW_NODE, ROW_SESSION, ZkImportPhase, ZkImportStatus, ZkImportStep, ZkPortSeen,
};
use super::node::Znode;
use super::session::{Session, imported_password};
use super::tree::{Placed, Tree};
use crate::jute::file::{AclRow, NodeRow, OPEN_ACL_KEY, SessionRow};
use crate::jute::txn::{Transaction, TxnHeader, describe};
use crate::jute::{Field, Reader, path};
use crate::limits::{
    ZK_IMPORT_NAME_BYTES_MAX, ZK_IMPORTS_MAX, ZK_PORT_NAME_BYTES_MAX, ZK_PORTS_SEEN_MAX,
};
use crate::model::time::Timestamp;
use crate::state::apply::Change;
use crate::state::{Rejected, RejectedCode, Reply};

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

pub(super) fn refuse(code: RejectedCode, message: String) -> Rejected {
    Rejected::new(code, message)
}

impl ZkImport {
    fn new(source: String, live: bool, generation: u64, now: Timestamp) -> Self {
        let status = ZkImportStatus {
            source,
            live,
            phase: ZkImportPhase::Copying,
            generation,
            attempt: 0,
            keeps_closed: false,
            ports_seen: Vec::new(),
            reason: String::new(),
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
        Self::new(String::new(), true, 0, Timestamp(0))
    }

    /// Another copy in the place of this one; what was learnt of the source and of the endpoint
    /// stays.
    fn anew(&self, generation: u64, now: Timestamp) -> Self {
        let old = &self.status;
        let mut next = Self::new(old.source.clone(), old.live, generation, now);
        next.status.attempt = old.attempt + 1;
        next.status.keeps_closed = old.keeps_closed;
        next.status.ports_seen.clone_from(&old.ports_seen);
        next
    }

    /// Says that all rows have come; see [`ZkImportStep::Copied`].
    pub fn copied(&mut self, zxid: i64) {
        self.tree.zxid = zxid;
        // Only rows name access lists by the source's keys.
        self.acl_keys = OrdMap::new();
    }

    /// Adds rows; see [`ZkImportStep::Rows`].
    ///
    /// # Errors
    /// Which row can't be, and why; the copy is of no use then.
    pub fn add_rows(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut reader = Reader::new(bytes);
        while !reader.rest().is_empty() {
            let kind = reader.take(1).map_err(|error| error.to_string())?;
            let row = reader.rest();
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
            added.map_err(|error| match kind {
                [ROW_NODE] => format!("the node {} can't be read: {error}", path_at(row)),
                _ => format!("a row that can't be read: {error}"),
            })?;
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
        path::check(place).map_err(|error| format!("node {}: {error}", path::shown(place)))?;
        let acl = match row.acl {
            OPEN_ACL_KEY => acl::OPEN,
            key => self.acl_keys.get(&key).copied().unwrap_or(acl::UNKNOWN),
        };
        let node = Znode::new(place, row.data, acl, row.stat);
        match self.tree.insert_as_is(place, node) {
            Placed { has_parent: false, .. } => {
                Err(format!("node {} comes before the one above it", path::shown(place)))
            }
            Placed { twice: true, .. } => Err(format!("node {} comes twice", path::shown(place))),
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
            let bytes: Option<&[u8]> = reader
                .field()
                .map_err(|error| format!("a lot of transactions that can't be read: {error}"))?;
            let bytes = bytes.unwrap_or_default();
            let before = self.tree.zxid;
            let unreadable = |error: crate::jute::Error| {
                let header = TxnHeader::read(&mut Reader::new(bytes));
                let zxid = header.map_or(before.wrapping_add(1), |header| header.zxid);
                format!("{} can't be read: {error}", describe(zxid, bytes))
            };
            let transaction = Transaction::from_bytes(bytes).map_err(unreadable)?;
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

/// The path that a row of a node begins with, as far as it can be read.
fn path_at(row: &[u8]) -> String {
    let path: Result<&str, _> = Reader::new(row).field();
    path.map_or_else(|_| "without a path".to_owned(), path::shown)
}

impl ZkImportStatus {
    fn verified(&mut self) {
        self.unverified_since = None;
        self.unverified_at = None;
    }

    /// Takes note of ports that were seen open.
    fn ports_open(&mut self, ports: &[String], from: &str, now: Timestamp) {
        for address in ports {
            self.ports_seen.retain(|seen| seen.address != *address || seen.from != from);
            let (address, from) = (address.clone(), from.to_owned());
            self.ports_seen.push(ZkPortSeen { address, from, at: now });
        }
        let too_many = self.ports_seen.len().saturating_sub(ZK_PORTS_SEEN_MAX);
        self.ports_seen.drain(..too_many);
    }
}

impl ZkImportStep {
    /// The copy that it is for, if it is for one alone.
    pub fn generation(&self) -> Option<u64> {
        match self {
            Self::Anew { generation, .. }
            | Self::Rows { generation, .. }
            | Self::Copied { generation, .. }
            | Self::Transactions { generation, .. }
            | Self::Exact { generation }
            | Self::Compared { generation, .. }
            | Self::Heard { generation, .. }
            | Self::Stop { generation, .. } => Some(*generation),
            Self::Merge { generation, .. } | Self::Abort { generation, .. } => *generation,
            Self::Start { .. }
            | Self::Compare
            | Self::CutOver { .. }
            | Self::CallOff
            | Self::PortsOpen { .. }
            | Self::Finish
            | Self::RolledBack => None,
        }
    }
}

impl Change<'_> {
    pub(in crate::state) fn zk_import(
        &mut self,
        name: &str,
        step: &ZkImportStep,
    ) -> Result<Reply, Rejected> {
        if let ZkImportStep::Start { source, live, again } = step {
            return self.zk_import_start(name, source, *live, *again);
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
        let generation = import.status.generation;
        if step.generation().is_some_and(|of| of != generation) {
            let message = format!(
                "the copy {name} was begun anew: this was sent for one before it, and has no place \
                 in it"
            );
            return Err(refuse(RejectedCode::Conflict, message));
        }
        use ZkImportPhase::{
            Aborted, CatchingUp, Copying, CutOver, Following, RolledBack, Stopped,
        };
        match step {
            ZkImportStep::Start { .. } => {}
            ZkImportStep::Anew { why, .. } => {
                if !matches!(phase, Copying | CatchingUp | Following) {
                    return wrong_phase();
                }
                let began = import.status.started_at;
                import = import.anew(self.stamp.index, now);
                import.status.started_at = began;
                import.status.reason.clone_from(why);
            }
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
            ZkImportStep::Copied { zxid, fuzzy, .. } => {
                if phase != Copying {
                    return wrong_phase();
                }
                if import.tree.get("/").is_none() {
                    let message = "the copy has no root: it is not whole".to_owned();
                    return Err(refuse(RejectedCode::Invalid, message));
                }
                import.copied(*zxid);
                if *fuzzy {
                    import.status.phase = CatchingUp;
                } else {
                    import.tree.quota_count_all();
                    import.status.phase = Following;
                }
            }
            ZkImportStep::Transactions { after, bytes, .. } => {
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
            ZkImportStep::Exact { .. } => match phase {
                CatchingUp => {
                    import.tree.quota_count_all();
                    import.status.phase = Following;
                }
                Following => {}
                _ => return wrong_phase(),
            },
            // The answer to a comparison may come late: clients may be here already.
            ZkImportStep::Compared { .. } if phase != Following => return wrong_phase(),
            ZkImportStep::Compared { zxid, difference: None, .. } => {
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
            ZkImportStep::Heard { zxid, .. } => {
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
                if import.status.live {
                    // A cut-over begins so: before the ports are closed is the time to say it.
                    self.zk_must_be_new()?;
                }
                import.status.compare_since.get_or_insert(import.tree.zxid);
            }
            ZkImportStep::CutOver { at, attempt } => {
                if phase != Following || !import.status.live {
                    return wrong_phase();
                }
                if attempt.is_some_and(|attempt| attempt != import.status.attempt) {
                    let message = format!("this attempt to cut {name} over was called off");
                    return Err(refuse(RejectedCode::Conflict, message));
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
                import.status.keeps_closed = false;
                self.zk_let_in();
            }
            ZkImportStep::CallOff => {
                if !matches!(phase, Copying | CatchingUp | Following | Stopped) {
                    return wrong_phase();
                }
                import.status.attempt += 1;
            }
            ZkImportStep::PortsOpen { ports, from } => {
                let longest = ports.iter().map(String::len).max().unwrap_or(0).max(from.len());
                if ports.len() > ZK_PORTS_SEEN_MAX || longest > ZK_PORT_NAME_BYTES_MAX {
                    let message = format!(
                        "ports: at most {ZK_PORTS_SEEN_MAX} come at once, and a name has at most \
                         {ZK_PORT_NAME_BYTES_MAX} bytes"
                    );
                    return Err(refuse(RejectedCode::TooLarge, message));
                }
                import.status.ports_open(ports, from, now);
            }
            ZkImportStep::Merge { at, only, existing, .. } => {
                if import.status.live || !matches!(phase, CatchingUp | Following) {
                    return wrong_phase();
                }
                self.zk_merge(&mut import, at, only, *existing)?;
                import.status.phase = ZkImportPhase::Finished;
                import.status.cut_over_at = Some(now);
                if at == "/" && only == "/" {
                    // As much as a cut-over: what clients are to find is here.
                    import.status.keeps_closed = false;
                    self.zk_let_in();
                }
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
                import.status.keeps_closed = true;
                // The clients go elsewhere with it: from here on it does not change.
                import.tree = self.state.zk.clone();
                self.zk_put_tree(Tree::default());
            }
            ZkImportStep::Abort { open: true, .. }
                if phase == Aborted
                    || phase == ZkImportPhase::Finished && import.status.keeps_closed =>
            {
                import.status.keeps_closed = false;
                self.zk_let_in();
            }
            ZkImportStep::Abort { reason, open, .. } => {
                if !matches!(phase, Copying | CatchingUp | Following | Stopped | RolledBack) {
                    return wrong_phase();
                }
                if *open {
                    self.zk_let_in();
                } else if import.status.live {
                    self.zk_keeper_goes();
                }
                import.status.keeps_closed =
                    !open && (import.status.live || import.status.keeps_closed);
                import.status.phase = Aborted;
                import.status.reason.clone_from(reason);
                import.tree = Tree::empty();
                import.acl_keys = OrdMap::new();
            }
            ZkImportStep::Stop { reason, .. } => {
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
        // A migration keeps the endpoint closed as long as it is one: it can't become something else.
        if known.is_some_and(|known| known.is_open() && (!again || known.status.live != live)) {
            let message = format!(
                "the import {name} is under way, in another way or from another source; abort it \
                 first, or choose another name"
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
        let (generation, now) = (self.stamp.index, self.stamp.at);
        let before = known.map(|known| known.anew(generation, now).status);
        if before.is_none() && self.state.zk_imports.len() >= ZK_IMPORTS_MAX {
            let ended = self.state.zk_imports.iter();
            // Neither what is kept for clients that went back, nor what keeps the endpoint closed.
            let ended = ended.filter(|(_, import)| {
                !import.is_open() && !rolled_back(import) && !import.status.keeps_closed
            });
            let oldest = ended.min_by_key(|(_, import)| import.status.started_at);
            let Some(oldest) = oldest.map(|(name, _)| name.clone()) else {
                let message = format!("{ZK_IMPORTS_MAX} imports are under way; abort one first");
                return Err(refuse(RejectedCode::TooLarge, message));
            };
            self.state.zk_imports.remove(&oldest);
        }
        let mut import = ZkImport::new(source.to_owned(), live, generation, now);
        if let Some(before) = before {
            import.status.attempt = before.attempt;
            import.status.keeps_closed = before.keeps_closed;
            if before.source == source {
                import.status.ports_seen = before.ports_seen;
            }
        }
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

    /// Clients may come, whatever kept them away before.
    fn zk_let_in(&mut self) {
        self.zk_each_keeper(|_| true);
    }

    /// Another import keeps the endpoint closed from now on: of those that were given up, none
    /// need be remembered for it.
    fn zk_keeper_goes(&mut self) {
        self.zk_each_keeper(|status| status.phase == ZkImportPhase::Aborted);
    }

    fn zk_each_keeper(&mut self, which: impl Fn(&ZkImportStatus) -> bool) {
        let keepers = self.state.zk_imports.iter();
        let keepers = keepers.filter(|(_, it)| it.status.keeps_closed && which(&it.status));
        let keepers: Vec<(String, ZkImport)> =
            keepers.map(|(name, import)| (name.clone(), ZkImport::clone(import))).collect();
        for (name, mut import) in keepers {
            import.status.keeps_closed = false;
            self.state.zk_imports.insert(name, Arc::new(import));
        }
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
