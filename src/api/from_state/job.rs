//! Jobs as they are shown.

use std::collections::BTreeSet;

use super::allocation::{self, Entry, Rows};
use super::deployment;
use super::sentence::Subject;
use crate::api::view::job::{
    Failure, FieldChange, JobRow, JobStatus, JobVersionRow, Refusal, Unplaced, VersionDeployment,
};
use crate::api::view::job_file;
use crate::limits::{API_FAILURES_SHOWN_MAX, API_PAGE_ROWS_MAX};
use crate::model::allocation::{AllocStatus, Allocation, Health};
use crate::model::job::{JobKind, JobSpec};
use crate::model::name::JobId;
use crate::model::time::Timestamp;
use crate::planner::scheduler::{Explanation, explain, explain_replica, refusal_when_empty};
use crate::state::{Job, JobChange, JobOutcome, State};

/// Nodes that a warning names.
const NODES_NAMED: usize = 3;

/// What a job's copies come to.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) desired: u32,
    /// Wanted copies that are placed and have not ended.
    live: u32,
    pub(super) running: u32,
    /// Those that can take traffic.
    pub(super) healthy: u32,
    pub(super) up_to_date: u32,
    /// Of a batch job: runs that ended well.
    pub(super) complete: u32,
    failing: u32,
    unhealthy: u32,
    pub(super) stopping: u32,
    trouble: Option<String>,
}

fn count(state: &State, id: &JobId, job: &Job) -> Counts {
    let desired = match job.spec().kind {
        JobKind::System => allocation::wanted_nodes(state, job).count() as u32,
        _ => job.replicas(),
    };
    let mut counts = Counts { desired, ..Counts::default() };
    for alloc in state.allocs_of(id) {
        if !alloc.ended() && !alloc.wanted() {
            counts.stopping += 1;
        }
        counts.complete += u32::from(alloc.status == AllocStatus::Complete);
        if !alloc.wanted() {
            continue;
        }
        counts.live += 1;
        counts.running += u32::from(alloc.status == AllocStatus::Running);
        counts.unhealthy += u32::from(alloc.health == Health::Unhealthy);
        counts.healthy += u32::from(alloc.available());
        counts.up_to_date += u32::from(alloc.available() && job.runs_current(alloc.version));
    }
    let failing: Vec<&Allocation> = failing(state, id, job).collect();
    counts.failing = failing.len() as u32;
    let has_error = |alloc: &&Allocation| alloc.tasks.values().any(|task| !task.error.is_empty());
    let worst = failing.first().copied();
    counts.trouble = worst
        .or_else(|| restarting(state, id).find(|a| has_error(a) || a.health == Health::Unhealthy))
        .map(|alloc| format!("{}.{}: {}", id.name, alloc.index, trouble(alloc)));
    counts
}

fn trouble(alloc: &Allocation) -> String {
    let error = alloc.tasks.values().map(|task| &task.error).find(|error| !error.is_empty());
    match (alloc.message.as_str(), error) {
        ("", Some(error)) => error.clone(),
        ("", None) => alloc.status.word().to_owned(),
        (message, _) => message.to_owned(),
    }
}

/// The allocation that tells best what goes wrong, of each copy that fails.
fn failing<'s>(
    state: &'s State,
    id: &JobId,
    job: &'s Job,
) -> impl Iterator<Item = &'s Allocation> + use<'s> {
    let newest = allocation::newest(state, id);
    newest.into_values().filter_map(move |alloc| {
        if allocation::gave_up(job, alloc) {
            return Some(alloc);
        }
        if !alloc.wanted() || alloc.available() || alloc.failures == 0 {
            return None;
        }
        // The new try may have nothing to tell yet.
        let silent = alloc.tasks.values().all(|task| task.error.is_empty());
        let previous = alloc.previous.and_then(|id| state.alloc(id)).map(|alloc| &**alloc);
        Some(if silent { previous.unwrap_or(alloc) } else { alloc })
    })
}

fn state_word(job: &Job, counts: &Counts) -> &'static str {
    match job.outcome {
        Some(JobOutcome::Complete) => return "complete",
        Some(JobOutcome::Failed) => return "failed",
        None if job.stopped => return if counts.stopping > 0 { "stopping" } else { "stopped" },
        None => {}
    }
    if let JobKind::Batch { .. } = job.spec().kind {
        return match (counts.running, counts.live) {
            (1.., _) => "running",
            (_, 1..) => "starting",
            _ => "pending",
        };
    }
    let Counts { desired, live, running, healthy, up_to_date, failing, unhealthy, .. } = *counts;
    let system = job.spec().kind == JobKind::System;
    if desired == 0 && system {
        "pending"
    } else if up_to_date >= desired {
        "running"
    } else if healthy == 0 && failing > 0 {
        "failed"
    } else if failing > 0 || (healthy > 0 && unhealthy > 0) {
        "degraded"
    } else if healthy > up_to_date {
        "updating"
    } else if healthy == 0 && unhealthy > 0 {
        "failed"
    } else if live > running || (running > 0 && live >= desired) {
        "starting"
    } else if live == 0 {
        "pending"
    } else {
        "degraded"
    }
}

/// A job as a row.
pub(in crate::api) fn row(state: &State, id: &JobId, job: &Job) -> JobRow {
    row_of(id, job, &count(state, id, job))
}

fn row_of(id: &JobId, job: &Job, counts: &Counts) -> JobRow {
    let batch = matches!(job.spec().kind, JobKind::Batch { .. });
    let missing = counts.desired.saturating_sub(counts.live);
    let message = match &counts.trouble {
        Some(trouble) => trouble.clone(),
        None if missing > 0 && !batch => {
            let desired = counts.desired;
            format!("{missing} of {desired} copies are not placed; orch status {id} says why")
        }
        None => String::new(),
    };
    JobRow {
        project: id.project.to_string(),
        job: id.name.to_string(),
        version: job.current().version,
        r#type: job.spec().kind.word().to_owned(),
        state: state_word(job, counts).to_owned(),
        desired: counts.desired,
        running: counts.running,
        healthy: counts.healthy,
        up_to_date: counts.up_to_date,
        failing: counts.failing,
        priority: job.spec().priority,
        message,
        created_at: job.created_at.into(),
        changed_at: job.changed_at.into(),
    }
}

/// Everything about a job.
pub(in crate::api) fn status(state: &State, now: Timestamp, id: &JobId, job: &Job) -> JobStatus {
    let entries = allocation::entries(state, id, job, false);
    let mut missing: Vec<u32> = entries
        .iter()
        .filter(|entry| !is_placed(state, entry))
        .map(|entry| entry.key.index)
        .collect();
    missing.truncate(allocation::at_once(state, id, job));
    let unplaced = (!missing.is_empty()).then(|| unplaced(state, job.spec(), missing.len() as u32));
    let mut rows = Rows::new(state);
    let counts = count(state, id, job);
    let subject = Subject { state, now, id, job, counts: &counts, missing: &missing };
    JobStatus {
        row: row_of(id, job, &counts),
        sentence: subject.sentence(),
        deployments: deployment::latest(state, now, job),
        spec: job_file::shown(job.spec()),
        purged: job.purged,
        allocations: entries
            .iter()
            .filter_map(|entry| rows.row(entry))
            .take(API_PAGE_ROWS_MAX)
            .collect(),
        unplaced: unplaced.flatten(),
        failures: failing(state, id, job)
            .chain(restarting(state, id))
            .chain(of_failed_batch(state, id, job))
            .flat_map(|alloc| failures_of(state, alloc))
            .take(API_FAILURES_SHOWN_MAX)
            .collect(),
    }
}

fn is_placed(state: &State, entry: &Entry) -> bool {
    state.alloc(entry.key.alloc).is_some()
}

/// Copies that are not healthy and whose tasks have failed, though nobody gave up yet.
fn restarting<'s>(state: &'s State, id: &JobId) -> impl Iterator<Item = &'s Allocation> + use<'s> {
    state
        .allocs_of(id)
        .map(|alloc| &**alloc)
        .filter(|alloc| alloc.wanted() && !alloc.available() && alloc.failures == 0)
}

/// A failed batch job is told about by its last allocation.
fn of_failed_batch<'s>(
    state: &'s State,
    id: &JobId,
    job: &Job,
) -> impl Iterator<Item = &'s Allocation> + use<'s> {
    let failed = job.outcome == Some(JobOutcome::Failed);
    let newest = allocation::newest(state, id);
    // One that gave up is among the failing already.
    let gave_up: Vec<_> = newest.values().map(|alloc| allocation::gave_up(job, alloc)).collect();
    newest
        .into_values()
        .zip(gave_up)
        .filter(move |(_, gave_up)| failed && !gave_up)
        .map(|(alloc, _)| alloc)
}

fn failures_of(state: &State, alloc: &Allocation) -> Vec<Failure> {
    let wrong = |task: &crate::model::allocation::TaskState| {
        !task.error.is_empty() || task.exit_code.is_some_and(|code| code != 0) || task.oom_killed
    };
    let failure = |task: &str, state: &crate::model::allocation::TaskState| Failure {
        id: alloc.id.to_string(),
        index: alloc.index,
        node: alloc.node.to_string(),
        task: task.to_owned(),
        state: allocation::word(alloc).to_owned(),
        error: if state.error.is_empty() {
            allocation::message(alloc)
        } else {
            state.error.clone()
        },
        exit_code: state.exit_code,
        oom_killed: state.oom_killed,
        restarts: state.restarts,
        finished_at: state.finished_at.map(Into::into),
        output_tail: state.output_tail.clone(),
    };
    let mut failures: Vec<Failure> = allocation::in_order(state, alloc)
        .filter(|(_, task)| wrong(task))
        .map(|(name, task)| failure(name.as_str(), task))
        .collect();
    if failures.is_empty() && (alloc.ended() || alloc.health == Health::Unhealthy) {
        failures.push(failure("", &Default::default()));
    }
    failures
}

/// Why copies are not placed; none if they are about to be.
pub(in crate::api) fn unplaced(state: &State, spec: &JobSpec, replicas: u32) -> Option<Unplaced> {
    if let Some((index, explanation)) = kept_by_data(state, spec) {
        let mut unplaced = of_explanation(state, &explanation, replicas);
        let (name, why) = (&spec.name, &explanation.refusals);
        unplaced.message = format!("{} not placed: {name}.{index} waits, {why}", copies(replicas));
        return Some(unplaced);
    }
    let explanation = explain(state, spec);
    let waits = !explanation.fits.is_empty() && spec.kind != JobKind::System;
    (!waits).then(|| of_explanation(state, &explanation, replicas))
}

/// The first copy that can't be where its data is.
fn kept_by_data(state: &State, spec: &JobSpec) -> Option<(u32, Explanation)> {
    let id = spec.id();
    let job = state.job(&id).filter(|_| spec.has_local_data())?;
    let live: BTreeSet<u32> =
        state.allocs_of(&id).filter(|alloc| !alloc.ended()).map(|alloc| alloc.index).collect();
    let missing = job.homes.keys().filter(|index| **index < job.replicas());
    missing
        .filter(|index| !live.contains(index))
        .map(|index| (*index, explain_replica(state, spec, *index, None)))
        .find(|(_, explanation)| explanation.fits.is_empty())
}

fn copies(replicas: u32) -> String {
    if replicas == 1 { "1 copy is".to_owned() } else { format!("{replicas} copies are") }
}

fn of_explanation(state: &State, explanation: &Explanation, replicas: u32) -> Unplaced {
    let nodes = state.nodes().count() as u32;
    let refusals = &explanation.refusals;
    let never_fits = explanation.never && nodes > 0;
    let what = copies(replicas);
    let whole = refusals.main().is_some_and(|refusal| refusal.is_whole_story());
    let never = if never_fits { ", and none would even if nothing else ran there" } else { "" };
    Unplaced {
        replicas,
        nodes,
        never_fits,
        refusals: refusals
            .counts()
            .into_iter()
            .map(|(refusal, nodes)| Refusal { reason: refusal.to_string(), nodes })
            .collect(),
        message: match nodes {
            0 => format!("{what} not placed: the cluster has no nodes"),
            _ if whole => format!("{what} not placed: {refusals}"),
            _ => format!("{what} not placed: no node takes one more{never} ({refusals})"),
        },
    }
}

/// What the user should know of a job as soon as it is submitted.
pub(in crate::api) fn warnings(state: &State, spec: &JobSpec) -> Vec<String> {
    let explanation = explain(state, spec);
    if state.nodes().next().is_none() {
        return vec!["it waits: the cluster has no nodes yet".to_owned()];
    }
    if !explanation.never {
        return Vec::new();
    }
    let nodes = state.nodes().count();
    let mut said: Vec<String> = state
        .nodes()
        .filter_map(|node| Some(format!("{}: {}", node.name, refusal_when_empty(spec, node)?)))
        .take(NODES_NAMED)
        .collect();
    if nodes > NODES_NAMED {
        said.push(format!("and {} more", nodes - NODES_NAMED));
    }
    let said = said.join(", ");
    vec![format!("no node can ever take it, even if nothing else ran there ({said})")]
}

/// A job's versions, newest first.
pub(in crate::api) fn versions(state: &State, job: &Job) -> Vec<JobVersionRow> {
    let deployment = |version: u64| {
        let mut known = state.deployments_of(job).rev();
        known.find(|known| known.version == version)
    };
    let mut before = None;
    let mut rows: Vec<_> = job
        .versions
        .iter()
        .map(|version| JobVersionRow {
            version: version.version,
            at: version.at.into(),
            change: change_word(version.change).to_owned(),
            current: version.version == job.current().version,
            was_healthy: version.was_healthy,
            same_as: (version.runs_as != version.version).then_some(version.runs_as),
            deployment: deployment(version.version).map(|known| VersionDeployment {
                id: known.id.to_string(),
                status: known.status.word().to_owned(),
                reason: known.reason.clone(),
            }),
            changes: before
                .replace(&version.spec)
                .map_or_else(Vec::new, |before| changes(before, &version.spec)),
        })
        .collect();
    rows.reverse();
    rows
}

/// What differs between two jobs, field by field of the job file.
pub(in crate::api) fn changes(before: &JobSpec, after: &JobSpec) -> Vec<FieldChange> {
    super::diff::changes(&job_file::whole(before), &job_file::whole(after))
}

/// The word of what happened to a job.
pub(super) fn change_word(change: JobChange) -> &'static str {
    match change {
        JobChange::Created => "created",
        JobChange::Updated => "updated",
        JobChange::Scaled => "scaled",
        JobChange::Stopped => "stopped",
        JobChange::Completed => "completed",
        JobChange::Failed => "failed",
        JobChange::Purged => "purged",
        JobChange::Reverted => "reverted",
        JobChange::RolledBack => "rolled back",
        JobChange::Restarted => "restarted",
    }
}
