//! The only door to the state: propose, read, watch, leadership, members.
//!
//! Never imports the planner. Start at `handle` for what other rooms call.

mod channels;
mod directory;
mod handle;
mod log_disk;
mod log_store;
mod peers;
mod raft_log;
mod runtime;
mod snapshot_store;
mod state_machine;
mod transport;
mod types;

pub use self::handle::{
    Committed, Consensus, Consistency, Leadership, ProposeError, ReadError, ServerStatus, View,
};
