//! How far a deployment is, what it waits for, since when and until when. What planners judge by
//! is what people are told.

use std::collections::{BTreeMap, BTreeSet};

use super::scheduler::explain_replica;
use crate::model::allocation::Allocation;
use crate::model::deployment::{Deployment, DeploymentStatus};
use crate::model::job::{JobKind, Promotion, UpdateStrategy};
use crate::model::time::Timestamp;
use crate::state::{Job, State};

/// How far a deployment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Replicas that are to run the version in the end.
    pub wanted: u32,
    /// Replicas of the version that are there, ready or not.
    pub updated: u32,
    /// Those that have been ready for `min_healthy`.
    pub ready: u32,
    /// Replicas of other versions that are still meant to run.
    pub old: u32,
    /// What it waits for; none if it is over.
    pub waits: Option<Wait>,
}

/// What a deployment waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// As a person would say it, beginning with a small letter: `web.3 to become ready`.
    pub what: String,
    /// Since when.
    pub since: Timestamp,
    /// When something else happens.
    pub until: Option<Timestamp>,
    /// What happens then; empty without `until`.
    pub then: String,
}

/// How far a deployment is now.
pub fn progress(state: &State, now: Timestamp, job: &Job, deployment: &Deployment) -> Progress {
    let id = &deployment.job;
    let spec = job.spec();
    let wanted = match spec.kind {
        JobKind::System => super::replicas::system_nodes(state, job).count() as u32,
        _ => job.replicas(),
    };
    let mut progress = Progress { wanted, updated: 0, ready: 0, old: 0, waits: None };
    let mut coming: Option<&Allocation> = None;
    for alloc in state.allocs_of(id).filter(|alloc| alloc.wanted()) {
        if !job.runs_current(alloc.version) {
            progress.old += 1;
        } else if settled(state, now, job, alloc) {
            progress.updated += 1;
            progress.ready += 1;
        } else {
            progress.updated += 1;
            coming = coming.or(Some(alloc));
        }
    }
    if deployment.active() {
        progress.waits = Some(wait(state, now, job, deployment, &progress, coming));
    }
    progress
}

/// Whether a replica counts: it has been ready for as long as the job asks. Where that is only to
/// tell what runs from what exits at once, because the job has no check, one replica of the
/// version has told it for all.
pub(super) fn settled(state: &State, now: Timestamp, job: &Job, alloc: &Allocation) -> bool {
    let spec = job.spec();
    let for_long = |alloc: &Allocation| {
        alloc.available() && now.since(alloc.ready_since) >= spec.update.min_healthy
    };
    if for_long(alloc) || !alloc.available() {
        return alloc.available();
    }
    let runs_as = |version: u64| job.version(version).map(|version| version.runs_as);
    spec.update.min_healthy == spec.min_healthy_default()
        && state
            .allocs_of(&alloc.job)
            .any(|other| for_long(other) && runs_as(other.version) == runs_as(alloc.version))
}

/// Whether a canary or a second set is not promoted yet.
pub(super) fn unpromoted(job: &Job, deployment: &Deployment) -> bool {
    job.spec().update.strategy != UpdateStrategy::Rolling
        && replaces_something(job, deployment)
        && deployment.promoted_at.is_none()
}

/// Whether there was a healthy version, and it runs something else.
pub(super) fn replaces_something(job: &Job, deployment: &Deployment) -> bool {
    deployment.from.is_some_and(|from| !job.runs_current(from))
}

fn wait(
    state: &State,
    now: Timestamp,
    job: &Job,
    deployment: &Deployment,
    progress: &Progress,
    coming: Option<&Allocation>,
) -> Wait {
    let spec = job.spec();
    let name = &deployment.job.name;
    if deployment.status == DeploymentStatus::Paused {
        let what = format!("somebody to let it go on: orch deploy resume {name}");
        return Wait { what, since: deployment.changed_at, until: None, then: String::new() };
    }
    let set = state.set_size(job);
    let waiting = unpromoted(job, deployment);
    if waiting && progress.ready >= set {
        return promotion(state, now, job, deployment);
    }
    let (until, then) = deadline(state, job, deployment);
    let (what, since) = match coming {
        Some(alloc) if alloc.available() => {
            let left = spec.update.min_healthy;
            let what = format!("{name}.{} to have been ready for {left}", alloc.index);
            let until = alloc.ready_since + left;
            let then = "it counts as healthy".to_owned();
            return Wait { what, since: alloc.ready_since, until: Some(until), then };
        }
        Some(alloc) => {
            let message = match alloc.message.as_str() {
                "" => String::new(),
                message => format!(" ({message})"),
            };
            (format!("{name}.{} to become ready{message}", alloc.index), alloc.created_at)
        }
        None if progress.updated < progress.wanted.min(if waiting { set } else { u32::MAX }) => {
            let (first, previous) = first_missing(state, job, deployment);
            let room = explain_replica(state, spec, first, previous);
            let what = if room.fits.is_empty() {
                format!("room for a replica: {}", room.refusals)
            } else {
                "the next replica to be placed".to_owned()
            };
            (what, deployment.progress_at)
        }
        None => match (spec.update.strategy, deployment.promoted_at) {
            (UpdateStrategy::BlueGreen { keep_old, .. }, Some(at)) if progress.old > 0 => {
                let what = "the old version, which is kept running for a while".to_owned();
                let then = "the old version is stopped".to_owned();
                return Wait { what, since: at, until: Some(at + keep_old), then };
            }
            _ => ("old replicas to stop".to_owned(), deployment.progress_at),
        },
    };
    Wait { what, since, until, then }
}

/// The first replica without a new one, and what it has instead.
fn first_missing<'s>(
    state: &'s State,
    job: &Job,
    deployment: &Deployment,
) -> (u32, Option<&'s Allocation>) {
    let wanted = || state.allocs_of(&deployment.job).filter(|alloc| alloc.wanted());
    let new: BTreeSet<u32> =
        wanted().filter(|alloc| job.runs_current(alloc.version)).map(|alloc| alloc.index).collect();
    let first = (0..job.replicas()).find(|index| !new.contains(index)).unwrap_or(u32::MAX);
    (first, wanted().find(|alloc| alloc.index == first).map(|alloc| &**alloc))
}

/// When a deployment has failed for want of progress, and what happens then.
pub(super) fn deadline(
    state: &State,
    job: &Job,
    deployment: &Deployment,
) -> (Option<Timestamp>, String) {
    let update = &job.spec().update;
    let same = deployment.from.is_some_and(|from| job.runs_current(from));
    if same || deployment.status != DeploymentStatus::Running {
        return (None, String::new());
    }
    let then = match deployment.from {
        Some(from) if update.auto_revert => {
            format!("it has failed, and the job goes back to version {from}")
        }
        _ => "it has failed".to_owned(),
    };
    // A set that stood for hours has its time again when one of it stumbles.
    let stumbled = match update.strategy {
        UpdateStrategy::Rolling => None,
        _ => state
            .allocs_of(&deployment.job)
            .filter(|alloc| alloc.wanted() && job.runs_current(alloc.version))
            .map(|alloc| alloc.ready_since)
            .max(),
    };
    let since = deployment.progress_at.max(stumbled.unwrap_or_default());
    (Some(since + update.deadline), then)
}

fn promotion(state: &State, now: Timestamp, job: &Job, deployment: &Deployment) -> Wait {
    let name = &deployment.job.name;
    let since = promotable_since(state, now, job, deployment).unwrap_or(deployment.progress_at);
    let (until, then) = match job.spec().update.strategy.promotion() {
        Some(Promotion::After(after)) => {
            (Some(since + after), "it is promoted by itself".to_owned())
        }
        _ => (None, String::new()),
    };
    let what = format!("its promotion: orch deploy promote {name}");
    Wait { what, since, until, then }
}

/// Since when all of a canary or second set has been ready for long enough.
pub(super) fn promotable_since(
    state: &State,
    now: Timestamp,
    job: &Job,
    deployment: &Deployment,
) -> Option<Timestamp> {
    let mut ready: BTreeMap<u32, Timestamp> = BTreeMap::new();
    for alloc in state.allocs_of(&deployment.job) {
        if job.runs_current(alloc.version) && settled(state, now, job, alloc) {
            let at = now.min(alloc.ready_since + job.spec().update.min_healthy);
            let first = ready.entry(alloc.index).or_insert(at);
            *first = at.min(*first);
        }
    }
    let complete = ready.len() as u32 >= state.set_size(job);
    ready.into_values().max().filter(|_| complete)
}
