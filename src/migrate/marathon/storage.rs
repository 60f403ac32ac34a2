//! What a source has.

use serde::{Deserialize, Serialize};

use crate::marathon::Definitions;

/// What a source has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Storage {
    /// What it is, for people: the layout or the version of Marathon.
    pub origin: String,
    /// Apps and pods.
    pub definitions: Definitions,
    /// Tasks that run, sorted by task.
    pub instances: Vec<Instance>,
    /// Whether the source says at all which tasks run.
    pub knows_instances: bool,
}

/// A task that runs under Mesos.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instance {
    /// Its Mesos task id, which its container has as a label.
    pub task_id: String,
    /// The app or pod, as `/shop/web`.
    pub id: String,
    /// The name or address of its host, as Mesos knows it.
    pub host: String,
    /// Its ports on the host, in the order of the definition.
    pub ports: Vec<u16>,
}
