//! What the program tells of itself.

pub mod metrics;
