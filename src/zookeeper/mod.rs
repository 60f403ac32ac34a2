//! ZooKeeper's side of orch: the endpoint for its clients, a client of other servers, and readers
//! of its files and its ensembles' streams.

pub mod client;
pub mod data_dir;
pub mod observer;
mod packed;
pub mod snapshot_file;
pub mod txn_log_file;
mod window;
