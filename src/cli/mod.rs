//! The command line: one file a noun or verb, all of them clients of the REST API.
//!
//! Never reads the state or talks to consensus; what `orch server`, `agent` and `dev` start is in
//! `start`. Start at `command` for the verbs, at `client` for how a request reaches a server, at
//! `output` for what is printed: stdout is for data, stderr for the rest.

mod bench;
mod client;
mod command;
mod completion;
mod context;
mod cp;
mod deploy;
mod drain;
mod endpoints;
mod events;
mod exec;
mod failure;
mod history;
mod inspect;
mod job_file;
mod lines;
mod logs;
mod migrate;
mod node;
mod output;
mod plan;
mod port_forward;
mod progress;
mod ps;
mod rebalance;
mod rollback;
mod run;
mod scale;
mod server;
mod snapshot;
mod socket;
mod start;
mod status;
mod stop;
mod target;
mod top;
mod var;
mod verdict;
mod version;
mod words;
mod zk;

pub use command::{Cli, main};
