//! As many allocations as are wanted: no more, no fewer. What that means is each shape's own.

use std::sync::Arc;

use super::scheduler::refusal_when_empty;
use super::{Pass, batch, service, system};
use crate::model::allocation::{AllocStatus, Allocation, StopReason};
use crate::model::job::JobKind;
use crate::model::name::JobId;
use crate::model::node::Node;
use crate::model::time::{Millis, Timestamp};
use crate::state::{Job, State};

pub(super) fn look<'s>(pass: &mut Pass<'s>, id: &'s JobId, job: &'s Job) {
    if !job.active() {
        let left: Vec<_> = pass.state.allocs_of(id).filter(|alloc| alloc.wanted()).collect();
        for alloc in left {
            pass.stop(alloc.id, StopReason::JobStopped);
        }
        return;
    }
    match job.spec().kind {
        JobKind::System => system::look(pass, id, job),
        JobKind::Service { .. } => service::look(pass, id, job),
        JobKind::Batch { .. } => batch::look(pass, id, job),
    }
}

/// When the place of an ended allocation may be filled again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// At once.
    Now,
    /// After its failures it waits.
    At(Timestamp),
    /// It failed too often: why, for people.
    Never(String),
}

/// When the place of an ended allocation may be filled again by one that runs the same.
pub fn again(job: &Job, last: &Allocation) -> Again {
    if last.status != AllocStatus::Failed {
        return Again::Now;
    }
    let policy = &job.policies_of(last.version).reschedule;
    let batch = matches!(job.spec().kind, JobKind::Batch { .. });
    if let Some(attempts) = policy.attempts
        && !batch
        && last.failures >= attempts
    {
        return Again::Never(format!(
            "given up after {} tries within {}; restart the job to try again",
            u64::from(attempts) + 1,
            policy.within
        ));
    }
    let doubled = policy.delay_min.0.saturating_mul(1 << last.failures.min(32));
    let delay = doubled.min(policy.delay_max.0);
    // Up to a tenth more, so that what failed together does not come back together.
    let jitter = last.id.0.wrapping_mul(2_654_435_761) % (delay / 10 + 1);
    Again::At(last.changed_at + Millis(delay + jitter))
}

/// Nodes that a system job has a copy on, or should have.
pub(super) fn system_nodes<'s>(
    state: &'s State,
    job: &'s Job,
) -> impl Iterator<Item = &'s Arc<Node>> {
    state.nodes().filter(|node| node.takes_work() && refusal_when_empty(job.spec(), node).is_none())
}
