//! ZooKeeper moves in: against real servers and the files that they wrote.

mod client;
mod cutover_faults;
mod differential;
mod endpoint;
mod files;
mod import;
mod import_ensembles;
mod import_faults;
mod memory;
mod migration;
mod migration_faults;
mod observer;
mod servers;
mod tree;
mod verbs;
