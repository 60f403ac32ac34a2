//! Allocations as they are shown.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::view::allocation::{AllocationRow, AllocationStatus, CheckRow, NoteRow, TaskRow};
use crate::model::allocation::{
    AllocStatus, Allocation, CheckResult, Desired, TaskPhase, TaskState,
};
use crate::model::job::JobKind;
use crate::model::name::{AllocId, JobId, NodeName, TaskName};
use crate::planner::scheduler::{Explanation, explain, explain_replica, refusal_when_empty};
use crate::state::{Job, State};

/// Where an entry stands in the list; a cursor holds one of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::api) struct Key {
    pub(in crate::api) job: JobId,
    pub(in crate::api) index: u32,
    /// Copies that are not placed come behind those that are.
    pub(in crate::api) alloc: AllocId,
}

const NOT_PLACED: AllocId = AllocId(u64::MAX);

/// An entry of the list: an allocation, or a copy that is wanted and not placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct Entry {
    pub(in crate::api) key: Key,
    /// Of a system job's copy that is not placed: where it belongs.
    node: Option<NodeName>,
}

impl Entry {
    pub(in crate::api) fn placed(alloc: &Allocation) -> Self {
        let key = Key { job: alloc.job.clone(), index: alloc.index, alloc: alloc.id };
        Self { key, node: None }
    }

    fn missing(job: &JobId, index: u32, node: Option<NodeName>) -> Self {
        Self { key: Key { job: job.clone(), index, alloc: NOT_PLACED }, node }
    }
}

/// A job's entries in their order: each wanted copy, what is still stopping, how a batch job
/// ended; with `all`, every ended allocation that is kept.
pub(in crate::api) fn entries(state: &State, id: &JobId, job: &Job, all: bool) -> Vec<Entry> {
    let mut entries: Vec<Entry> = match job.spec().kind {
        JobKind::System => of_system(state, id, job),
        _ => of_replicas(state, id, job),
    };
    let shown: BTreeSet<AllocId> = entries.iter().map(|entry| entry.key.alloc).collect();
    let others = state.allocs_of(id).filter(|alloc| all || !alloc.ended());
    entries.extend(
        others.filter(|alloc| !shown.contains(&alloc.id)).map(|alloc| Entry::placed(alloc)),
    );
    entries.sort_by(|left, right| left.key.cmp(&right.key));
    entries
}

/// The newest allocation of each replica: the one that has not ended, else the last that has.
pub(in crate::api) fn newest<'s>(state: &'s State, id: &JobId) -> BTreeMap<u32, &'s Allocation> {
    let mut newest: BTreeMap<u32, &Allocation> = BTreeMap::new();
    for alloc in state.allocs_of(id) {
        let known = newest.entry(alloc.index).or_insert(alloc);
        if (!alloc.ended(), alloc.id) > (!known.ended(), known.id) {
            *known = alloc;
        }
    }
    newest
}

fn of_replicas(state: &State, id: &JobId, job: &Job) -> Vec<Entry> {
    let newest = newest(state, id);
    if !job.active() {
        // A batch job that has ended shows how.
        let shown = newest.values().filter(|alloc| job.outcome.is_some() || !alloc.ended());
        return shown.map(|alloc| Entry::placed(alloc)).collect();
    }
    (0..job.replicas())
        .map(|index| match newest.get(&index) {
            Some(alloc) if !alloc.ended() || gave_up(job, alloc) || is_done(job, alloc) => {
                Entry::placed(alloc)
            }
            _ => Entry::missing(id, index, None),
        })
        .collect()
}

/// It is a run of a batch job that ended well.
fn is_done(job: &Job, alloc: &Allocation) -> bool {
    alloc.status == AllocStatus::Complete && job.runs_current(alloc.version)
}

/// How many more of a job's copies may be placed now: a batch job has a limit.
pub(super) fn at_once(state: &State, id: &JobId, job: &Job) -> usize {
    match job.spec().kind {
        JobKind::Batch { parallelism, .. } => {
            let live = state.allocs_of(id).filter(|alloc| !alloc.ended()).count();
            (parallelism as usize).saturating_sub(live)
        }
        _ => usize::MAX,
    }
}

/// Its agent gave up on what is still wanted, and the wait before the next try goes on.
pub(super) fn gave_up(job: &Job, alloc: &Allocation) -> bool {
    alloc.status == AllocStatus::Failed
        && matches!(alloc.desired, Desired::Run)
        && job.runs_current(alloc.version)
}

fn of_system(state: &State, id: &JobId, job: &Job) -> Vec<Entry> {
    if !job.active() {
        return Vec::new();
    }
    let mut taken: BTreeSet<u32> = BTreeSet::new();
    let mut on: BTreeMap<&NodeName, &Allocation> = BTreeMap::new();
    for alloc in state.allocs_of(id) {
        let known = on.entry(&alloc.node).or_insert(alloc);
        if (!alloc.ended(), alloc.id) > (!known.ended(), known.id) {
            *known = alloc;
        }
        if !alloc.ended() {
            taken.insert(alloc.index);
        }
    }
    let mut free = (0..).filter(|index| !taken.contains(index));
    wanted_nodes(state, job)
        .filter_map(|node| match on.get(&node) {
            Some(alloc) if !alloc.ended() || gave_up(job, alloc) => Some(Entry::placed(alloc)),
            _ => Some(Entry::missing(id, free.next()?, Some(node.clone()))),
        })
        .collect()
}

/// The nodes that a system job wants a copy on.
pub(super) fn wanted_nodes<'s>(
    state: &'s State,
    job: &'s Job,
) -> impl Iterator<Item = &'s NodeName> {
    let active = job.active();
    state
        .nodes()
        .filter(move |node| active && node.takes_work())
        .filter(|node| refusal_when_empty(job.spec(), node).is_none())
        .map(|node| &node.name)
}

/// Makes rows of entries; asks the scheduler at most once for each job.
#[derive(Debug)]
pub(in crate::api) struct Rows<'s> {
    state: &'s State,
    /// What keeps copies of a job off nodes, and how many of them may be placed now.
    explained: BTreeMap<JobId, (Explanation, usize)>,
}

impl<'s> Rows<'s> {
    pub(in crate::api) fn new(state: &'s State) -> Self {
        Self { state, explained: BTreeMap::new() }
    }

    /// The entry as a row; none if it is of another state.
    pub(in crate::api) fn row(&mut self, entry: &Entry) -> Option<AllocationRow> {
        if entry.key.alloc != NOT_PLACED {
            return self.state.alloc(entry.key.alloc).map(|alloc| row(self.state, alloc));
        }
        let job = self.state.job(&entry.key.job)?;
        let index = entry.key.index;
        let explain_this = || explain_replica(self.state, job.spec(), index, None);
        let own_home = job.spec().has_local_data() && job.homes.contains_key(&index);
        let (shared, at_once) = self.explained.entry(entry.key.job.clone()).or_insert_with(|| {
            (explain(self.state, job.spec()), at_once(self.state, &entry.key.job, job))
        });
        let explanation = if own_home { &explain_this() } else { &*shared };
        Some(AllocationRow {
            project: entry.key.job.project.to_string(),
            job: entry.key.job.name.to_string(),
            index: entry.key.index,
            id: None,
            node: entry.node.as_ref().map(ToString::to_string),
            version: job.current().version,
            state: AllocStatus::Pending.word().to_owned(),
            health: "unknown".to_owned(),
            ready: false,
            gave_up: false,
            moving: None,
            checks: Vec::new(),
            container_id: None,
            ports: BTreeMap::new(),
            address: None,
            restarts: 0,
            started_at: None,
            created_at: None,
            message: match at_once {
                0 => "waits for its turn".to_owned(),
                _ => why_missing(explanation),
            },
        })
    }
}

/// Why a copy is not placed.
fn why_missing(explanation: &Explanation) -> String {
    let refusals = &explanation.refusals;
    if refusals.main().is_some_and(|refusal| refusal.is_whole_story()) {
        refusals.to_string()
    } else if explanation.fits.is_empty() {
        format!("no node takes it: {refusals}")
    } else {
        "about to be placed".to_owned()
    }
}

/// `stopping` while it is to end and has not.
pub(in crate::api) fn word(alloc: &Allocation) -> &'static str {
    match alloc.desired {
        Desired::Stop(_) if !alloc.ended() => "stopping",
        _ => alloc.status.word(),
    }
}

/// An allocation as a row.
pub(in crate::api) fn row(state: &State, alloc: &Allocation) -> AllocationRow {
    AllocationRow {
        project: alloc.job.project.to_string(),
        job: alloc.job.name.to_string(),
        index: alloc.index,
        id: Some(alloc.id.to_string()),
        node: Some(alloc.node.to_string()),
        version: alloc.version,
        state: word(alloc).to_owned(),
        health: alloc.health.word().to_owned(),
        ready: alloc.available(),
        gave_up: alloc.gave_up,
        moving: alloc.moving.as_ref().map(|to| to.reason.sentence().to_owned()),
        checks: in_order(state, alloc).flat_map(|(name, task)| checks(name, task)).collect(),
        container_id: in_order(state, alloc).find_map(|(_, task)| task.container_id.clone()),
        ports: alloc.grant.ports.iter().map(|(name, port)| (name.to_string(), *port)).collect(),
        address: state.node(&alloc.node).map(|node| node.address.clone()),
        restarts: alloc.restarts(),
        started_at: alloc.started_at().map(Into::into),
        created_at: Some(alloc.created_at.into()),
        message: message(alloc),
    }
}

/// What is happening or went wrong; of what is to end, why first.
pub(super) fn message(alloc: &Allocation) -> String {
    match alloc.desired {
        Desired::Stop(reason) if alloc.message.is_empty() => reason.sentence().to_owned(),
        Desired::Stop(reason) => format!("{}; {}", reason.sentence(), alloc.message),
        Desired::Run => alloc.message.clone(),
    }
}

/// Its tasks in the job's order.
pub(super) fn in_order<'s>(
    state: &'s State,
    alloc: &'s Allocation,
) -> impl Iterator<Item = (&'s TaskName, &'s TaskState)> {
    let place = |name: &TaskName| {
        let job = state.job(&alloc.job)?;
        job.spec_of(alloc.version).tasks.iter().position(|task| task.name == *name)
    };
    let mut tasks: Vec<_> = alloc.tasks.iter().collect();
    tasks.sort_by_key(|(name, _)| place(name).unwrap_or(usize::MAX));
    tasks.into_iter()
}

/// Everything about an allocation.
pub(in crate::api) fn status(state: &State, alloc: &Allocation) -> AllocationStatus {
    AllocationStatus {
        row: row(state, alloc),
        tasks: in_order(state, alloc).map(|(name, task)| task_row(name.as_str(), task)).collect(),
        reserved: alloc.reserved.into(),
        gpus: alloc.grant.gpus.clone(),
        stop_reason: match alloc.desired {
            Desired::Run => None,
            Desired::Stop(reason) => Some(reason.sentence().to_owned()),
        },
        previous: alloc.previous.map(|id| id.to_string()),
        failures: alloc.failures,
        changed_at: alloc.changed_at.into(),
        health_since: alloc.health_since.into(),
        notes: alloc
            .notes
            .iter()
            .map(|note| NoteRow { at: note.at.into(), text: note.text.clone() })
            .collect(),
    }
}

fn checks(name: &TaskName, task: &TaskState) -> Vec<CheckRow> {
    let row = |kind: &str, result: &CheckResult| CheckRow {
        task: name.to_string(),
        kind: kind.to_owned(),
        passing: result.passing,
        message: result.message.clone(),
        since: result.since.into(),
    };
    let health = task.liveness.as_ref().map(|result| row("health", result));
    let readiness = task.readiness.as_ref().map(|result| row("readiness", result));
    health.into_iter().chain(readiness).collect()
}

fn task_row(name: &str, task: &TaskState) -> TaskRow {
    TaskRow {
        task: name.to_owned(),
        state: phase(task.phase).to_owned(),
        container_id: task.container_id.clone(),
        started_at: task.started_at.map(Into::into),
        finished_at: task.finished_at.map(Into::into),
        exit_code: task.exit_code,
        oom_killed: task.oom_killed,
        restarts: task.restarts,
        error: task.error.clone(),
        output_tail: task.output_tail.clone(),
    }
}

fn phase(phase: TaskPhase) -> &'static str {
    match phase {
        TaskPhase::Pending => "pending",
        TaskPhase::Pulling => "pulling",
        TaskPhase::Starting => "starting",
        TaskPhase::Running => "running",
        TaskPhase::Waiting => "waiting",
        TaskPhase::Ended => "ended",
    }
}
