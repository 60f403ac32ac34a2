//! Transactions of an ensemble, applied to a copy of its tree as its own servers apply them. They
//! are absolute: applied again to a tree that has some of them already, they come to the same.

use super::acl::AclId;
use super::node::Znode;
use super::session::{Session, imported_password};
use super::tree::Tree;
use crate::jute::op::{CONTAINER_OWNER, Owner};
use crate::jute::txn::{CreateKind, CreateTxn, Transaction, Txn, TxnHeader};
use crate::jute::{Acl, Error, Reader, StatPersisted, path};

impl Tree {
    /// Applies one transaction.
    ///
    /// # Errors
    /// If part of it can't be read; the tree may have the rest then, and is not to be used.
    pub(super) fn replay(&mut self, transaction: &Transaction<'_>) -> Result<(), Error> {
        let header = &transaction.header;
        self.zxid = header.zxid;
        match &transaction.txn {
            Txn::Multi(changes) => {
                let mut read = Vec::with_capacity(changes.len());
                for change in changes {
                    let mut reader = Reader::new(change.data.unwrap_or_default());
                    read.push(Txn::read(change.op, &mut reader)?);
                }
                // One that failed means that none took place.
                if !read.iter().any(|txn| matches!(txn, Txn::Error(_))) {
                    for txn in &read {
                        self.replay_one(header, txn);
                    }
                }
                Ok(())
            }
            txn => {
                self.replay_one(header, txn);
                Ok(())
            }
        }
    }

    fn replay_one(&mut self, header: &TxnHeader, txn: &Txn<'_>) {
        let zxid = header.zxid;
        match txn {
            Txn::Create(create) => self.replay_create(header, create),
            Txn::Delete(path) => self.replay_delete(path, zxid),
            Txn::SetData(set) => {
                if self.get(set.path).is_some() {
                    self.set_data(set.path, set.data, set.version, zxid, header.time);
                }
            }
            Txn::SetAcl(set) => {
                if self.get(set.path).is_some() {
                    let acl = self.acl_id(&set.acl);
                    self.set_acl(set.path, acl, set.version);
                }
            }
            Txn::CreateSession(timeout) => {
                let id = header.client_id;
                let (password, timeout) = (imported_password(id), *timeout);
                self.sessions.insert(id, Session { timeout, password, attachment: 0 }.into());
            }
            Txn::CloseSession(paths) => {
                for path in paths.iter().flatten() {
                    self.replay_delete(path, zxid);
                }
                self.end_session(header.client_id, zxid);
            }
            Txn::Error(_) | Txn::Check(_) | Txn::Multi(_) => {}
        }
    }

    fn acl_id(&mut self, acl: &[Acl]) -> AclId {
        self.acls.id_of(acl.into())
    }

    fn replay_create(&mut self, header: &TxnHeader, create: &CreateTxn<'_>) {
        let Some((above, _)) = path::split(create.path) else { return };
        let Some(parent) = self.get(above) else { return };
        let had = parent.persisted().cversion;
        let acl = self.acl_id(&create.acl);
        if let Some(node) = self.get(create.path) {
            // The snapshot had it already, perhaps with an access list that it does not know.
            let version = node.persisted().aversion;
            self.set_acl(create.path, acl, version);
        } else {
            let owner = match create.kind {
                CreateKind::Persistent => 0,
                CreateKind::Ephemeral => header.client_id,
                CreateKind::Container => CONTAINER_OWNER,
                CreateKind::Ttl(ttl) => Owner::Ttl(ttl).number(),
            };
            let stat = StatPersisted {
                czxid: header.zxid,
                mzxid: header.zxid,
                ctime: header.time,
                mtime: header.time,
                ephemeral_owner: owner,
                pzxid: header.zxid,
                ..StatPersisted::default()
            };
            self.insert(create.path, Znode::new(create.path, create.data, acl, stat));
        }
        let cversion = match create.parent_cversion {
            -1 => had.wrapping_add(1),
            said => said,
        };
        if cversion > had {
            self.change_stat(above, |stat| {
                stat.cversion = cversion;
                stat.pzxid = header.zxid;
            });
        }
    }

    fn replay_delete(&mut self, path: &str, zxid: i64) {
        let Some((above, _)) = path::split(path) else { return };
        self.remove(path, zxid);
        self.change_stat(above, |stat| stat.pzxid = stat.pzxid.max(zxid));
    }
}
