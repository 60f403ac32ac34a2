//! A tree as rows of a snapshot, and back.

use serde::{Deserialize, Serialize};

use super::acl::AclId;
use super::import::ZkImport;
use super::import_step::{ROW_NODE, ZkImportStatus};
use super::node::Znode;
use super::quota::Recounts;
use super::session::Session;
use super::tree::Tree;
use crate::jute::file::NodeRow;
use crate::jute::{Acl, Field, Reader};
use crate::limits::ZK_ROWS_BYTES;
use crate::state::State;

/// A row. Variants and fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) enum ZkRow {
    /// A tree begins: rows behind it are its own.
    Head(ZkHead),
    /// An access list under its number.
    Acl(AclId, Vec<Acl>),
    /// A session.
    Session(i64, Session),
    /// Nodes, those above before those below, each as an ensemble's snapshot has it.
    Nodes(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Digest and number of nodes, in the place of all nodes: for checksums, never in a file.
    Digest(u64, u64),
    /// The tree is at its end.
    End,
    /// The tree that ended last is the copy of an import of this name; and the numbers that the
    /// source has for access lists.
    Import(String, Box<ZkImportStatus>, Vec<(i64, AclId)>),
}

/// What a tree has beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::state) struct ZkHead {
    zxid: i64,
    last_session: i64,
    next_acl: AclId,
    /// How many changes clients could follow: they are not in a snapshot.
    change_count: u64,
    #[serde(default, skip_serializing_if = "Recounts::is_nothing")]
    recounts: Recounts,
}

/// Hands the rows of a tree to `put`; without nodes their digest stands for them, which is kept as
/// they change.
fn write_rows<E>(
    tree: &Tree,
    with_nodes: bool,
    mut put: impl FnMut(ZkRow) -> Result<(), E>,
) -> Result<(), E> {
    put(ZkRow::Head(ZkHead {
        zxid: tree.zxid,
        last_session: tree.last_session,
        next_acl: tree.acls.next(),
        change_count: tree.change_count,
        recounts: tree.recounts,
    }))?;
    for (id, acl) in tree.acls.rows() {
        put(ZkRow::Acl(id, acl.to_vec()))?;
    }
    for (id, session) in &tree.sessions {
        put(ZkRow::Session(*id, Session::clone(session)))?;
    }
    if !with_nodes {
        return put(ZkRow::Digest(tree.digest(), tree.node_count() as u64));
    }
    let mut bytes = Vec::with_capacity(ZK_ROWS_BYTES + 1024);
    for (key, node) in &tree.nodes {
        bytes.push(ROW_NODE);
        node.row(&key.0, i64::from(node.acl())).write(&mut bytes);
        if bytes.len() >= ZK_ROWS_BYTES {
            let full = std::mem::replace(&mut bytes, Vec::with_capacity(ZK_ROWS_BYTES + 1024));
            put(ZkRow::Nodes(full))?;
        }
    }
    if !bytes.is_empty() {
        put(ZkRow::Nodes(bytes))?;
    }
    put(ZkRow::End)
}

/// Puts rows where they belong.
#[derive(Debug)]
pub(in crate::state) struct RowReader {
    tree: Tree,
    next_acl: AclId,
}

impl Default for RowReader {
    fn default() -> Self {
        Self { tree: Tree::empty(), next_acl: 0 }
    }
}

impl RowReader {
    /// Takes one row; what it completes goes into `state`.
    ///
    /// # Errors
    /// Why the row can't be.
    pub(in crate::state) fn put(
        &mut self,
        state: &mut State,
        row: ZkRow,
    ) -> Result<(), &'static str> {
        match row {
            ZkRow::Head(head) => {
                self.tree = Tree::empty();
                self.tree.zxid = head.zxid;
                self.tree.last_session = head.last_session;
                self.tree.change_count = head.change_count;
                self.tree.recounts = head.recounts;
                self.next_acl = head.next_acl;
            }
            ZkRow::Acl(id, acl) => {
                if !self.tree.acls.put(id, acl.into()) {
                    return Err("an access list that comes twice");
                }
            }
            ZkRow::Session(id, session) => {
                self.tree.sessions.insert(id, session.into());
            }
            ZkRow::Nodes(bytes) => {
                let mut reader = Reader::new(&bytes);
                while !reader.rest().is_empty() {
                    reader.take(1).map_err(|_| "a node that can't be read")?;
                    let row: NodeRow<'_> =
                        reader.field().map_err(|_| "a node that can't be read")?;
                    let acl =
                        AclId::try_from(row.acl).map_err(|_| "an access list without number")?;
                    let node = Znode::new(row.path, row.data, acl, row.stat);
                    self.tree.insert_as_is(row.path, node);
                }
            }
            ZkRow::Digest(..) => return Err("a checksum's row"),
            ZkRow::End => {
                self.tree.acls.set_next(self.next_acl);
                state.zk = std::mem::replace(&mut self.tree, Tree::empty());
            }
            ZkRow::Import(name, status, keys) => {
                // The copies come before the tree that clients see.
                let tree = std::mem::replace(&mut state.zk, Tree::empty());
                let acl_keys = keys.into_iter().collect();
                let import = ZkImport { status: *status, tree, acl_keys };
                state.zk_imports.insert(name, import.into());
            }
        }
        Ok(())
    }
}

/// Hands the rows of all copies, and then of the tree that clients see, to `put`.
pub(in crate::state) fn write_all<E>(
    state: &State,
    with_nodes: bool,
    mut put: impl FnMut(ZkRow) -> Result<(), E>,
) -> Result<(), E> {
    for (name, import) in &state.zk_imports {
        write_rows(&import.tree, with_nodes, &mut put)?;
        let keys = import.acl_keys.iter().map(|(key, id)| (*key, *id)).collect();
        put(ZkRow::Import(name.clone(), Box::new(import.status.clone()), keys))?;
    }
    write_rows(&state.zk, with_nodes, put)
}
