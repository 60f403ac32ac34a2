//! Pure functions from a state to commands: `(state, now, …) -> commands`. The scheduler is one
//! of them. A planner does no I/O and changes nothing; the leader proposes what it returns.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::name::{JobId, NodeName};
use crate::model::time::{Millis, Timestamp};
use crate::state::{Command, State};

/// What a pass looks at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Everything; the jobs below need not be named then.
    pub all: bool,
    /// These jobs.
    pub jobs: BTreeSet<JobId>,
}

/// What planners know beside the state.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Time of day.
    pub now: Timestamp,
    /// When each node's agent was last heard by this leader.
    pub last_heard: BTreeMap<NodeName, Timestamp>,
    /// A node not heard for longer is lost.
    pub node_timeout: Millis,
}

/// What a pass came to.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// To be proposed in this order.
    pub commands: Vec<Command>,
    /// Jobs with replicas that fit nowhere now: look again when nodes change.
    pub unplaced: BTreeSet<JobId>,
    /// Look again at the latest then, for what waits for time to pass.
    pub next_look: Option<Timestamp>,
}

/// One pass of all planners.
pub fn plan(_state: &State, _inputs: &Inputs, _scope: &Scope) -> Plan {
    Plan::default()
}
