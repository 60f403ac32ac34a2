//! What sessions (logs, exec, files, ports) see of a task.

use std::net::IpAddr;
use std::sync::Arc;

use super::order::{Published, TaskKey};
use super::runtime::Runtime;

/// A task as sessions see it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) key: TaskKey,
    /// None if its runtime does not answer.
    pub(super) runtime: Option<Arc<dyn Runtime>>,
    /// None before its first start.
    pub(super) handle: Option<String>,
    pub(super) running: bool,
    /// Its allocation has ended for good.
    pub(super) over: bool,
    /// Its ports with what they were given.
    pub(super) ports: Vec<Published>,
    /// Where they are published.
    pub(super) bind_address: IpAddr,
}
