//! `/v1/zk`: ZooKeeper's nodes as operators see and change them, and imports of such nodes.
//!
//! Who asks here may do everything and has no session: access lists do not hold, and ephemeral
//! nodes can't be made.

mod imports;
mod nodes;
mod rows;
mod tree;
mod view;
mod watch;

pub(super) use self::imports::*;
pub(super) use self::nodes::*;
pub(super) use self::tree::*;
pub(super) use self::watch::*;
