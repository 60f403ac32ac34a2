//! Which replicas of a job take traffic.

use std::sync::Arc;

use super::{Job, State};
use crate::model::allocation::Allocation;
use crate::model::deployment::DeploymentStatus;
use crate::model::job::UpdateStrategy;
use crate::model::name::JobId;
use crate::model::node::NodeState;

impl State {
    /// The replicas that take traffic, by number: ready, meant to run, on a node that is heard.
    /// Of a blue-green deployment only the set that counts; of a canary both versions.
    pub fn endpoints<'s>(
        &'s self,
        id: &JobId,
        job: &'s Job,
    ) -> impl Iterator<Item = &'s Arc<Allocation>> + use<'s> {
        let mut ready: Vec<_> = self
            .allocs_of(id)
            .filter(|alloc| self.serves(job, alloc))
            .filter(|alloc| {
                self.node(&alloc.node).is_some_and(|node| node.state == NodeState::Ready)
            })
            .collect();
        ready.sort_by_key(|alloc| (alloc.index, alloc.id));
        ready.into_iter()
    }

    /// Of a blue-green deployment, which set takes traffic: the new one, or not; none if there
    /// are no two sets.
    fn serving_set(&self, job: &Job) -> Option<bool> {
        let latest = self.latest_deployment(job)?;
        if latest.status == DeploymentStatus::Successful {
            return None;
        }
        let blue_green = |version: u64| {
            let update = &job.spec_of(version).update;
            matches!(update.strategy, UpdateStrategy::BlueGreen { .. })
        };
        let taken_back = latest.reverts.and_then(|failed| self.deployment(failed));
        if taken_back.is_some_and(|failed| blue_green(failed.version)) {
            return Some(true);
        }
        let replaces = latest.from.is_some_and(|from| !job.runs_current(from));
        (blue_green(latest.version) && replaces).then_some(latest.promoted_at.is_some())
    }

    /// Whether an allocation can take traffic, and is of the set that does. Before its promotion
    /// that is only what the job would go back to, not what earlier deployments left.
    pub fn serves(&self, job: &Job, alloc: &Allocation) -> bool {
        if !alloc.available() {
            return false;
        }
        let current = job.runs_current(alloc.version);
        let runs_as = |version: u64| job.version(version).map(|version| version.runs_as);
        match self.serving_set(job) {
            None => true,
            Some(true) => current,
            Some(false) => self
                .latest_deployment(job)
                .and_then(|latest| latest.from)
                .is_some_and(|from| runs_as(from) == runs_as(alloc.version)),
        }
    }
}
