//! What keeps a replica off a node.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::Ask;
use super::score::Crowd;
use crate::model::job::{JobKind, JobSpec, VolumeSource};
use crate::model::name::NodeName;
use crate::model::node::{Node, NodeState};
use crate::model::resources::ResourceKind;
use crate::model::time::Timestamp;
use crate::state::NodeUse;

/// Why a node would not take a replica.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its agent is not connected.
    NotReady {
        /// Its state in a word.
        state: &'static str,
    },
    /// It is being drained.
    Draining,
    /// New work is kept off it.
    NotEligible,
    /// A `require` rule does not hold.
    Constraint {
        /// The rule.
        rule: String,
    },
    /// It has no such runtime.
    Runtime {
        /// `docker` or `process`.
        runtime: &'static str,
    },
    /// A host path is outside its allowed roots.
    VolumeRoot {
        /// The path.
        path: String,
    },
    /// Even empty it has less than the job needs.
    TooSmall {
        /// Of what.
        resource: ResourceKind,
    },
    /// It has not enough left.
    Lacks {
        /// Of what.
        resource: ResourceKind,
    },
    /// A fixed host port is in use.
    PortTaken {
        /// The port.
        port: u16,
    },
    /// No port of its range is free.
    NoPortFree,
    /// It has as many replicas of the job as the job allows.
    MaxPerNode,
    /// It has its copy of the system job.
    HasCopy,
    /// It was lost too often: new work waits until it has stayed for a while.
    Probation {
        /// When that is over.
        until: Timestamp,
    },
    /// The replica is to leave it.
    Leaving,
    /// The replica's data is on this node, which would not take it.
    Data {
        /// The only node for the replica.
        node: NodeName,
        /// Why it would not take it; none if the cluster does not know it.
        why: Option<Box<Refusal>>,
    },
    /// What is on its way out of this node leaves enough for the replica.
    BeingFreed {
        /// The node.
        node: NodeName,
    },
}

impl Refusal {
    /// Short and stable, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "not_ready",
            Self::Draining => "draining",
            Self::NotEligible => "not_eligible",
            Self::Constraint { .. } => "constraint",
            Self::Runtime { .. } => "runtime",
            Self::VolumeRoot { .. } => "volume_root",
            Self::TooSmall { .. } => "too_small",
            Self::Lacks { .. } => "no_room",
            Self::PortTaken { .. } | Self::NoPortFree => "port",
            Self::MaxPerNode => "max_per_node",
            Self::HasCopy => "has_copy",
            Self::Probation { .. } => "probation",
            Self::Leaving => "leaving",
            Self::Data { .. } => "data",
            Self::BeingFreed { .. } => "being_freed",
        }
    }

    /// Whether it is all there is to say, of whatever number of nodes.
    pub fn is_whole_story(&self) -> bool {
        matches!(self, Self::Data { .. } | Self::BeingFreed { .. })
    }

    /// What the node does or is, after "which".
    fn of_which(&self) -> String {
        match self {
            Self::NotReady { state: "left" } => "has left".to_owned(),
            Self::NotReady { .. }
            | Self::Draining
            | Self::NotEligible
            | Self::TooSmall { .. }
            | Self::Probation { .. } => format!("is {self}"),
            Self::Constraint { rule } => format!("breaks the constraint {rule}"),
            Self::PortTaken { port } => format!("has port {port} taken"),
            Self::MaxPerNode => "has as many as max_per_node allows".to_owned(),
            Self::HasCopy => "has its copy".to_owned(),
            Self::VolumeRoot { path } => format!("does not allow volume {path}"),
            Self::Runtime { .. } | Self::Lacks { .. } | Self::NoPortFree => format!("has {self}"),
            Self::Leaving | Self::Data { .. } | Self::BeingFreed { .. } => self.to_string(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady { state } => write!(f, "{state}"),
            Self::Draining => f.write_str("being drained"),
            Self::NotEligible => f.write_str("not eligible"),
            Self::Constraint { rule } => write!(f, "constraint {rule}"),
            Self::Runtime { runtime } => write!(f, "no {runtime} runtime"),
            Self::VolumeRoot { path } => write!(f, "volume {path} outside its allowed roots"),
            Self::TooSmall { resource } => write!(f, "too small ({resource})"),
            Self::Lacks { resource } => write!(f, "no {resource} left"),
            Self::PortTaken { port } => write!(f, "port {port} taken"),
            Self::NoPortFree => f.write_str("no port free"),
            Self::MaxPerNode => f.write_str("max_per_node reached"),
            Self::HasCopy => f.write_str("has its copy"),
            Self::Probation { until } => write!(f, "on probation until {}", until.time_of_day()),
            Self::Leaving => f.write_str("it moves away from there"),
            Self::Data { node, why: None } => {
                write!(f, "its data is on {node}, which is no node of this cluster")
            }
            Self::Data { node, why: Some(why) } => {
                write!(f, "its data is on {node}, which {}", why.of_which())
            }
            Self::BeingFreed { node } => write!(f, "it waits for room being freed on {node}"),
        }
    }
}

/// Refusals, each with how many nodes gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refusals(BTreeMap<Refusal, u32>);

impl Refusals {
    /// This one alone.
    pub fn only(refusal: Refusal) -> Self {
        Self(BTreeMap::from([(refusal, 1)]))
    }

    /// Counts one.
    pub fn add(&mut self, refusal: Refusal) {
        *self.0.entry(refusal).or_default() += 1;
    }

    /// Each with its count, the most frequent first.
    pub fn counts(&self) -> Vec<(&Refusal, u32)> {
        let mut counts: Vec<_> = self.0.iter().map(|(refusal, count)| (refusal, *count)).collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counts
    }

    /// The most frequent.
    pub fn main(&self) -> Option<&Refusal> {
        self.counts().first().map(|(refusal, _)| *refusal)
    }
}

impl fmt::Display for Refusals {
    /// `no memory left: 3, constraint attr.zone != c: 1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("the cluster has no nodes");
        }
        for (i, (refusal, count)) in self.counts().into_iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match refusal.is_whole_story() {
                true => write!(f, "{comma}{refusal}")?,
                false => write!(f, "{comma}{refusal}: {count}")?,
            }
        }
        Ok(())
    }
}

/// What would keep the job off the node even if nothing else ran on it.
pub fn refusal_when_empty(spec: &JobSpec, node: &Node) -> Option<Refusal> {
    for rule in &spec.placement.require {
        if !rule.holds(node) {
            return Some(Refusal::Constraint { rule: rule.to_string() });
        }
    }
    for task in &spec.tasks {
        let runtime = task.runtime.word();
        if !node.runtimes.contains(runtime) {
            return Some(Refusal::Runtime { runtime });
        }
        for mount in &task.volumes {
            if let VolumeSource::Path(path) = &mount.source
                && !node.volume_roots.iter().any(|root| Path::new(path).starts_with(root))
            {
                return Some(Refusal::VolumeRoot { path: path.clone() });
            }
        }
    }
    let resource = node.resources.lacks(spec.reserved())?;
    Some(Refusal::TooSmall { resource })
}

/// What keeps it off whatever is in use there.
pub(super) fn before_use(spec: &JobSpec, node: &Node) -> Option<Refusal> {
    if node.state != NodeState::Ready {
        return Some(Refusal::NotReady { state: node.state.word() });
    }
    if node.drain.is_some() {
        return Some(Refusal::Draining);
    }
    if !node.eligible {
        return Some(Refusal::NotEligible);
    }
    if let Some(until) = node.probation_until {
        return Some(Refusal::Probation { until });
    }
    refusal_when_empty(spec, node)
}

/// What keeps it off because of what is in use there.
pub(super) fn in_use(
    ask: &Ask<'_>,
    node: &Node,
    used: &NodeUse,
    crowd: &Crowd<'_>,
) -> Option<Refusal> {
    if ask.avoid() == Some(&node.name) {
        return Some(Refusal::Leaving);
    }
    let here = crowd.on(&node.name);
    if ask.spec.kind == JobKind::System && here > 0 {
        return Some(Refusal::HasCopy);
    }
    if ask.spec.placement.max_per_node.is_some_and(|most| here >= most) {
        return Some(Refusal::MaxPerNode);
    }
    let left = node.resources.minus(used.resources);
    if let Some(resource) = left.lacks(ask.spec.reserved()) {
        return Some(Refusal::Lacks { resource });
    }
    for port in ask.spec.ports() {
        if let Some(fixed) = port.host
            && used.ports.contains(&(fixed, port.protocol))
        {
            return Some(Refusal::PortTaken { port: fixed });
        }
    }
    None
}
