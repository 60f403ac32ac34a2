//! The replicated state machine: `State::apply(stamp, request) -> Applied { reply, events }`.
//!
//! The only place where the cluster's state changes. Pure and deterministic: the stamp brings the
//! time, ids are counters, maps are ordered. Knows no clock, file, socket, task or planner.
//! Start at `command` for what can be asked, at `query` for what can be read.

mod adoptions;
mod allocations;
mod apply;
pub mod codec;
pub mod command;
mod deployments;
mod endpoints;
pub mod event;
mod jobs;
mod moves;
mod nodes;
mod promises;
pub mod query;
pub mod rejected;
mod replies;
mod restore;
pub mod snapshot;
mod variables;
pub mod znodes;

use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};
use serde::{Deserialize, Serialize};

use self::apply::Change;
pub use self::command::{Adoption, AllocMove, Command, Placement, Placements, Request};
pub use self::event::{AllocChange, DeploymentChange, Event, EventRecord, JobChange, NodeChange};
pub use self::jobs::{Job, JobOutcome, JobVersion};
pub use self::query::NodeUse;
pub use self::rejected::{Rejected, RejectedCode};
use self::replies::Remembered;
use self::restore::Staging;
use self::znodes::{Tree, ZkImport, ZkReply};
use crate::model::allocation::Allocation;
use crate::model::deployment::{Deployment, DeploymentId};
use crate::model::name::{AllocId, JobId, NodeName, ServerName};
use crate::model::node::Node;
use crate::model::time::Timestamp;
use crate::model::variable::{Variable, VariableKey};

/// When a command is applied: the same on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Stamp {
    /// Index of the log entry.
    pub index: u64,
    /// The proposer's time, never earlier than that of the entry before.
    pub at: Timestamp,
}

/// What applying a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// For whoever asked.
    pub reply: Result<Reply, Rejected>,
    /// What changed, in order; empty if refused.
    pub events: Vec<EventRecord>,
}

/// What a command that was carried out returns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Nothing to say.
    Done,
    /// A job was submitted, scaled or stopped.
    Job {
        /// Its version now.
        version: u64,
        /// Whether anything changed.
        changed: bool,
    },
    /// Allocations were placed; rows that no longer fitted are counted, and planned again.
    Placed {
        /// Rows carried out.
        placed: u32,
        /// Rows refused.
        refused: u32,
    },
    /// A variable was written.
    Variable {
        /// The index to compare with next time.
        index: u64,
    },
    /// Answers to clients of ZooKeeper's protocol, one for each request.
    Zk(Vec<ZkReply>),
}

/// The cluster's state. A clone is cheap: tables share their structure.
#[derive(Debug, Clone, Default)]
pub struct State {
    cluster_id: u64,
    last: Stamp,
    next_alloc: u64,
    next_event: u64,
    next_deployment: u64,
    /// The last index that a variable was given.
    last_variable: u64,
    jobs: OrdMap<JobId, Arc<Job>>,
    nodes: OrdMap<NodeName, Arc<Node>>,
    allocs: OrdMap<AllocId, Arc<Allocation>>,
    deployments: OrdMap<DeploymentId, Arc<Deployment>>,
    variables: OrdMap<VariableKey, Arc<Variable>>,
    replies: OrdMap<String, Arc<Remembered>>,
    replies_order: Vector<String>,
    events: Vector<Arc<EventRecord>>,
    staging: Staging,
    retired_servers: OrdMap<u64, ServerName>,
    zk: Tree,
    zk_imports: OrdMap<String, Arc<ZkImport>>,
    // Indexes: derived from `allocs`, not part of a snapshot.
    allocs_of_job: OrdMap<JobId, OrdSet<AllocId>>,
    allocs_on_node: OrdMap<NodeName, OrdSet<AllocId>>,
    uses: OrdMap<NodeName, NodeUse>,
}

#[cfg(test)]
mod tests;
