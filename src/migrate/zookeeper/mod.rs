//! From an ensemble of ZooKeeper to here: from its files, as one of its observers, or as its client.
//!
//! Start at `source` for where from, at `inventory` for what is found, at `files` for how a copy is
//! read, at `driver` for the live path.

pub mod chunks;
mod driver;
pub mod files;
pub mod inventory;
pub mod link;
pub mod pipe;
pub mod second;
pub mod servers;
pub mod source;
mod verify;
pub mod walk;

pub use self::driver::run;
