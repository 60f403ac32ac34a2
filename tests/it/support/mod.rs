//! What the tests stand on: clusters of real processes, an HTTP client, the command line, Docker.
//!
//! Ends only what it started: children by their PID, containers and images by the names it gave.
//! Never asserts on wall time: [`wait_until`] polls a condition up to a generous deadline.
//! Start at [`Cluster::start`].

mod address;
mod cluster;
mod command_line;
pub mod docker;
mod http;
mod namespace;
mod process;
mod small_disk;
mod wait;
pub mod writer;
pub mod zookeeper;
pub mod zookeeper_client;
pub mod zookeeper_leader;

pub use address::LoopbackAddress;
pub use cluster::Cluster;
pub use command_line::{Output, command, orch, orch_with};
pub use http::Http;
pub use namespace::Namespace;
pub use process::{Process, kill_processes_under, processes_with};
pub use small_disk::SmallDisk;
pub use wait::{LONG, SHORT, wait_until};
