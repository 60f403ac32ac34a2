//! What planners of one pass share.

use super::scheduler::Ask;
use super::{Inputs, Plan, Scope};
use crate::model::allocation::StopReason;
use crate::model::name::{AllocId, JobId};
use crate::state::{Job, State};

/// What planners of one pass hand to one another.
pub(super) struct Pass<'s> {
    pub(super) state: &'s State,
    pub(super) inputs: &'s Inputs,
    pub(super) plan: Plan,
    pub(super) stops: Vec<(AllocId, StopReason)>,
    pub(super) asks: Vec<Ask<'s>>,
}

impl<'s> Pass<'s> {
    pub(super) fn stop(&mut self, alloc: AllocId, reason: StopReason) {
        self.stops.push((alloc, reason));
    }

    pub(super) fn jobs(&self, scope: &Scope) -> Vec<(&'s JobId, &'s Job)> {
        if scope.all {
            return self.state.jobs().map(|(id, job)| (id, &**job)).collect();
        }
        let state = self.state;
        scope
            .jobs
            .iter()
            .filter_map(|id| state.jobs_from(id).next())
            .filter(|(id, _)| scope.jobs.contains(*id))
            .map(|(id, job)| (id, &**job))
            .collect()
    }

    /// How many of the job's places are without a healthy replica now: what a promise such as
    /// "one at a time" counts.
    pub(super) fn in_flight(&self, id: &JobId, job: &Job) -> u32 {
        let healthy = self
            .state
            .allocs_of(id)
            .filter(|alloc| alloc.healthy() && job.runs_current(alloc.version))
            .filter(|alloc| {
                let since = self.inputs.now.since(alloc.health_since);
                since >= job.spec().update.min_healthy
            })
            .count() as u32;
        let old = self
            .state
            .allocs_of(id)
            .filter(|alloc| alloc.healthy() && !job.runs_current(alloc.version));
        job.replicas().saturating_sub(healthy + old.count() as u32)
    }
}
