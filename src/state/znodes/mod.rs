//! ZooKeeper's tree: nodes, sessions and access lists, with its semantics to the letter.
//!
//! A node takes 130 to 160 bytes beside its path and data, with what the allocator and the map's
//! half-full leaves add (`orch bench tree`; most of it is the map's and the path's own overhead, the
//! numbers take some 30).
//!
//! Start at `tree` for what is kept, at `requests` for what clients ask, at `import` and
//! `import_step` for trees that come from elsewhere.

mod acl;
mod compare;
mod import;
mod import_step;
mod key;
mod merge;
mod node;
mod ops;
mod quota;
mod reads;
mod reconfig;
mod replay;
mod requests;
mod rows;
mod session;
mod tree;

pub use self::acl::Asker;
pub use self::import::ZkImport;
pub use self::import_step::{
    ROW_ACL, ROW_NODE, ROW_SESSION, ZkExisting, ZkImportPhase, ZkImportStatus, ZkImportStep,
    ZkPortSeen,
};
pub use self::node::Znode;
pub use self::requests::{ZkBatch, ZkCaller, ZkReply, ZkRequest};
pub(super) use self::rows::{RowReader, ZkRow, write_all};
pub use self::session::{Session, imported_password};
pub use self::tree::{FIRST_ZXID, Tree, Walk, ZnodeChange, ZnodeChangeKind};

use crate::jute::digest;

#[cfg(test)]
pub(super) mod tests;
