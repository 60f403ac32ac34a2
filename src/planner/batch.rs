//! Batch jobs: every run to its end, so many at the same time.

use super::Pass;
use super::places::places;
use super::replicas::{Again, again};
use super::scheduler::Ask;
use crate::model::allocation::{AllocStatus, Allocation, StopReason};
use crate::model::job::JobKind;
use crate::model::name::JobId;
use crate::model::time::Millis;
use crate::state::Job;

pub(super) fn look<'s>(pass: &mut Pass<'s>, id: &'s JobId, job: &'s Job) {
    let JobKind::Batch { timeout, completions, parallelism, .. } = job.spec().kind else { return };
    let mut places = places(pass.state, id, job);
    let mut live = 0;
    for (index, place) in &places {
        for alloc in &place.old {
            pass.stop(alloc.id, StopReason::Updated);
        }
        if *index >= completions {
            for alloc in &place.new {
                pass.stop(alloc.id, StopReason::ScaledDown);
            }
        }
        live += (place.new.len() + place.old.len() + place.leaving.len()) as u32;
        if let Some(timeout) = timeout {
            end_overdue(pass, timeout, &place.new);
        }
    }
    for index in 0..completions {
        if live >= parallelism {
            return;
        }
        let place = places.entry(index).or_default();
        let busy = place.wanted().next().is_some() || !place.leaving.is_empty();
        let done = place.last_new.is_some_and(|last| last.status == AllocStatus::Complete);
        if busy || done {
            continue;
        }
        match place.last_new.map_or(Again::Now, |last| again(job, last)) {
            Again::At(at) if at > pass.inputs.now => {
                pass.plan.look_at(at);
                continue;
            }
            // Whether there are retries left is decided where the job ends.
            Again::Now | Again::At(_) | Again::Never(_) => {}
        }
        live += 1;
        pass.asks.push(Ask {
            id,
            version: job.current().version,
            spec: job.spec(),
            index,
            node: None,
            previous: place.last_new.or(place.last()),
        });
    }
}

fn end_overdue(pass: &mut Pass<'_>, timeout: Millis, allocs: &[&Allocation]) {
    for alloc in allocs {
        let first_start = alloc.tasks.values().filter_map(|task| task.started_at).min();
        let Some(started) = first_start else { continue };
        // By the node's clock, which may be behind: nothing starts before it is placed.
        let started = started.max(alloc.created_at);
        let due = started + timeout;
        if due <= pass.inputs.now {
            pass.stop(alloc.id, StopReason::TimedOut);
        } else {
            pass.plan.look_at(due);
        }
    }
}
