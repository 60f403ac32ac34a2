//! Deployments as they are shown.

use crate::api::view::deployment::{DeploymentProgress, DeploymentRow, DeploymentWait};
use crate::model::deployment::{Deployment, DeploymentStatus};
use crate::model::job::UpdateStrategy;
use crate::model::time::Timestamp;
use crate::planner::progress::{Progress, progress};
use crate::state::{Job, State};

/// Deployments that the status of a job tells about.
const SHOWN_WITH_JOB: usize = 3;

/// A deployment as a row.
pub(in crate::api) fn row(state: &State, now: Timestamp, deployment: &Deployment) -> DeploymentRow {
    let job = state.job(&deployment.job);
    let newest = job.filter(|job| job.deployments.last() == Some(&deployment.id));
    let progress = newest.map(|job| progress(state, now, job, deployment));
    let needs_promotion = newest
        .zip(progress.as_ref())
        .is_some_and(|(job, progress)| needs_promotion(state, job, deployment, progress));
    let reverted_by = job.and_then(|job| {
        let mut later = state.deployments_of(job);
        later.find(|other| other.reverts == Some(deployment.id)).map(|other| other.id.to_string())
    });
    DeploymentRow {
        id: deployment.id.to_string(),
        project: deployment.job.project.to_string(),
        job: deployment.job.name.to_string(),
        version: deployment.version,
        from: deployment.from,
        strategy: job
            .map_or("", |job| job.spec_of(deployment.version).update.strategy.word())
            .to_owned(),
        status: deployment.status.word().to_owned(),
        reason: deployment.reason.clone(),
        progress: progress.as_ref().map(|progress| DeploymentProgress {
            wanted: progress.wanted,
            updated: progress.updated,
            ready: progress.ready,
            old: progress.old,
        }),
        waits: progress.and_then(|progress| progress.waits).map(|wait| DeploymentWait {
            what: wait.what,
            since: wait.since.into(),
            until: wait.until.map(Into::into),
            then: wait.then,
        }),
        needs_promotion,
        promoted_at: deployment.promoted_at.map(Into::into),
        reverts: deployment.reverts.map(|id| id.to_string()),
        reverted_by,
        started_at: deployment.started_at.into(),
        changed_at: deployment.changed_at.into(),
    }
}

/// Whether nothing but its promotion is left to wait for, before the rest follows.
fn needs_promotion(state: &State, job: &Job, deployment: &Deployment, progress: &Progress) -> bool {
    deployment.status == DeploymentStatus::Running
        && job.spec().update.strategy != UpdateStrategy::Rolling
        && deployment.promoted_at.is_none()
        && deployment.from.is_some_and(|from| !job.runs_current(from))
        && progress.ready >= state.set_size(job)
}

/// A job's newest deployments, the newest first.
pub(in crate::api) fn latest(state: &State, now: Timestamp, job: &Job) -> Vec<DeploymentRow> {
    let newest = state.deployments_of(job).rev().take(SHOWN_WITH_JOB);
    newest.map(|deployment| row(state, now, deployment)).collect()
}
