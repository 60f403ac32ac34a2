//! What things are, and when they are valid. Pure: no clock, file, socket or task.
//!
//! Start at `job` for what a user asks for, at `allocation` for what the cluster makes of it.

pub mod allocation;
pub mod constraint;
pub mod deployment;
pub mod health;
pub mod job;
pub mod job_file;
pub mod name;
pub mod node;
pub mod pattern;
pub mod policy;
pub mod problem;
pub mod resources;
pub mod server;
pub mod time;
pub mod variable;
