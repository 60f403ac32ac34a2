//! ZooKeeper's side of orch: the endpoint for its clients, a client of other servers, and readers
//! of its files and its ensembles' streams.
//!
//! A client's bytes come in at `connection`, mean something in `hub`, and go on as a command, or
//! are answered from a view of the tree (`reads`). `endpoint` says when clients may come at all,
//! `expiry` when sessions end.

pub mod client;
pub mod config;
mod connection;
pub mod data_dir;
pub mod endpoint;
mod expiry;
pub mod four_letter;
mod hub;
pub mod observer;
mod packed;
mod reads;
pub mod snapshot_file;
pub mod tls;
pub mod txn_log_file;
mod watches;
mod window;
