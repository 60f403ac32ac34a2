//! What the API shows of the state: pure functions from the state to the JSON types.

pub(super) mod allocation;
pub(super) mod deployment;
pub(super) mod diff;
mod drain;
pub(super) mod endpoint;
pub(super) mod event;
pub(super) mod job;
pub(super) mod node;
mod sentence;
mod unplaced;

#[cfg(test)]
mod tests;
