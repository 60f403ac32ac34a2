//! What must hold for every reader of bytes from outside, whatever the bytes: it neither panics
//! nor hangs, and what it accepts it can write and read again.

pub mod job_file;
pub mod log_entry;
pub mod marathon;
pub mod message;
pub mod snapshot;
pub mod zookeeper_log;
pub mod zookeeper_message;
pub mod zookeeper_snapshot;
