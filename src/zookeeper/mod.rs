//! ZooKeeper's side of orch: the endpoint for its clients, and readers of its files and its
//! ensembles' streams.

pub mod client;
