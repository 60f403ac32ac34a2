//! A small tree with ZooKeeper's rules of replay and its digest, written from the facts alone: what
//! readers of files and streams are held against.

use std::collections::{BTreeMap, BTreeSet};

use orch::jute::file::{AclRow, NodeRow, OPEN_ACL_KEY, SessionRow};
use orch::jute::op::{CONTAINER_OWNER, Owner};
use orch::jute::rows::Row;
use orch::jute::txn::{CreateKind, CreateTxn, Transaction, Txn, TxnHeader};
use orch::jute::{Acl, Field, Op, Reader, StatPersisted, digest, path};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its data.
    pub data: Option<Vec<u8>>,
    /// Its access list; none: the snapshot named one that it does not have.
    pub acl: Option<Vec<Acl>>,
    /// The rest.
    pub stat: StatPersisted,
}

/// A tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// By path; the root is `/`.
    pub nodes: BTreeMap<String, Node>,
    /// Time-outs by session.
    pub sessions: BTreeMap<i64, i32>,
    /// By key, while rows come.
    pub acls: BTreeMap<i64, Vec<Acl>>,
    /// The last transaction.
    pub zxid: i64,
    /// Transactions after which the digest was equal, and was not.
    pub proven: (u64, u64),
}

impl Tree {
    /// Takes a row of a snapshot or a stream.
    pub fn add(&mut self, row: &Row<'_>) {
        match row {
            Row::Session(SessionRow { id, timeout }) => {
                self.sessions.insert(*id, *timeout);
            }
            Row::Acl(AclRow { key, acl }) => {
                self.acls.insert(*key, acl.clone());
            }
            Row::Node(NodeRow { path, data, acl, stat }) => {
                let path = if path.is_empty() { "/" } else { path };
                let acl = match *acl {
                    OPEN_ACL_KEY => Some(vec![Acl::open()]),
                    key => self.acls.get(&key).cloned(),
                };
                let node = Node { data: data.map(<[u8]>::to_vec), acl, stat: *stat };
                assert!(
                    path == "/" || self.parent(path).is_some(),
                    "{path} comes before its parent"
                );
                assert!(self.nodes.insert(path.to_owned(), node).is_none(), "{path} comes twice");
            }
        }
    }

    fn parent(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path::split(path)?.0)
    }

    /// The digest by the formula, over all nodes.
    pub fn digest(&self) -> i64 {
        let sum = |sum: u64, (path, node): (&String, &Node)| {
            let part = digest::of(path, node.data.as_deref(), &node.stat);
            if digest::counts(path) { sum.wrapping_add(part.into()) } else { sum }
        };
        self.nodes.iter().fold(0, sum).cast_signed()
    }

    /// The same in a locale without letters beyond ASCII.
    pub fn digest_ascii(&self) -> i64 {
        let sum = |sum: u64, (path, node): (&String, &Node)| {
            let part = digest::of_ascii(path, node.data.as_deref(), &node.stat);
            if digest::counts(path) { sum.wrapping_add(part.into()) } else { sum }
        };
        self.nodes.iter().fold(0, sum).cast_signed()
    }

    /// Applies a transaction, and counts whether its digest is the tree's then.
    pub fn apply(&mut self, bytes: &[u8]) {
        let transaction = Transaction::from_bytes(bytes).unwrap();
        assert_eq!(
            transaction.to_bytes(),
            bytes,
            "what was read is written again: {transaction:?}"
        );
        self.change(&transaction.header, &transaction.txn);
        self.zxid = transaction.header.zxid;
        if let Some(said) = transaction.digest {
            assert_eq!(said.version, digest::VERSION);
            if said.digest == self.digest() { self.proven.0 += 1 } else { self.proven.1 += 1 }
        }
    }

    fn change(&mut self, header: &TxnHeader, txn: &Txn<'_>) {
        match txn {
            Txn::Create(create) => self.create(header, create),
            Txn::Delete(path) => self.delete(path, header.zxid),
            Txn::SetData(set) => {
                if let Some(node) = self.nodes.get_mut(set.path) {
                    node.data = set.data.map(<[u8]>::to_vec);
                    node.stat.version = set.version;
                    (node.stat.mzxid, node.stat.mtime) = (header.zxid, header.time);
                }
            }
            Txn::SetAcl(set) => {
                if let Some(node) = self.nodes.get_mut(set.path) {
                    node.acl = Some(set.acl.clone());
                    node.stat.aversion = set.version;
                }
            }
            Txn::CreateSession(timeout) => {
                self.sessions.insert(header.client_id, *timeout);
            }
            Txn::CloseSession(paths) => {
                self.sessions.remove(&header.client_id);
                let listed = paths.iter().flatten().map(|path| (*path).to_owned());
                let owned = self.nodes.iter().filter(|(_, node)| {
                    Owner::of(node.stat.ephemeral_owner) == Owner::Session(header.client_id)
                });
                let gone: BTreeSet<String> =
                    listed.chain(owned.map(|(path, _)| path.clone())).collect();
                gone.iter().for_each(|path| self.delete(path, header.zxid));
            }
            Txn::Multi(changes) => {
                let fails = |op: i32| Op::of(op) == Some(Op::Error);
                if changes.iter().any(|change| fails(change.op)) {
                    return;
                }
                for change in changes {
                    let mut reader = Reader::new(change.data.unwrap_or_default());
                    let txn = Txn::read(change.op, &mut reader).unwrap();
                    reader.end().unwrap();
                    self.change(header, &txn);
                }
            }
            Txn::Error(_) | Txn::Check(_) => {}
        }
    }

    fn create(&mut self, header: &TxnHeader, create: &CreateTxn<'_>) {
        let zxid = header.zxid;
        if let Some(node) = self.nodes.get_mut(create.path) {
            node.acl = Some(create.acl.clone());
        } else {
            let ephemeral_owner = match create.kind {
                CreateKind::Persistent => 0,
                CreateKind::Ephemeral => header.client_id,
                CreateKind::Container => CONTAINER_OWNER,
                CreateKind::Ttl(ms) => Owner::Ttl(ms).number(),
            };
            let (czxid, mzxid, pzxid) = (zxid, zxid, zxid);
            let (ctime, mtime) = (header.time, header.time);
            let zero = StatPersisted::default();
            let stat = StatPersisted { czxid, mzxid, pzxid, ctime, mtime, ephemeral_owner, ..zero };
            let data = create.data.map(<[u8]>::to_vec);
            let node = Node { data, acl: Some(create.acl.clone()), stat };
            self.nodes.insert(create.path.to_owned(), node);
        }
        let Some(parent) = self.parent(create.path) else { return };
        let cversion = match create.parent_cversion {
            -1 => parent.stat.cversion + 1,
            cversion => cversion,
        };
        if cversion > parent.stat.cversion {
            (parent.stat.cversion, parent.stat.pzxid) = (cversion, zxid);
        }
    }

    fn delete(&mut self, path: &str, zxid: i64) {
        self.nodes.remove(path);
        if let Some(parent) = self.parent(path) {
            parent.stat.pzxid = parent.stat.pzxid.max(zxid);
        }
    }

    /// Where another tree differs.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let paths: BTreeSet<_> = self.nodes.keys().chain(other.nodes.keys()).collect();
        let node = paths.into_iter().find(|path| self.nodes.get(*path) != other.nodes.get(*path));
        if let Some(path) = node {
            let (ours, theirs) = (self.nodes.get(path), other.nodes.get(path));
            return Some(format!("{path}: {ours:?} and {theirs:?}"));
        }
        let (ours, theirs) = (&self.sessions, &other.sessions);
        (ours != theirs).then(|| format!("sessions {ours:?} and {theirs:?}"))
    }

    /// The tree without what each server has of its own.
    pub fn common(mut self) -> Self {
        self.nodes.retain(|path, _| !path.starts_with("/zookeeper/"));
        self.acls.clear();
        (self.zxid, self.proven) = (0, (0, 0));
        self
    }
}
