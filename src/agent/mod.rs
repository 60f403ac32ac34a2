//! Makes this machine's work match its assignment.
//!
//! Takes orders from the leader over one line, compares what is assigned with what it observes,
//! and acts through a runtime: the Docker engine, or processes of the host. What runs, runs on
//! when every server is gone and when the agent itself is killed.
//! Never decides what should run, and knows nothing of the cluster's state.
//!
//! Start at `keeper`, the loop that owns everything, then `converge`, which decides.

mod config;
mod converge;
mod docker;
mod facts;
mod keeper;
mod link;
mod log_files;
mod meter;
mod order;
mod outbox;
mod probe;
pub mod process;
pub mod runtime;
mod runtimes;
mod session_files;
mod session_port;
mod sessions;
mod start;
mod store;
mod view;
mod volumes;
mod warden;

pub use config::{AgentError, Config, ResourceOverrides, RuntimeChoice};
pub use keeper::{run, run_with};
pub use meter::Sample;
pub use order::{Owner, Published, TaskKey, TaskOrder};
pub use runtimes::Runtimes;
