//! Nodes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Change, Event, NodeChange, Rejected, RejectedCode, Reply};
use crate::limits::{
    NODE_LOSSES_KEPT, PROBATION_LOSSES, PROBATION_MS, PROBATION_MS_MAX, PROBATION_WITHIN_MS,
};
use crate::model::allocation::{AllocStatus, Desired};
use crate::model::job::JobKind;
use crate::model::name::NodeName;
use crate::model::node::{Drain, Node, NodeSpec, NodeState};
use crate::model::time::{Millis, Timestamp};

impl Change<'_> {
    pub(super) fn register_node(&mut self, spec: &NodeSpec) -> Result<Reply, Rejected> {
        let name = &spec.name;
        let at = self.stamp.at;
        let known = self.state.nodes.get(name).cloned();
        let another = known.as_ref().is_some_and(|node| node.agent_id != spec.agent_id);
        if let Some(node) = &known
            && another
            && node.state == NodeState::Ready
        {
            return Err(Rejected::new(
                RejectedCode::NameTaken,
                format!(
                    "node {name} is connected with another agent's data directory; give this agent \
                     another --name, or stop the other one and wait until it counts as lost"
                ),
            ));
        }
        let lost_since =
            known.as_ref().filter(|n| n.state != NodeState::Ready).map(|n| n.state_since);
        let change = match &known {
            None => NodeChange::Joined,
            Some(node) if node.state != NodeState::Ready => NodeChange::State,
            Some(node) if node.spec == *spec => return Ok(Reply::Done),
            Some(_) => NodeChange::Registered,
        };
        let losses = known.as_ref().map(|node| node.losses.clone()).unwrap_or_default();
        let (probation_until, reason) = match &known {
            Some(node) if node.state != NodeState::Lost => {
                (node.probation_until, node.reason_of_probation())
            }
            _ => probation(&losses, at).unzip(),
        };
        let node = Node {
            spec: spec.clone(),
            state: NodeState::Ready,
            reason: reason.unwrap_or_default(),
            losses,
            probation_until,
            eligible: known.as_ref().is_none_or(|node| node.eligible),
            drain: known.as_ref().and_then(|node| node.drain.clone()),
            registered_at: known.as_ref().map_or(at, |node| node.registered_at),
            state_since: match &known {
                Some(node) if node.state == NodeState::Ready => node.state_since,
                _ => at,
            },
        };
        self.put_node(node, change);
        if another {
            self.lose_allocs(name, "its node came back with an empty data directory");
        } else if let Some(since) = lost_since {
            self.take_back_allocs(name, since);
        }
        Ok(Reply::Done)
    }

    fn put_node(&mut self, node: Node, change: NodeChange) {
        let event = Event::NodeChanged {
            node: node.name.clone(),
            change,
            state: node.state,
            message: node.reason.clone(),
        };
        self.state.nodes.insert(node.name.clone(), Arc::new(node));
        self.emit(event);
    }

    fn known_node(&self, name: &NodeName) -> Result<Node, Rejected> {
        match self.state.nodes.get(name) {
            Some(node) => Ok((**node).clone()),
            None => Err(Rejected::not_found("node", name)),
        }
    }

    pub(super) fn set_node_state(
        &mut self,
        name: &NodeName,
        agent_id: u64,
        state: NodeState,
        reason: &str,
    ) -> Result<Reply, Rejected> {
        let mut node = self.known_node(name)?;
        if node.agent_id != agent_id {
            let message = format!("node {name} has registered with another agent since");
            return Err(Rejected::new(RejectedCode::Conflict, message));
        }
        if node.state == state {
            return Ok(Reply::Done);
        }
        node.state = state;
        node.reason = reason.to_owned();
        node.state_since = self.stamp.at;
        if state == NodeState::Lost {
            node.losses.push(self.stamp.at);
            let surplus = node.losses.len().saturating_sub(NODE_LOSSES_KEPT);
            node.losses.drain(..surplus);
        }
        self.put_node(node, NodeChange::State);
        match state {
            NodeState::Ready => {}
            NodeState::Lost => self.disconnect_allocs(name, reason),
            // It ended its work before it said goodbye.
            NodeState::Left => self.lose_allocs(name, reason),
        }
        Ok(Reply::Done)
    }

    /// Nobody can tell what runs on the node any more.
    fn lose_allocs(&mut self, name: &NodeName, reason: &str) {
        let lost: Vec<_> = self
            .state
            .allocs_on(name)
            .filter(|alloc| !alloc.ended())
            .map(|alloc| alloc.id)
            .collect();
        for id in lost {
            self.set_alloc_status(id, AllocStatus::Lost, reason);
        }
    }

    /// A lost node is back, with its work: it goes on as far as it is still asked for. Where
    /// something has replaced it meanwhile, there are two for one place until the planner has
    /// seen which of them is well; the older one is preferred. A node on probation gets nothing
    /// back that was replaced.
    fn take_back_allocs(&mut self, name: &NodeName, since: Timestamp) {
        self.reconnect_allocs(name);
        let lost: Vec<_> = self
            .state
            .allocs_on(name)
            .filter(|alloc| {
                // Only what was lost with the node, not what it lost earlier.
                alloc.status == AllocStatus::Lost
                    && alloc.changed_at >= since
                    && matches!(alloc.desired, Desired::Run)
                    && self.state.is_still_asked_for(alloc)
            })
            .cloned()
            .collect();
        let probation =
            self.state.nodes.get(name).is_some_and(|node| node.probation_until.is_some());
        let mut taken = BTreeSet::new();
        // The newest first: of two for one place it is the one that ran.
        for alloc in lost.iter().rev() {
            let place = (alloc.job.clone(), alloc.index);
            let service = self
                .state
                .jobs
                .get(&alloc.job)
                .is_some_and(|job| matches!(job.spec().kind, JobKind::Service { .. }));
            let free = self.state.place_is_free(&alloc.job, alloc.index, name, alloc.version, None);
            let first = taken.insert(place);
            if first && (free || (service && !probation)) && self.state.fits_again(alloc) {
                self.set_alloc_status(alloc.id, AllocStatus::Pending, "its node came back");
            }
        }
    }

    pub(super) fn set_eligibility(
        &mut self,
        name: &NodeName,
        eligible: bool,
    ) -> Result<Reply, Rejected> {
        let mut node = self.known_node(name)?;
        let relieved = eligible && (node.drain.is_some() || node.probation_until.is_some());
        if node.eligible == eligible && !relieved {
            return Ok(Reply::Done);
        }
        node.eligible = eligible;
        if eligible {
            node.drain = None;
            node.end_probation();
        }
        self.put_node(node, NodeChange::Eligibility);
        Ok(Reply::Done)
    }

    /// A node that was lost too often has stayed for as long as it had to.
    pub(super) fn end_probation(&mut self, name: &NodeName) -> Result<Reply, Rejected> {
        let mut node = self.known_node(name)?;
        // Void if it was lost again since.
        if node.probation_until.is_some_and(|until| until <= self.stamp.at) {
            node.end_probation();
            self.put_node(node, NodeChange::Eligibility);
        }
        Ok(Reply::Done)
    }

    pub(super) fn drain_node(
        &mut self,
        name: &NodeName,
        deadline: Option<Millis>,
    ) -> Result<Reply, Rejected> {
        let mut node = self.known_node(name)?;
        node.eligible = false;
        // Another deadline counts from when it was asked for.
        let same = node.drain.filter(|drain| drain.deadline == deadline);
        let since = same.map_or(self.stamp.at, |drain| drain.since);
        node.drain = Some(Drain { since, deadline });
        self.put_node(node, NodeChange::Draining);
        Ok(Reply::Done)
    }

    pub(super) fn remove_node(&mut self, name: &NodeName) -> Result<Reply, Rejected> {
        let node = self.known_node(name)?;
        if node.state == NodeState::Ready {
            let message = format!("node {name} is connected; stop its agent first");
            return Err(Rejected::new(RejectedCode::Conflict, message));
        }
        let allocs: Vec<_> = self.state.allocs_on(name).map(|alloc| alloc.id).collect();
        for alloc in allocs {
            self.forget_alloc(alloc);
        }
        self.state.nodes.remove(name);
        let message = self.forget_homes(name);
        self.emit(Event::NodeChanged {
            node: name.clone(),
            change: NodeChange::Removed,
            state: node.state,
            message,
        });
        Ok(Reply::Done)
    }

    /// Data on a node that is forgotten is gone: its replicas may go elsewhere. What users are
    /// told of it.
    fn forget_homes(&mut self, name: &NodeName) -> String {
        let at_home: Vec<_> = self
            .state
            .jobs
            .iter()
            .filter(|(_, job)| job.homes.values().any(|home| home == name))
            .map(|(id, job)| (id.clone(), job.clone()))
            .collect();
        let mut gone = Vec::new();
        for (id, job) in at_home {
            let mut job = (*job).clone();
            job.homes.retain(|index, home| {
                if home == name {
                    gone.push(format!("{id}.{index}"));
                }
                home != name
            });
            self.state.jobs.insert(id, Arc::new(job));
        }
        if gone.is_empty() {
            return String::new();
        }
        let more = gone.len().saturating_sub(REPLICAS_NAMED);
        gone.truncate(REPLICAS_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("the data there is given up, that of {}{more}", gone.join(", "))
    }
}

/// Replicas that a message names.
const REPLICAS_NAMED: usize = 5;

/// Until when a node that comes back at `at` is on probation, and what is said of it; none if it
/// was not lost too often.
fn probation(losses: &[Timestamp], at: Timestamp) -> Option<(Timestamp, String)> {
    let within = Millis(PROBATION_WITHIN_MS);
    let count = losses.iter().filter(|loss| at.since(**loss) <= within).count();
    let further = count.checked_sub(PROBATION_LOSSES)?;
    let length = PROBATION_MS.saturating_mul(1 << further.min(16)).min(PROBATION_MS_MAX);
    let until = at + Millis(length);
    let text =
        format!("on probation until {}: lost {count} times within {within}", until.time_of_day());
    Some((until, text))
}
