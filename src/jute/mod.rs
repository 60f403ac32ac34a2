//! ZooKeeper's own records: the bytes that its clients, its servers and its files use. Pure.
//!
//! Jute has no tags: a record is its fields one after another, big-endian. Start at `codec` for
//! how a field is written, at `request`, `reply` and `txn` for what is said in them.

pub mod codec;
pub mod data;
pub mod digest;
pub mod file;
pub mod op;
pub mod path;
pub mod quorum;
pub mod reply;
pub mod request;
pub mod rows;
pub mod txn;

pub use self::codec::{Error, Field, Reader};
pub use self::data::{Acl, Id, Stat, StatPersisted};
pub use self::op::{ErrorCode, Op};

#[cfg(test)]
mod tests;
