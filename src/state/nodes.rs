//! Nodes.

use std::sync::Arc;

use super::{Change, Event, NodeChange, Rejected, RejectedCode, Reply};
use crate::model::allocation::{AllocStatus, Desired};
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
        let node = Node {
            spec: spec.clone(),
            state: NodeState::Ready,
            reason: String::new(),
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
        self.put_node(node, NodeChange::State);
        if state != NodeState::Ready {
            self.lose_allocs(name, reason);
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

    /// A lost node is back, with its work: what nothing has replaced meanwhile goes on.
    fn take_back_allocs(&mut self, name: &NodeName, since: Timestamp) {
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
        // The newest first: of two for one place it is the one that ran.
        for alloc in lost.iter().rev() {
            let free = self.state.place_is_free(&alloc.job, alloc.index, name);
            if free && self.state.fits_again(alloc) {
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
        let drained = eligible && node.drain.is_some();
        if node.eligible == eligible && !drained {
            return Ok(Reply::Done);
        }
        node.eligible = eligible;
        if eligible {
            node.drain = None;
        }
        self.put_node(node, NodeChange::Eligibility);
        Ok(Reply::Done)
    }

    pub(super) fn drain_node(
        &mut self,
        name: &NodeName,
        deadline: Option<Millis>,
    ) -> Result<Reply, Rejected> {
        let mut node = self.known_node(name)?;
        node.eligible = false;
        let since = node.drain.map_or(self.stamp.at, |drain| drain.since);
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
        self.emit(Event::NodeChanged {
            node: name.clone(),
            change: NodeChange::Removed,
            state: node.state,
            message: String::new(),
        });
        Ok(Reply::Done)
    }
}
