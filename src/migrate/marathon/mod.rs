//! Marathon's apps, groups, pods and running tasks, from wherever they are.
//!
//! All sources come to the same [`Storage`]: the tree that Marathon keeps in ZooKeeper in any of
//! its layouts (`tree`, over whatever holds the tree: [`NodeSource`]; `zookeeper` is an ensemble or
//! a data directory), its tar backup (`backup`, which is put into such a tree), a saved answer of its REST API (`saved`), and a live Marathon
//! (`rest`). Nothing is changed at any of them.
//!
//! Start at [`from_ensemble`], [`from_directory`], [`from_file`] and [`from_rest`].

mod backup;
mod error;
mod instances;
mod nodes;
mod rest;
mod saved;
mod storage;
mod tree;
mod unpack;
mod zookeeper;

#[cfg(test)]
mod tests;

pub use error::SourceError;
pub use nodes::{Answer, Memory, NodeSource};
pub use rest::from_rest;
pub use saved::from_file;
pub use storage::{Instance, Storage};
pub use tree::from_nodes;
pub use zookeeper::{ROOT, from_directory, from_ensemble};
