//! Whether everything has come to what was asked, and what a person would do about what can't
//! get there alone.

use std::sync::Arc;

use orch::model::allocation::Allocation;
use orch::model::deployment::DeploymentStatus;
use orch::state::State;

use super::user::{JOBS, Wish, job_id, resume, version};

/// Why it has not.
pub enum Missing {
    /// It may come by itself.
    Waits(String),
    /// It does not; this helps.
    Help(Wish),
}

/// Whether every job is what was asked for; what is missing, if not.
pub fn converged(state: &State) -> Result<(), Missing> {
    for number in 0..JOBS {
        if let Some(help) = help(state, number) {
            return Err(Missing::Help(help));
        }
        missing(state, number).map_err(Missing::Waits)?;
    }
    Ok(())
}

/// What a person would do about a job that waits for one.
fn help(state: &State, number: u64) -> Option<Wish> {
    let Some(job) = state.job(&job_id(number)) else {
        // The storm was too short for it.
        return Some(version(number, true));
    };
    let latest = state.latest_deployment(job)?;
    let reverts = job.spec().update.auto_revert;
    let has_way_back = latest.from.is_some_and(|from| !job.runs_current(from));
    match latest.status {
        DeploymentStatus::Paused => Some(resume(latest.id)),
        // Somebody gave it up for good, or there is nothing to go back to.
        DeploymentStatus::Failed => {
            let aborted = latest.reason.starts_with("aborted");
            assert!(
                aborted || !reverts || !has_way_back,
                "web{number} should have gone back: {latest:#?}"
            );
            Some(version(number, true))
        }
        _ => None,
    }
}

fn missing(state: &State, number: u64) -> Result<(), String> {
    let id = job_id(number);
    let job = state.job(&id).ok_or("it was never submitted")?;
    let latest = state.latest_deployment(job).ok_or("it has no deployment")?;
    if latest.status != DeploymentStatus::Successful {
        return Err(format!("{latest:#?}"));
    }
    let live: Vec<_> = state.allocs_of(&id).filter(|alloc| !alloc.ended()).collect();
    let right = |alloc: &&&Arc<Allocation>| {
        alloc.available() && job.runs_current(alloc.version) && alloc.index < job.replicas()
    };
    let (all, well) = (live.len(), live.iter().filter(right).count());
    if all == well && all as u32 == job.replicas() {
        return Ok(());
    }
    Err(format!("{well} of {} are well: {live:#?}", job.replicas()))
}
