//! orch keeps a cluster's state in Raft, schedules work on its nodes, and runs it.
//!
//! The rooms, from bottom to top: a file imports only from rooms listed above its own.
//! `README.md` beside this file is the map.

// What every room may use.
pub mod limits;

// Core: pure, synchronous, deterministic.
pub mod model;
pub mod jute;
pub mod state;
pub mod planner;

// Other systems' words: pure.
pub mod marathon;

// Machinery: clocks, disks, sockets.
pub mod clock;
pub mod net;
pub mod ground;
pub mod rpc;
pub mod archive;
pub mod observe;
pub mod consensus;
pub mod agent;
pub mod server;
pub mod zookeeper;
// Another system's data.
pub mod migrate;
pub mod api;
pub mod bench;
pub mod config;
pub mod node;
pub mod cli;
