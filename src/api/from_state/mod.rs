//! What the API shows of the state: pure functions from the state to the JSON types.

pub(super) mod allocation;
pub(super) mod diff;
pub(super) mod event;
pub(super) mod job;
pub(super) mod node;

#[cfg(test)]
mod tests;
