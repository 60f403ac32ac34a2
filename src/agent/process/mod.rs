//! Runs tasks as processes of the host.
//!
//! Each under a small shim, this same binary: it starts the process, writes its output with the
//! time of each line, and keeps how it ended in the task's directory. So processes and their logs
//! survive the agent, and the next one finds out all about them.
//! Nothing about a task is kept in memory.
//!
//! Start at `runtime::Process` for the agent's side, at `shim` for the other.

mod cgroup;
mod copy;
mod exec;
mod files;
mod log;
mod pid;
mod runtime;
mod shim;
mod signal;
mod terminal;
mod user;

pub(super) use cgroup::limits_missing;
pub use copy::copy;
pub(super) use runtime::Process;
pub use shim::shim;
