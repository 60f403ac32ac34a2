//! A tree of nodes with its sessions, and the primitive changes to it. Each keeps the counts, the
//! digest and the indexes right; none checks whether it is allowed.

use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};

use super::acl::{self, AclId, AclTable, Asker};
use super::digest;
use super::key::{At, Below, PathKey};
use super::node::{Numbers, Znode};
use super::quota::Recounts;
use super::session::Session;
use crate::jute::file::{AclRow, NodeRow, OPEN_ACL_KEY};
use crate::jute::op::{Owner, PERM_READ};
use crate::jute::{Acl, StatPersisted, path};
use crate::limits::ZK_CHANGES_KEPT;

/// The first transaction of a tree that was not imported.
pub const FIRST_ZXID: i64 = 1 << 32;

/// A tree of nodes.
#[derive(Debug, Clone)]
pub struct Tree {
    pub(super) nodes: OrdMap<PathKey, Znode>,
    pub(super) acls: AclTable,
    pub(super) sessions: OrdMap<i64, Arc<Session>>,
    /// The newest transaction.
    pub(super) zxid: i64,
    /// The newest session's id.
    pub(super) last_session: i64,
    // Derived from the above.
    pub(super) ephemerals: OrdSet<(i64, Arc<str>)>,
    /// Containers and nodes with a time to live.
    pub(super) mortals: OrdSet<Arc<str>>,
    /// Paths that have a quota.
    pub(super) quotas: OrdSet<Arc<str>>,
    /// What counting for them took.
    pub(super) recounts: Recounts,
    pub(super) digest: u64,
    /// What the digest is more in ASCII.
    pub(super) digest_ascii_more: u64,
    /// Bytes of all paths and data.
    pub(super) bytes: u64,
    // What changed last: for watches.
    pub(super) changes: Vector<ZnodeChange>,
    /// How many changes there were.
    pub(super) change_count: u64,
}

/// A node that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZnodeChange {
    /// Its path.
    pub path: Arc<str>,
    /// The transaction.
    pub zxid: i64,
    /// What happened to it.
    pub kind: ZnodeChangeKind,
    /// Its access list then; none: everybody may do everything.
    acl: Option<Arc<[Acl]>>,
    /// The same of the node above, if names of its children have changed.
    above: Option<Arc<[Acl]>>,
}

impl ZnodeChange {
    /// Whether `asker` may read the node that it is about, as that was when it happened: the
    /// node above if `of_children`.
    pub fn is_for(&self, of_children: bool, asker: Asker<'_>) -> bool {
        let acl = if of_children { &self.above } else { &self.acl };
        acl.as_ref().is_none_or(|acl| acl::allows(acl, PERM_READ, asker))
    }
}

/// What happened to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZnodeChangeKind {
    /// It was made.
    Created,
    /// It was removed.
    Deleted,
    /// Its data were replaced.
    Data,
}

impl Default for Tree {
    fn default() -> Self {
        let mut tree = Self::empty();
        tree.zxid = FIRST_ZXID;
        // What every ensemble has from its first moment on.
        for path in ["/", "/zookeeper", "/zookeeper/quota"] {
            let stat = StatPersisted::default();
            tree.insert(path, Znode::new(path, Some(&[]), acl::OPEN, stat));
        }
        let readable = Acl { perms: PERM_READ, ..Acl::open() };
        let readable = tree.acls.id_of(vec![readable].into());
        let stat = StatPersisted::default();
        let path = "/zookeeper/config";
        tree.insert(path, Znode::new(path, Some(&[]), readable, stat));
        tree.changes = Vector::new();
        tree.change_count = 0;
        tree
    }
}

impl Tree {
    /// A tree without even a root: for one that is brought.
    pub(super) fn empty() -> Self {
        Self {
            nodes: OrdMap::new(),
            acls: AclTable::default(),
            sessions: OrdMap::new(),
            zxid: 0,
            last_session: 0,
            ephemerals: OrdSet::new(),
            mortals: OrdSet::new(),
            quotas: OrdSet::new(),
            recounts: Recounts::default(),
            digest: 0,
            digest_ascii_more: 0,
            bytes: 0,
            changes: Vector::new(),
            change_count: 0,
        }
    }

    /// A node.
    pub fn get(&self, path: &str) -> Option<&Znode> {
        self.nodes.get(&At::new(path))
    }

    pub(super) fn key(&self, path: &str) -> Option<(&PathKey, &Znode)> {
        self.nodes.get_key_value(&At::new(path))
    }

    /// The access list of a node.
    pub fn acl_of(&self, node: &Znode) -> Arc<[Acl]> {
        self.acls.list(node.acl())
    }

    /// Whether `asker` may do with a node what the bits of `perms` say.
    pub fn allows(&self, node: &Znode, perms: i32, asker: Asker<'_>) -> bool {
        node.acl() == acl::OPEN || acl::allows(&self.acl_of(node), perms, asker)
    }

    /// The access list of a node as `asker` may see it.
    pub fn acl_shown(&self, node: &Znode, asker: Asker<'_>) -> Vec<Acl> {
        acl::shown(&self.acl_of(node), asker)
    }

    /// All access lists but the open one, with their keys in an ensemble's snapshot.
    pub fn snapshot_acls(&self) -> impl Iterator<Item = AclRow> + '_ {
        self.acls.file_rows().map(|(id, acl)| AclRow { key: i64::from(id), acl: acl.to_vec() })
    }

    /// A node as a row of an ensemble's snapshot.
    pub fn snapshot_row<'t>(&self, path: &'t str, node: &'t Znode) -> NodeRow<'t> {
        let acl = if node.acl() == acl::OPEN { OPEN_ACL_KEY } else { i64::from(node.acl()) };
        node.row(if path == "/" { "" } else { path }, acl)
    }

    /// The children of a node, in order of their names, which come first.
    pub fn children<'t>(
        &'t self,
        parent: &'t str,
    ) -> impl Iterator<Item = (&'t str, &'t Arc<str>, &'t Znode)> + 't {
        self.children_after(parent, None)
    }

    /// The children of a node whose names come behind `after`, in order.
    pub fn children_after<'t>(
        &'t self,
        parent: &'t str,
        after: Option<&'t str>,
    ) -> impl Iterator<Item = (&'t str, &'t Arc<str>, &'t Znode)> + 't {
        // As `get` has it: clients may call the root so.
        let parent = if parent.is_empty() { "/" } else { parent };
        let from = match after {
            None => Bound::Included(Below { parent, name: "" }),
            Some(name) => Bound::Excluded(Below { parent, name }),
        };
        self.nodes
            .range::<_, Below<'_>>((from, Bound::Unbounded))
            .map_while(move |(key, node)| Some((key.name_below(parent)?, &key.0, node)))
            // The root is at the place of its own child without a name.
            .filter(|(name, ..)| !name.is_empty())
    }

    /// All nodes, each before those below it.
    pub fn walk<'t>(&'t self, top: &str) -> Walk<'t> {
        Walk { tree: self, next: self.key(top).map(|(key, _)| key.0.clone()).into_iter().collect() }
    }

    /// The newest transaction.
    pub fn zxid(&self) -> i64 {
        self.zxid
    }

    /// The digest of all nodes.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The digest as a server computes it whose character set is ASCII.
    pub fn digest_ascii(&self) -> u64 {
        self.digest.wrapping_add(self.digest_ascii_more)
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Bytes of all paths and data.
    pub fn data_bytes(&self) -> u64 {
        self.bytes
    }

    /// How many access lists there are.
    pub fn acl_count(&self) -> usize {
        self.acls.len()
    }

    /// How many ephemeral nodes there are.
    pub fn ephemeral_count(&self) -> usize {
        self.ephemerals.len()
    }

    /// Paths of the ephemeral nodes of a session.
    pub fn ephemerals_of(&self, session: i64) -> impl Iterator<Item = &Arc<str>> {
        let from: (i64, Arc<str>) = (session, Arc::from(""));
        self.ephemerals.range(from..).take_while(move |(s, _)| *s == session).map(|(_, path)| path)
    }

    /// Containers and nodes with a time to live.
    pub fn mortals(&self) -> impl Iterator<Item = &Arc<str>> {
        self.mortals.iter()
    }

    /// The sessions, in order of their ids.
    pub fn sessions(&self) -> impl Iterator<Item = (i64, &Arc<Session>)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// A session.
    pub fn session(&self, id: i64) -> Option<&Arc<Session>> {
        self.sessions.get(&id)
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// How many changes there were so far.
    pub fn change_count(&self) -> u64 {
        self.change_count
    }

    /// The changes behind the first `seen`; none if so many are no longer kept.
    pub fn changes_since(&self, seen: u64) -> Option<impl Iterator<Item = &ZnodeChange>> {
        let missed = usize::try_from(self.change_count.checked_sub(seen)?).ok()?;
        let skipped = self.changes.len().checked_sub(missed)?;
        // `skip` would walk over all that are kept.
        Some(self.changes.focus().narrow(skipped..).into_iter())
    }

    /// Takes the place of `before`: a new epoch begins, as after an election, and who follows its
    /// changes finds that they don't go on.
    pub(in crate::state) fn follow(&mut self, before: &Self) {
        self.zxid = ((self.zxid.max(before.zxid) >> 32) + 1) << 32;
        self.last_session = self.last_session.max(before.last_session);
        self.change_count = before.change_count + ZK_CHANGES_KEPT as u64 + 1;
        self.changes = Vector::new();
    }

    /// A list as a change has it.
    fn list_then(&self, id: AclId) -> Option<Arc<[Acl]>> {
        (id != acl::OPEN).then(|| self.acls.list(id))
    }

    fn note(&mut self, path: &Arc<str>, zxid: i64, kind: ZnodeChangeKind, acl: Option<Arc<[Acl]>>) {
        let above = match kind {
            ZnodeChangeKind::Data => None,
            _ => path::split(path).and_then(|(above, _)| self.get(above)),
        };
        let above = above.and_then(|above| self.list_then(above.acl()));
        if self.changes.len() >= ZK_CHANGES_KEPT {
            self.changes.pop_front();
        }
        self.changes.push_back(ZnodeChange { path: path.clone(), zxid, kind, acl, above });
        self.change_count += 1;
    }

    fn count(&mut self, path: &str, node: &Znode) {
        if digest::counts(path) {
            self.digest = self.digest.wrapping_add(u64::from(node.crc()));
            if !path.is_ascii() {
                let ascii = digest::of_ascii(path, node.data(), &node.persisted());
                let more = u64::from(ascii).wrapping_sub(u64::from(node.crc()));
                self.digest_ascii_more = self.digest_ascii_more.wrapping_add(more);
            }
        }
        self.bytes += node.data_len() as u64;
    }

    fn uncount(&mut self, path: &str, node: &Znode) {
        if digest::counts(path) {
            self.digest = self.digest.wrapping_sub(u64::from(node.crc()));
            if !path.is_ascii() {
                let ascii = digest::of_ascii(path, node.data(), &node.persisted());
                let more = u64::from(ascii).wrapping_sub(u64::from(node.crc()));
                self.digest_ascii_more = self.digest_ascii_more.wrapping_sub(more);
            }
        }
        self.bytes -= node.data_len() as u64;
    }

    /// Puts a node where none is. Its parent, if there is one, counts it as a child.
    pub(super) fn insert(&mut self, path: &str, node: Znode) {
        let (zxid, acl) = (node.persisted().czxid, self.list_then(node.acl()));
        let path = self.insert_as_is(path, node).path;
        self.note(&path, zxid, ZnodeChangeKind::Created, acl);
        self.quota_after_insert(&path);
    }

    /// As [`Tree::insert`], but nobody is told and no quota counts it: for trees as they are
    /// brought.
    pub(super) fn insert_as_is(&mut self, path: &str, node: Znode) -> Placed {
        let path: Arc<str> = Arc::from(path);
        self.acls.keep(node.acl());
        self.count(&path, &node);
        self.bytes += path.len() as u64;
        match node.owner() {
            Owner::Session(session) => {
                self.ephemerals.insert((session, path.clone()));
            }
            Owner::Container | Owner::Ttl(_) => {
                self.mortals.insert(path.clone());
            }
            Owner::Persistent => {}
        }
        let has_parent = self.count_children(&path, |children| children + 1);
        let twice = self.nodes.insert(PathKey(path.clone()), node).is_some();
        self.quota_note(&path);
        Placed { path, has_parent, twice }
    }

    /// Changes what the node above `path` has for the number of its children. Whether that is
    /// there; the root needs none.
    fn count_children(&mut self, path: &str, change: impl FnOnce(u32) -> u32) -> bool {
        let Some((parent, _)) = path::split(path) else { return true };
        let Some(parent) = self.nodes.get_mut(&At::new(parent)) else { return false };
        *parent = parent.with_children(change(parent.children()));
        true
    }

    /// Takes a node away.
    pub(super) fn remove(&mut self, path: &str, zxid: i64) -> Option<Znode> {
        let (key, node) = self.nodes.remove_with_key(&At::new(path))?;
        let path = key.0;
        self.uncount(&path, &node);
        self.bytes -= path.len() as u64;
        let acl = self.list_then(node.acl());
        self.acls.drop_one(node.acl());
        match node.owner() {
            Owner::Session(session) => {
                self.ephemerals.remove(&(session, path.clone()));
            }
            Owner::Container | Owner::Ttl(_) => {
                self.mortals.remove(&path);
            }
            Owner::Persistent => {}
        }
        self.count_children(&path, |children| children.saturating_sub(1));
        self.note(&path, zxid, ZnodeChangeKind::Deleted, acl);
        self.quota_after_remove(&path, &node);
        Some(node)
    }

    /// Changes a node's stat.
    pub(super) fn change_stat(&mut self, path: &str, change: impl FnOnce(&mut StatPersisted)) {
        self.change(path, |numbers| change(&mut numbers.stat));
    }

    /// Replaces a node's data.
    pub(super) fn set_data(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
        zxid: i64,
        at: i64,
    ) {
        let Some((key, node)) = self.key(path) else { return };
        let (key, before, acl) = (key.0.clone(), node.data_len(), self.list_then(node.acl()));
        self.replace(path, |node| {
            let mut numbers = node.numbers();
            numbers.stat.version = version;
            numbers.stat.mzxid = zxid;
            numbers.stat.mtime = at;
            Znode::with_data(path, numbers, data)
        });
        self.note(&key, zxid, ZnodeChangeKind::Data, acl);
        self.quota_after_set(&key, before, data.map_or(0, <[u8]>::len));
    }

    /// Replaces a node's data and nothing else: as each server does with what it counts.
    pub(super) fn set_own_data(&mut self, path: &str, data: &[u8]) {
        self.replace(path, |node| Znode::with_data(path, node.numbers(), Some(data)));
    }

    /// Replaces a node's access list.
    pub(super) fn set_acl(&mut self, path: &str, acl: AclId, version: i32) {
        let Some(before) = self.get(path).map(Znode::acl) else { return };
        self.acls.keep(acl);
        self.change(path, |numbers| {
            numbers.acl = acl;
            numbers.stat.aversion = version;
        });
        self.acls.drop_one(before);
    }

    fn change(&mut self, path: &str, change: impl FnOnce(&mut Numbers)) {
        self.replace(path, |node| {
            let mut numbers = node.numbers();
            change(&mut numbers);
            node.with_numbers(path, numbers)
        });
    }

    fn replace(&mut self, path: &str, new: impl FnOnce(&Znode) -> Znode) {
        let Some(node) = self.nodes.get_mut(&At::new(path)) else { return };
        let after = new(node);
        let before = std::mem::replace(node, after.clone());
        self.uncount(path, &before);
        self.count(path, &after);
    }
}

/// Where a node was put.
#[derive(Debug)]
pub(super) struct Placed {
    /// Its path.
    pub(super) path: Arc<str>,
    /// Whether the node above it is there, or it needs none.
    pub(super) has_parent: bool,
    /// Whether one was there already.
    pub(super) twice: bool,
}

/// See [`Tree::walk`].
#[derive(Debug)]
pub struct Walk<'t> {
    tree: &'t Tree,
    next: Vec<Arc<str>>,
}

impl<'t> Iterator for Walk<'t> {
    type Item = (&'t str, &'t Znode);

    fn next(&mut self) -> Option<Self::Item> {
        let path = self.next.pop()?;
        let (key, node) = self.tree.key(&path)?;
        if node.children() > 0 {
            let first = self.next.len();
            self.next.extend(self.tree.children(&key.0).map(|(_, path, _)| path.clone()));
            self.next[first..].reverse();
        }
        Some((&key.0, node))
    }
}
