//! Judges deployments: done, promoted, failed; and says what replicas may do meanwhile.

use std::collections::BTreeSet;

use super::Pass;
use super::progress::{self, deadline, promotable_since, replaces_something, settled, unpromoted};
use super::replicas::system_nodes;
use super::system;
use crate::model::allocation::{AllocStatus, Allocation};
use crate::model::deployment::{Deployment, DeploymentStatus};
use crate::model::job::{JobKind, Promotion, UpdateStrategy};
use crate::model::name::JobId;
use crate::model::time::Timestamp;
use crate::state::{Command, Job, State};

/// What a job's deployment lets its replicas do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Every place keeps the version it has.
    Keep,
    /// So many places get the new version beside the old one.
    Beside(u32),
    /// Old replicas are replaced, `max_parallel` at a time.
    Roll,
    /// The new set has taken over; the old one is kept running until then.
    Switched {
        /// End of the old set.
        old_until: Timestamp,
    },
}

/// What replicas may do now.
pub(super) fn mode(state: &State, job: &Job, deployment: Option<&Deployment>) -> Mode {
    let Some(deployment) = deployment else { return Mode::Roll };
    match deployment.status {
        DeploymentStatus::Successful | DeploymentStatus::Superseded => return Mode::Roll,
        DeploymentStatus::Paused | DeploymentStatus::Failed => return Mode::Keep,
        DeploymentStatus::Running => {}
    }
    if unpromoted(job, deployment) {
        return Mode::Beside(state.set_size(job));
    }
    match (job.spec().update.strategy, deployment.promoted_at) {
        (UpdateStrategy::BlueGreen { keep_old, .. }, Some(at))
            if replaces_something(job, deployment) =>
        {
            Mode::Switched { old_until: at + keep_old }
        }
        _ => Mode::Roll,
    }
}

/// Judges a job's newest deployment; whether what its replicas may do is another thing then.
pub(super) fn turns(pass: &mut Pass<'_>, id: &JobId, job: &Job) -> bool {
    let Some(deployment) = pass.state.latest_deployment(job) else { return false };
    let late = deployment.status == DeploymentStatus::Failed;
    if !(deployment.active() || late) || !job.active() {
        return false;
    }
    let (all_ready, old) = coverage(pass, id, job);
    let waiting = unpromoted(job, deployment);
    if all_ready && old == 0 && !waiting {
        pass.plan.commands.push(Command::CompleteDeployment { deployment: deployment.id });
        return false;
    }
    if deployment.status != DeploymentStatus::Running {
        return false;
    }
    if waiting && let Some(since) = promotable_since(pass.state, pass.inputs.now, job, deployment) {
        if let Some(Promotion::After(after)) = job.spec().update.strategy.promotion() {
            if since + after <= pass.inputs.now {
                let deployment = deployment.id;
                pass.plan.commands.push(Command::PromoteDeployment { deployment });
                return true;
            }
            pass.plan.look_at(since + after);
        }
        return false;
    }
    let why = match failed_replica(pass, id, job, deployment) {
        Some(why) => why,
        None if all_ready => return false,
        None => match deadline(pass.state, job, deployment).0 {
            Some(until) if until <= pass.inputs.now => no_progress(pass, job, deployment),
            Some(until) => {
                pass.plan.look_at(until);
                return false;
            }
            None => return false,
        },
    };
    pass.plan.commands.push(Command::FailDeployment {
        deployment: deployment.id,
        reason: why,
        revert: job.spec().update.auto_revert,
    });
    true
}

/// Whether every place has a replica of the new version that counts, and how many of others are
/// still meant to run.
fn coverage(pass: &Pass<'_>, id: &JobId, job: &Job) -> (bool, usize) {
    let (mut places, mut nodes) = (BTreeSet::new(), BTreeSet::new());
    let mut old = 0;
    for alloc in pass.state.allocs_of(id).filter(|alloc| alloc.wanted()) {
        if !job.runs_current(alloc.version) {
            old += 1;
        } else if settled(pass.state, pass.inputs.now, job, alloc) {
            places.insert(alloc.index);
            nodes.insert(&alloc.node);
        }
    }
    let all = match job.spec().kind {
        JobKind::System => system_nodes(pass.state, job).all(|node| {
            nodes.contains(&node.name) || system::cannot_have(pass.state, id, job, node)
        }),
        _ => (0..job.replicas()).all(|index| places.contains(&index)),
    };
    (all, old)
}

/// Why the new version does not do: a node has given up on a replica of it. While others of it
/// count, one failure may be the node's; the second in the same place is not.
fn failed_replica(
    pass: &Pass<'_>,
    id: &JobId,
    job: &Job,
    deployment: &Deployment,
) -> Option<String> {
    let state = pass.state;
    if deployment.from.is_some_and(|from| job.runs_current(from)) {
        return None;
    }
    let of_this = |alloc: &Allocation| {
        job.runs_current(alloc.version) && alloc.created_at >= deployment.started_at
    };
    // Not whether any was ever ready: what exits at once is, for a moment.
    let others_do = state.allocs_of(id).any(|alloc| {
        of_this(alloc) && alloc.wanted() && settled(pass.state, pass.inputs.now, job, alloc)
    });
    let failed = state.allocs_of(id).find(|alloc| {
        alloc.status == AllocStatus::Failed && of_this(alloc) && (!others_do || alloc.failures > 0)
    })?;
    Some(format!("{}.{} on {}: {}", id.name, failed.index, failed.node, trouble(failed)))
}

fn trouble(alloc: &Allocation) -> String {
    let error = alloc.tasks.values().map(|task| &task.error).find(|error| !error.is_empty());
    match (alloc.message.as_str(), error) {
        ("", Some(error)) => error.clone(),
        ("", None) => "it failed".to_owned(),
        (message, _) => message.to_owned(),
    }
}

fn no_progress(pass: &Pass<'_>, job: &Job, deployment: &Deployment) -> String {
    let waits = progress::progress(pass.state, pass.inputs.now, job, deployment).waits;
    let deadline = job.spec().update.deadline;
    match waits {
        Some(wait) => format!("no progress for {deadline}; it waited for {}", wait.what),
        None => format!("no progress for {deadline}"),
    }
}
