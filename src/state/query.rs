//! What planners and the API read.

use std::sync::Arc;

use imbl::OrdSet;

use super::znodes::{Tree, ZkImport};
use super::{EventRecord, Job, Stamp, State, snapshot};
use crate::model::allocation::{Allocation, Assignment, Desired};
use crate::model::job::Protocol;
use crate::model::name::{AllocId, JobId, NodeName, ProjectName, ServerName};
use crate::model::node::Node;
use crate::model::resources::Resources;
use crate::model::time::Timestamp;
use crate::model::variable::{Variable, VariableKey, VariablePath};

/// What is in use on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeUse {
    /// Sum over the allocations that have not ended.
    pub resources: Resources,
    /// Their host ports.
    pub ports: OrdSet<(u16, Protocol)>,
    /// Their devices.
    pub gpus: OrdSet<u32>,
}

impl NodeUse {
    /// Counts an allocation in.
    pub fn take(&mut self, alloc: &Allocation) {
        self.resources = self.resources.plus(alloc.reserved);
        self.ports.extend(alloc.reserved_ports.iter().copied());
        self.gpus.extend(alloc.grant.gpus.iter().copied());
    }

    /// Counts an allocation out.
    pub fn release(&mut self, alloc: &Allocation) {
        self.resources = self.resources.minus(alloc.reserved);
        for port in &alloc.reserved_ports {
            self.ports.remove(port);
        }
        for gpu in &alloc.grant.gpus {
            self.gpus.remove(gpu);
        }
    }
}

/// Events from before those kept were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "events up to {oldest} are no longer kept; the oldest that can be resumed after is {oldest}"
)]
pub struct EventsGone {
    /// The smallest index a stream can be resumed after.
    pub oldest: u64,
}

impl State {
    /// The nodes that clients of ZooKeeper's protocol see.
    pub fn zk(&self) -> &Tree {
        &self.zk
    }

    /// Imports of such trees, by name.
    pub fn zk_imports(&self) -> impl Iterator<Item = (&str, &Arc<ZkImport>)> {
        self.zk_imports.iter().map(|(name, import)| (name.as_str(), import))
    }

    /// An import.
    pub fn zk_import(&self, name: &str) -> Option<&Arc<ZkImport>> {
        self.zk_imports.get(name)
    }

    /// The cluster's id; 0 before its first command.
    pub fn cluster_id(&self) -> u64 {
        self.cluster_id
    }

    /// Where the log was when this state was reached.
    pub fn stamp(&self) -> Stamp {
        self.last
    }

    /// The last event's index; 0 before the first.
    pub fn last_event(&self) -> u64 {
        self.next_event
    }

    /// Events after `index`, oldest first.
    ///
    /// # Errors
    /// [`EventsGone`] if some of them are no longer kept.
    pub fn events_after(&self, index: u64) -> Result<Vec<Arc<EventRecord>>, EventsGone> {
        // After a restore the indexes may have leapt, so places are searched for, not counted.
        let oldest = self.events.front().map_or(self.next_event, |first| first.index - 1);
        if index < oldest {
            return Err(EventsGone { oldest });
        }
        let behind = match self.events.binary_search_by_key(&index, |record| record.index) {
            Ok(place) => place + 1,
            Err(place) => place,
        };
        // By place: to walk there from the front would cost all that are kept, at every change.
        let places = behind..self.events.len();
        Ok(places.filter_map(|place| self.events.get(place)).cloned().collect())
    }

    /// A job.
    pub fn job(&self, id: &JobId) -> Option<&Arc<Job>> {
        self.jobs.get(id)
    }

    /// All jobs, by id.
    pub fn jobs(&self) -> impl Iterator<Item = (&JobId, &Arc<Job>)> {
        self.jobs.iter()
    }

    /// Jobs after `after` in their order, for pages.
    pub fn jobs_after<'s>(
        &'s self,
        after: Option<&'s JobId>,
    ) -> impl Iterator<Item = (&'s JobId, &'s Arc<Job>)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, |after| Excluded(after.clone()));
        self.jobs.range((from, Unbounded))
    }

    /// Jobs from `from` on in their order.
    pub fn jobs_from<'s>(
        &'s self,
        from: &JobId,
    ) -> impl Iterator<Item = (&'s JobId, &'s Arc<Job>)> + use<'s> {
        self.jobs.range(from.clone()..)
    }

    /// Whether a reply to an idempotent request from before `before` is still kept.
    pub fn has_replies_before(&self, before: Timestamp) -> bool {
        let oldest = self.replies_order.front().and_then(|key| self.replies.get(key));
        oldest.is_some_and(|reply| reply.at < before)
    }

    /// A node.
    pub fn node(&self, name: &NodeName) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// An allocation.
    pub fn alloc(&self, id: AllocId) -> Option<&Arc<Allocation>> {
        self.allocs.get(&id)
    }

    /// All allocations, by id.
    pub fn allocs(&self) -> impl Iterator<Item = &Arc<Allocation>> {
        self.allocs.values()
    }

    /// A job's allocations, oldest first; ended ones too.
    pub fn allocs_of(&self, job: &JobId) -> impl Iterator<Item = &Arc<Allocation>> + use<'_> {
        let ids = self.allocs_of_job.get(job);
        ids.into_iter().flatten().filter_map(|id| self.allocs.get(id))
    }

    /// A node's allocations, oldest first; ended ones too.
    pub fn allocs_on(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Allocation>> + use<'_> {
        let ids = self.allocs_on_node.get(node);
        ids.into_iter().flatten().filter_map(|id| self.allocs.get(id))
    }

    /// The newest allocation of a replica: the one that has not ended, else the last that has.
    pub fn replica(&self, job: &JobId, index: u32) -> Option<&Arc<Allocation>> {
        self.allocs_of(job)
            .filter(|alloc| alloc.index == index)
            .max_by_key(|alloc| (!alloc.ended(), alloc.id))
    }

    /// What is in use on a node.
    pub fn node_use(&self, node: &NodeName) -> NodeUse {
        self.uses.get(node).cloned().unwrap_or_default()
    }

    /// What a node's agent is to run, by allocation.
    pub fn assignments(&self, node: &NodeName) -> Vec<Assignment> {
        self.allocs_on(node)
            .filter(|alloc| alloc.wanted())
            .filter_map(|alloc| {
                let job = self.jobs.get(&alloc.job)?;
                Some(Assignment {
                    id: alloc.id,
                    version: alloc.version,
                    index: alloc.index,
                    grant: alloc.grant.clone(),
                    spec: job.spec_of(alloc.version).clone(),
                })
            })
            .collect()
    }

    /// What a node's agent is to end, with the order's generation: asked to stop and not ended.
    pub fn stops(&self, node: &NodeName) -> Vec<(AllocId, u64)> {
        self.allocs_on(node)
            .filter(|alloc| !alloc.ended() && matches!(alloc.desired, Desired::Stop(_)))
            .map(|alloc| (alloc.id, alloc.grant.generation))
            .collect()
    }

    /// A variable.
    pub fn variable(&self, project: &ProjectName, path: &VariablePath) -> Option<&Arc<Variable>> {
        self.variables.get(&(project.clone(), path.clone()))
    }

    /// All variables, by project and path.
    pub fn variables(&self) -> impl Iterator<Item = (&VariableKey, &Arc<Variable>)> {
        self.variables.iter()
    }

    /// The name that a server had which was taken out of the cluster.
    pub fn retired_server(&self, id: u64) -> Option<&ServerName> {
        self.retired_servers.get(&id)
    }

    /// Of everything in the state: equal on all servers that applied the same log.
    pub fn checksum(&self) -> u64 {
        let mut hasher = HashWriter(xxhash_rust::xxh3::Xxh3::new());
        // A hasher takes every byte; only the encoding could fail, and it has no way to.
        match snapshot::write_for_checksum(self, &mut hasher) {
            Ok(()) => hasher.0.digest(),
            Err(_) => 0,
        }
    }
}

struct HashWriter(xxhash_rust::xxh3::Xxh3);

impl std::io::Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
