//! The only door to the state: propose, read, watch, leadership, members.
//!
//! Never imports the planner. Start at `handle` for what other rooms call, at `start` for how a
//! server is opened, at `log_disk` for what may stand in for disk and network in simulation.

mod channels;
mod cluster;
pub mod config;
mod core;
pub mod directory;
mod grpc_peers;
mod handle;
mod in_term;
mod keeper;
pub mod log_disk;
pub mod log_store;
mod membership;
pub mod peers;
mod proposer;
mod raft_log;
mod reader;
mod runtime;
mod services;
pub mod snapshot_store;
mod start;
#[cfg(test)]
mod tests;
pub mod state_machine;
mod succession;
mod transport;
pub mod types;

pub use self::config::{Config, OpenError, StartError, Tuning};
pub use self::handle::{
    Committed, Consensus, Consistency, Leadership, ProposeError, ReadError, ServerStatus, View,
};
pub use self::in_term::Decided;
pub use self::peers::ZkAddrs;
pub use self::raft_log::RaftLog;
pub use self::runtime::Runtime;
pub use self::services::{Door, Services};
pub use self::start::Storage;
