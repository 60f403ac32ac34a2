//! ZooKeeper moves in: against real servers and the files that they wrote.

mod differential;
mod files;
mod observer;
mod servers;
mod tree;
