//! What comes in, and what goes out.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::agent::order::TaskKey;
use crate::agent::runtime::{Condition, Found, RuntimeError};
use crate::model::allocation::{AllocReport, Assignment};
use crate::model::name::AllocId;
use crate::model::time::Millis;

/// What happened.
#[derive(Debug, Clone)]
pub(in crate::agent) enum Event {
    /// Everything that is assigned.
    Sync(Everything),
    /// A change to it.
    Orders { run: Vec<Assignment>, stop: Vec<(AllocId, u64)>, forget: Vec<AllocId> },
    /// The image of a task that is being started is being fetched.
    Pulling { key: TaskKey },
    /// An operation is through.
    Started { key: TaskKey, result: Result<String, RuntimeError> },
    /// An operation is through.
    Stopped { key: TaskKey, result: Result<(), RuntimeError> },
    /// An operation is through.
    Inspected { key: TaskKey, result: Result<Condition, RuntimeError> },
    /// An operation is through.
    Removed { key: TaskKey, result: Result<(), RuntimeError> },
    /// A runtime noticed that a task has changed.
    Changed { key: TaskKey },
    /// A container has changed that may have been taken over.
    ContainerChanged { handle: String },
    /// All that a runtime has, asked for at `since` (see [`Converge::listing`]).
    Listed { runtime: &'static str, since: u64, found: Vec<Found> },
    /// A runtime does not answer.
    Down { runtime: &'static str, message: String },
    /// What one of a task's checks has found out, in its `run`-th run.
    Checked { key: TaskKey, run: u64, kind: CheckKind, finding: Finding },
    /// A task has written more than it may.
    OverDisk { key: TaskKey, used: u64, limit: u64 },
    /// The line to the leader is down, after so long a silence. It is up again with [`Event::Sync`].
    LineDown { silent_for: Millis },
    /// Time has passed.
    Tick,
    /// End and remove everything.
    EndAll,
}

/// Which of a task's checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::agent) enum CheckKind {
    /// Whether it is alive: it is restarted when this fails.
    Liveness,
    /// Whether it can take traffic.
    Readiness,
}

/// What a check has found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum Finding {
    /// It passes.
    Passes,
    /// It fails, for that reason.
    Fails(String),
    /// It has neither passed nor failed yet; why it does not pass.
    NotYet(String),
}

/// What the leader has for this node.
#[derive(Debug, Clone, Default)]
pub(in crate::agent) struct Everything {
    pub(in crate::agent) run: Vec<Assignment>,
    pub(in crate::agent) stop: Vec<(AllocId, u64)>,
    /// Ended, but not forgotten.
    pub(in crate::agent) ended: BTreeSet<AllocId>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum Action {
    /// Start the task; with `reuse`, its ended container.
    Start { key: TaskKey, assignment: Arc<Assignment>, reuse: Option<String> },
    /// Call a start off if it still fetches the image.
    CancelStart { key: TaskKey },
    /// End the task.
    Stop { key: TaskKey, runtime: &'static str, handle: String, grace: Millis },
    /// Find out how it is.
    Inspect { key: TaskKey, runtime: &'static str, handle: String },
    /// Remove what is left of it.
    Remove { key: TaskKey, runtime: &'static str, handle: String },
    /// Check it from now on.
    Probe { key: TaskKey, run: u64, kind: CheckKind, assignment: Arc<Assignment>, handle: String },
    /// No check of it any more.
    EndProbes { key: TaskKey },
    /// List what the runtime has: something depends on it.
    List { runtime: &'static str },
    /// Tell the leader.
    Report(AllocReport),
    /// The runtime has a task that belongs to no known allocation: end and remove it.
    RemoveStray { runtime: &'static str, found: Found },
    /// Nothing is left of an allocation.
    Drop(AllocId),
}
