//! What is left on a node that is being drained, and why.

use super::unplaced::volumes;
use crate::api::view::node::{DrainLeft, DrainRow};
use crate::model::allocation::{Allocation, Desired};
use crate::model::job::JobKind;
use crate::model::node::{Drain, Node};
use crate::model::time::Timestamp;
use crate::planner::scheduler::{Refusal, explain_replica};
use crate::state::{Job, State};

/// How far a drain is.
pub(super) fn row(state: &State, now: Timestamp, node: &Node, drain: &Drain) -> DrainRow {
    let deadline = drain.deadline.map(|deadline| drain.since + deadline);
    let on_it = state.allocs_on(&node.name).filter(|alloc| !alloc.ended());
    let mut left: Vec<_> = on_it.map(|alloc| one(state, node, drain, alloc)).collect();
    left.sort_by_key(|left| left.moves);
    DrainRow {
        since: drain.since.into(),
        deadline: deadline.map(Into::into),
        overdue: deadline.is_some_and(|deadline| deadline <= now),
        left,
    }
}

fn one(state: &State, node: &Node, drain: &Drain, alloc: &Allocation) -> DrainLeft {
    let (moves, what) = match (&alloc.desired, state.job(&alloc.job)) {
        (Desired::Stop(reason), _) => (true, format!("is stopping: {}", reason.sentence())),
        (Desired::Run, None) => (true, "waits to be stopped".to_owned()),
        (Desired::Run, Some(job)) => match job.spec_of(alloc.version).kind {
            JobKind::System => (true, "goes last, when nothing else is left".to_owned()),
            JobKind::Batch { .. } => (
                false,
                match drain.deadline {
                    Some(_) => "is left to end until the deadline".to_owned(),
                    None => "is left to end, however long that takes".to_owned(),
                },
            ),
            JobKind::Service { .. } => of_service(state, node, job, alloc),
        },
    };
    let name = format!("{}.{}", alloc.job, alloc.index);
    DrainLeft {
        allocation: alloc.id.to_string(),
        message: match job_is_batch(state, alloc) {
            true => format!("batch job {name} {what}"),
            false => format!("{name} {what}"),
        },
        moves,
    }
}

fn job_is_batch(state: &State, alloc: &Allocation) -> bool {
    let job = state.job(&alloc.job);
    job.is_some_and(|job| matches!(job.spec_of(alloc.version).kind, JobKind::Batch { .. }))
}

fn of_service(state: &State, node: &Node, job: &Job, alloc: &Allocation) -> (bool, String) {
    let spec = job.spec_of(alloc.version);
    if spec.has_local_data() {
        return (false, format!("stays: its data ({}) is on {}", volumes(spec), node.name));
    }
    let successor = state.allocs_of(&alloc.job).find(|other| {
        other.index == alloc.index
            && other.wanted()
            && other.id > alloc.id
            && other.node != node.name
    });
    if let Some(successor) = successor {
        let on = &successor.node;
        return (true, format!("goes when its successor on {on} is ready"));
    }
    let explanation = explain_replica(state, spec, alloc.index, Some(alloc));
    if explanation.fits.iter().any(|other| *other != node.name) {
        let most = spec.update.max_parallel;
        let turn = if most == 1 { "one moves".to_owned() } else { format!("{most} move") };
        return (true, format!("waits for its turn: {turn} at a time"));
    }
    if state.nodes().count() == 1 {
        return (false, "can't move: there is no other node".to_owned());
    }
    // The node itself says that it is being drained, or left.
    let own = |refusal: &Refusal| matches!(refusal, Refusal::Draining | Refusal::Leaving);
    let mut mine = 1;
    let mut others = Vec::new();
    for (refusal, count) in explanation.refusals.counts() {
        let taken = if own(refusal) { std::mem::take(&mut mine).min(count) } else { 0 };
        if count > taken {
            others.push((refusal, count - taken));
        }
    }
    let why = match others.as_slice() {
        [(Refusal::Lacks { resource }, _)] => format!("no other node has {resource} left"),
        [(Refusal::TooSmall { resource }, _)] => {
            format!("every other node is too small ({resource})")
        }
        others => {
            let each: Vec<_> = others
                .iter()
                .map(|(refusal, count)| match count {
                    1 => format!("1 node: {refusal}"),
                    count => format!("{count} nodes: {refusal}"),
                })
                .collect();
            format!("no other node takes it ({})", each.join(", "))
        }
    };
    (false, format!("can't move: {why}"))
}
