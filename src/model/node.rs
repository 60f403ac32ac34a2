//! A host with an agent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::name::NodeName;
use super::resources::Resources;
use super::time::{Millis, Timestamp};

/// What an agent says of its host when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The node's name.
    pub name: NodeName,
    /// Random, made with the agent's data directory: tells a host from another of the same name.
    pub agent_id: u64,
    /// Host name or address under which published ports are reached.
    pub address: String,
    /// The operator's class; may be empty.
    #[serde(default)]
    pub class: String,
    /// Detected (`os`, `arch`, `kernel`, `cpus`, `hostname`) and the operator's own.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// What jobs can use in all.
    pub resources: Resources,
    /// Runtimes that work now: `docker`, `process`.
    #[serde(default)]
    pub runtimes: BTreeSet<String>,
    /// Directories under which host paths may be mounted.
    #[serde(default)]
    pub volume_roots: Vec<String>,
    /// First and last port that is given out.
    pub port_range: (u16, u16),
    /// The agent's version.
    #[serde(default)]
    pub version: String,
}

/// A node as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What its agent said last.
    pub spec: NodeSpec,
    /// Whether its agent is heard.
    pub state: NodeState,
    /// Why it is in that state; empty when ready, unless it is on probation.
    #[serde(default)]
    pub reason: String,
    /// Whether new work may be placed on it.
    pub eligible: bool,
    /// Work is being moved away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// First registration.
    pub registered_at: Timestamp,
    /// Last change of its state.
    pub state_since: Timestamp,
    /// When it was lost, the last few times, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Timestamp>,
    /// It was lost too often: it gets no new work until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probation_until: Option<Timestamp>,
}

impl std::ops::Deref for Node {
    type Target = NodeSpec;
    fn deref(&self) -> &NodeSpec {
        &self.spec
    }
}

impl std::ops::DerefMut for Node {
    fn deref_mut(&mut self) -> &mut NodeSpec {
        &mut self.spec
    }
}

/// Whether a node's agent is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Its agent is connected: work may be placed and is followed.
    Ready,
    /// Its agent was not heard for the node timeout: its work counts as lost and is replaced.
    Lost,
    /// Its agent said goodbye: as lost, but nobody need be woken.
    Left,
}

impl NodeState {
    /// The word users know it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Lost => "lost",
            Self::Left => "left",
        }
    }
}

/// Work is being moved away from a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When it was asked for.
    pub since: Timestamp,
    /// From then on all that is left is stopped at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Millis>,
}

impl Node {
    /// Whether the scheduler may use it at all.
    pub fn takes_work(&self) -> bool {
        self.state == NodeState::Ready
            && self.eligible
            && self.drain.is_none()
            && self.probation_until.is_none()
    }

    /// What is said of it while it is ready and on probation.
    pub fn reason_of_probation(&self) -> Option<String> {
        self.probation_until.map(|until| match self.state {
            NodeState::Ready => self.reason.clone(),
            NodeState::Lost | NodeState::Left => {
                format!("on probation until {}", until.time_of_day())
            }
        })
    }

    /// It takes work again, and what was is forgotten.
    pub fn end_probation(&mut self) {
        if self.probation_until.take().is_some() {
            self.losses.clear();
            if self.state == NodeState::Ready {
                self.reason.clear();
            }
        }
    }

    /// A ready node for tests.
    #[cfg(test)]
    pub fn example(name: &str) -> Node {
        Node {
            spec: NodeSpec {
                name: name.parse().expect("a valid name"),
                agent_id: name.bytes().fold(7, |sum, b| sum * 31 + u64::from(b)),
                address: "127.0.0.1".into(),
                class: String::new(),
                attributes: BTreeMap::new(),
                resources: Resources { cpu_milli: 4000, memory: 8 << 30, disk: 100 << 30, gpu: 0 },
                runtimes: ["docker", "process"].map(str::to_owned).into(),
                volume_roots: vec!["/srv".into()],
                port_range: (20_000, 32_000),
                version: "0.1.0".into(),
            },
            state: NodeState::Ready,
            reason: String::new(),
            eligible: true,
            drain: None,
            registered_at: Timestamp(0),
            state_since: Timestamp(0),
            losses: Vec::new(),
            probation_until: None,
        }
    }
}
