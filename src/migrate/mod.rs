//! Another system's data, read where it is: from its files, its storage or its API.
//!
//! What is read is other systems' words; what they mean is said in rooms of their own, as
//! `marathon`.

pub mod marathon;
pub mod zookeeper;
