//! One node, as small as it can be: there may be millions.

use std::sync::Arc;

use super::acl::AclId;
use crate::jute::file::NodeRow;
use crate::jute::op::Owner;
use crate::jute::{Stat, StatPersisted};

/// A node beside its path and its children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Znode {
    /// None is not the same as empty: ZooKeeper's digest and clients tell them apart.
    pub(super) data: Option<Arc<[u8]>>,
    pub(super) stat: StatPersisted,
    pub(super) acl: AclId,
    pub(super) children: u32,
    /// Its share of the tree's digest.
    pub(super) crc: u32,
}

impl Znode {
    /// A node of which nothing is counted yet.
    pub(super) fn new(data: Option<&[u8]>, acl: AclId, stat: StatPersisted) -> Self {
        Self { data: data.map(Arc::from), stat, acl, children: 0, crc: 0 }
    }

    /// The data.
    pub fn data(&self) -> Option<&[u8]> {
        self.data.as_deref()
    }

    /// Bytes of data.
    pub fn data_len(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.len())
    }

    /// How many children it has.
    pub fn children(&self) -> u32 {
        self.children
    }

    /// Whom it belongs to.
    pub fn owner(&self) -> Owner {
        Owner::of(self.stat.ephemeral_owner)
    }

    /// As files have it.
    pub fn persisted(&self) -> &StatPersisted {
        &self.stat
    }

    /// As clients see it. What is kept counts children made; clients are shown both those made and
    /// those removed. That it is a container or has a time to live is not shown.
    pub fn stat(&self) -> Stat {
        let StatPersisted { czxid, mzxid, ctime, mtime, version, aversion, pzxid, .. } = self.stat;
        let num_children = i32::try_from(self.children).unwrap_or(i32::MAX);
        let cversion = self.stat.cversion.wrapping_mul(2).wrapping_sub(num_children);
        let ephemeral_owner = match self.owner() {
            Owner::Session(session) => session,
            _ => 0,
        };
        let data_length = i32::try_from(self.data_len()).unwrap_or(i32::MAX);
        Stat {
            czxid,
            mzxid,
            ctime,
            mtime,
            version,
            cversion,
            aversion,
            ephemeral_owner,
            data_length,
            num_children,
            pzxid,
        }
    }

    /// As a row of a snapshot; `path` is empty for the root.
    pub(super) fn row<'a>(&'a self, path: &'a str, acl: i64) -> NodeRow<'a> {
        NodeRow { path, data: self.data(), acl, stat: self.stat }
    }
}
