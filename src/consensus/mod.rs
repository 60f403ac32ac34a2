//! The only door to the state: propose, read, watch, leadership, members.
//!
//! Never imports the planner. Start at `handle` for what other rooms call.

mod handle;

pub use self::handle::{
    Committed, Consensus, Consistency, Leadership, ProposeError, ReadError, ServerStatus, View,
};
