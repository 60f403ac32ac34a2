//! What a server does besides storing: it plans while it leads, tells agents what to run, takes
//! their reports, and opens sessions (logs, exec) with them.
//!
//! Never decides itself (that is the planners' part) and never changes the state but by proposing.
//! Start at `handle` for what other rooms call, at `hub` for the owner of the agents' lines, at
//! `planners` for the loop of a leader.

mod agents;
mod checks;
mod dispatch;
mod handle;
mod hub;
mod line;
mod majority;
mod planners;
mod rebalance;
mod scope;
mod sessions;
mod usage;

pub use self::agents::Agents;
pub use self::handle::{Config, ServerHandle, start};
pub use self::sessions::{Session, SessionError};
pub use self::usage::{NodeInfo, Usage};
