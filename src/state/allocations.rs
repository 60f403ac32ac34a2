//! Allocations: placed, reported on, stopped, forgotten.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::jobs::JobOutcome;
use super::{
    AllocChange, Change, Event, Placement, Placements, Rejected, RejectedCode, Reply, State,
};
use crate::limits::{ALLOCATION_NOTES_KEPT, MESSAGE_BYTES_MAX, OUTPUT_TAIL_BYTES_MAX};
use crate::model::allocation::{
    AllocReport, AllocStatus, Allocation, Desired, Grant, Health, Note, StopReason, TaskState,
};
use crate::model::deployment::DeploymentStatus;
use crate::model::job::JobKind;
use crate::model::name::{AllocId, JobId, NodeName};
use crate::model::time::Timestamp;

impl State {
    /// Whether an allocation may be placed there now. A place is a replica number, or for a system
    /// job a node. Nothing lives in it; or, where the job lets a successor start before its
    /// predecessor stops, only what is on its way out, what runs another version, and `previous`.
    pub fn place_is_free(
        &self,
        id: &JobId,
        index: u32,
        node: &NodeName,
        version: u64,
        previous: Option<AllocId>,
    ) -> bool {
        let Some(job) = self.jobs.get(id) else { return false };
        let runs_as = |version| job.version(version).map(|version| version.runs_as);
        let overlap = job.lets_overlap();
        let system = job.spec().kind == JobKind::System;
        !self.allocs_of(id).any(|alloc| {
            let here = alloc.index == index || (system && alloc.node == *node);
            let other = runs_as(alloc.version) != runs_as(version);
            let makes_way = overlap && (!alloc.wanted() || Some(alloc.id) == previous || other);
            here && !alloc.ended() && !makes_way
        })
    }

    /// Whether a lost allocation's room, ports and devices are still free on its node.
    pub(super) fn fits_again(&self, alloc: &Allocation) -> bool {
        let Some(node) = self.nodes.get(&alloc.node) else { return false };
        let used = self.node_use(&alloc.node);
        node.resources.minus(used.resources).lacks(alloc.reserved).is_none()
            && !alloc.reserved_ports.iter().any(|port| used.ports.contains(port))
            && !alloc.grant.gpus.iter().any(|gpu| used.gpus.contains(gpu))
    }

    /// Whether the job would still want this allocation if it ran.
    pub(super) fn is_still_asked_for(&self, alloc: &Allocation) -> bool {
        self.jobs.get(&alloc.job).is_some_and(|job| {
            let stays = self.latest_deployment(job).is_some_and(|latest| {
                let runs_as = |version| job.version(version).map(|version| version.runs_as);
                latest.status != DeploymentStatus::Successful
                    && latest.from.is_some_and(|from| runs_as(from) == runs_as(alloc.version))
            });
            job.active()
                && (stays || job.runs_current(alloc.version))
                && (job.spec().kind == JobKind::System || alloc.index < job.replicas())
        })
    }

    /// Puts an allocation into its table and every index.
    pub(super) fn put_alloc(&mut self, alloc: Allocation) {
        let alloc = Arc::new(alloc);
        let before = self.allocs.insert(alloc.id, alloc.clone());
        if before.is_none() {
            self.allocs_of_job.entry(alloc.job.clone()).or_default().insert(alloc.id);
            self.allocs_on_node.entry(alloc.node.clone()).or_default().insert(alloc.id);
        }
        let held = before.is_some_and(|before| !before.ended());
        if held == alloc.ended() {
            let used = self.uses.entry(alloc.node.clone()).or_default();
            if held { used.release(&alloc) } else { used.take(&alloc) }
        }
    }

    /// Makes every order the newest: agents may hold newer ones than a restored state does.
    pub(super) fn renew_orders(&mut self, generation: u64) {
        let live: Vec<_> = self.allocs.values().filter(|alloc| !alloc.ended()).cloned().collect();
        for alloc in live {
            let mut alloc = (*alloc).clone();
            alloc.grant.generation = generation;
            self.put_alloc(alloc);
        }
    }

    /// Takes an allocation out of its table and every index.
    fn remove_alloc(&mut self, id: AllocId) {
        let Some(alloc) = self.allocs.remove(&id) else { return };
        remove_from(&mut self.allocs_of_job, &alloc.job, id);
        remove_from(&mut self.allocs_on_node, &alloc.node, id);
        if !alloc.ended()
            && let Some(used) = self.uses.get_mut(&alloc.node)
        {
            used.release(&alloc);
        }
        if !self.allocs_on_node.contains_key(&alloc.node) {
            self.uses.remove(&alloc.node);
        }
    }
}

fn remove_from<K: Ord + Clone>(index: &mut OrdMap<K, OrdSet<AllocId>>, key: &K, id: AllocId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

impl Change<'_> {
    pub(super) fn place(&mut self, placements: &Placements) -> Result<Reply, Rejected> {
        let (mut placed, mut refused) = (0, 0);
        for row in placements.rows() {
            match self.place_one(row) {
                Some(_) => placed += 1,
                None => refused += 1,
            }
        }
        Ok(Reply::Placed { placed, refused })
    }

    /// Checks a placement against the state as it is now: the plan may be older. The allocation,
    /// if it was made.
    pub(super) fn place_one(&mut self, row: Placement) -> Option<AllocId> {
        let job = self.state.jobs.get(&row.job)?.clone();
        let node = self.state.nodes.get(&row.node)?.clone();
        let current = job.current();
        let back = self.state.latest_deployment(&job).and_then(|latest| latest.from);
        // A successor runs what the one it stands in for runs.
        let stands_in = || {
            let previous = self.state.allocs.get(&row.previous?)?;
            let runs_as = |version| job.version(version).map(|version| version.runs_as);
            let alike = runs_as(previous.version) == runs_as(row.version);
            Some(previous.wanted() && previous.job == row.job && alike)
        };
        let planned = row.version == current.version
            || Some(row.version) == back
            || stands_in() == Some(true);
        if !planned || !job.active() || !node.takes_work() {
            return None;
        }
        if !self.state.place_is_free(&row.job, row.index, &row.node, row.version, row.previous) {
            return None;
        }
        let version = job.version(row.version)?;
        let spec = &version.spec;
        let has_home = spec.has_local_data() && spec.kind != JobKind::System;
        let home = job.homes.get(&row.index).filter(|_| has_home);
        if home.is_some_and(|home| *home != row.node) {
            return None;
        }
        let reserved = spec.reserved();
        let mut used = self.state.node_use(&row.node);
        if node.resources.minus(used.resources).lacks(reserved).is_some()
            || row.ports.len() != spec.ports().count()
            || row.gpus.len() != reserved.gpu as usize
        {
            return None;
        }
        let mut ports = std::collections::BTreeMap::new();
        let mut reserved_ports = Vec::with_capacity(row.ports.len());
        for (port, number) in spec.ports().zip(&row.ports) {
            if used.ports.insert((*number, port.protocol)).is_some() {
                return None;
            }
            ports.insert(port.name.clone(), *number);
            reserved_ports.push((*number, port.protocol));
        }
        let mut free = |gpu: &u32| *gpu < node.resources.gpu && used.gpus.insert(*gpu).is_none();
        if !row.gpus.iter().all(&mut free) {
            return None;
        }

        let previous = row.previous.and_then(|id| self.state.allocs.get(&id)).cloned();
        let at = self.stamp.at;
        let batch = matches!(spec.kind, JobKind::Batch { .. });
        let latest = self.state.latest_deployment(&job);
        // Failures count as long as they follow one another within the time the job names.
        let in_a_row = previous.as_ref().filter(|previous| {
            let same = job.version(previous.version).map(|known| known.runs_as);
            let failed = previous.status == AllocStatus::Failed;
            // A deployment begins with a clean slate.
            let recent = latest.is_none_or(|latest| previous.changed_at >= latest.started_at);
            (failed || (batch && previous.failures > 0)) && recent && same == Some(version.runs_as)
        });
        let failing_since = in_a_row
            .and_then(|previous| previous.failing_since)
            .filter(|since| batch || at.since(*since) <= spec.reschedule.within);
        let failures = match (in_a_row, failing_since) {
            (None, _) => 0,
            (Some(_), None) => 1,
            // A batch run that had to leave keeps the tries it has used.
            (Some(previous), Some(_)) => {
                previous.failures + u32::from(previous.status == AllocStatus::Failed)
            }
        };
        self.state.next_alloc += 1;
        let id = AllocId(self.state.next_alloc);
        let alloc = Allocation {
            id,
            job: row.job.clone(),
            version: row.version,
            index: row.index,
            node: row.node.clone(),
            grant: Grant {
                ports,
                gpus: row.gpus,
                generation: self.stamp.index,
                ..Grant::default()
            },
            reserved,
            reserved_ports,
            desired: Desired::Run,
            status: AllocStatus::Pending,
            health: Health::Unknown,
            ready: false,
            tasks: Default::default(),
            message: String::new(),
            previous: row.previous,
            failures,
            failing_since: failing_since.or(in_a_row.map(|_| at)),
            gave_up: false,
            moving: None,
            disconnected_at: None,
            created_at: at,
            changed_at: at,
            health_since: at,
            ready_since: at,
            notes: vec![Note { at, text: format!("placed on {}", row.node) }],
        };
        if has_home && home.is_none() {
            let mut job = (*job).clone();
            job.homes.insert(row.index, row.node.clone());
            self.state.jobs.insert(row.job.clone(), Arc::new(job));
        }
        self.state.put_alloc(alloc);
        self.emit_alloc(id, AllocChange::Placed, "");
        Some(id)
    }

    pub(super) fn stop_allocs(
        &mut self,
        stops: &[(AllocId, StopReason)],
    ) -> Result<Reply, Rejected> {
        for (id, reason) in stops {
            let at = self.stamp.at;
            let known = self.state.allocs.get(id);
            if known.is_some_and(|alloc| self.state.breaks_promise(alloc, *reason, at)) {
                continue;
            }
            self.ask_to_stop(*id, *reason);
        }
        Ok(Reply::Done)
    }

    pub(super) fn ask_to_stop(&mut self, id: AllocId, reason: StopReason) {
        self.ask_to_stop_because(id, reason, reason.sentence());
    }

    pub(super) fn ask_to_stop_because(&mut self, id: AllocId, reason: StopReason, why: &str) {
        let Some(known) = self.state.allocs.get(&id) else { return };
        if !known.wanted() {
            return;
        }
        let mut alloc = (**known).clone();
        alloc.desired = Desired::Stop(reason);
        alloc.grant.generation = self.stamp.index;
        note(&mut alloc, self.stamp.at, format!("stopping: {why}"));
        self.state.put_alloc(alloc);
        self.emit_alloc(id, AllocChange::Stopping, why);
    }

    pub(super) fn set_alloc_status(&mut self, id: AllocId, status: AllocStatus, message: &str) {
        let Some(known) = self.state.allocs.get(&id) else { return };
        let mut alloc = (**known).clone();
        let at = self.stamp.at;
        alloc.status = status;
        alloc.message = message.to_owned();
        alloc.changed_at = at;
        alloc.disconnected_at = None;
        if alloc.ready {
            alloc.ready = false;
            alloc.ready_since = at;
        }
        if alloc.health != Health::Unknown {
            alloc.health = Health::Unknown;
            alloc.health_since = at;
        }
        if status == AllocStatus::Pending {
            // Its agent may hold an older order to stop it.
            alloc.grant.generation = self.stamp.index;
        }
        note(&mut alloc, at, format!("{}: {message}", status.word()));
        let (job, version) = (alloc.job.clone(), alloc.version);
        let wanted = matches!(alloc.desired, Desired::Run);
        self.state.put_alloc(alloc);
        self.emit_alloc(id, AllocChange::Status, message);
        if status.ended() {
            self.follow_batch(&job, version, status, wanted);
        }
    }

    pub(super) fn report_allocs(
        &mut self,
        node: &NodeName,
        agent_id: u64,
        reports: &[AllocReport],
    ) -> Result<Reply, Rejected> {
        match self.state.nodes.get(node) {
            None => return Err(Rejected::not_found("node", node)),
            Some(known) if known.agent_id != agent_id => {
                let message = format!("node {node} has registered with another agent since");
                return Err(Rejected::new(RejectedCode::Conflict, message));
            }
            Some(_) => {}
        }
        for report in reports {
            self.report_alloc(node, report);
        }
        Ok(Reply::Done)
    }

    fn report_alloc(&mut self, node: &NodeName, report: &AllocReport) {
        let Some(known) = self.state.allocs.get(&report.id) else { return };
        let stale = known.ended() || known.node != *node;
        let nonsense = matches!(report.status, AllocStatus::Pending | AllocStatus::Lost);
        // It acted on an older order, and will report again under the newer one.
        let outdated = report.generation < known.grant.generation;
        if stale || nonsense || outdated {
            return;
        }
        let before = known.clone();
        let mut alloc = (*before).clone();
        let at = self.stamp.at;
        alloc.status = report.status;
        alloc.health = report.health;
        alloc.message = cut(&report.message, MESSAGE_BYTES_MAX);
        let spec = self.state.jobs.get(&alloc.job).map(|job| job.spec_of(alloc.version).clone());
        alloc.tasks = report
            .tasks
            .iter()
            .filter(|(name, _)| {
                spec.as_ref().is_none_or(|spec| spec.tasks.iter().any(|task| task.name == **name))
            })
            .map(|(name, task)| (name.clone(), bounded(task)))
            .collect();
        if before.status != alloc.status {
            alloc.changed_at = at;
        }
        if before.health != alloc.health {
            alloc.health_since = at;
        }
        alloc.ready = report.ready && alloc.status == AllocStatus::Running;
        if before.ready != alloc.ready {
            alloc.ready_since = at;
        }
        // The story goes on where the user would see a difference.
        let change = if before.status != alloc.status {
            note(&mut alloc, at, story(report.status.word(), &report.message));
            Some(AllocChange::Status)
        } else if before.restarts() != alloc.restarts() {
            note(&mut alloc, at, story("restarted", &report.message));
            Some(AllocChange::Restarted)
        } else if before.health != alloc.health {
            note(&mut alloc, at, story(report.health.word(), &report.message));
            Some(AllocChange::Health)
        } else if before.ready != alloc.ready {
            let word = if alloc.ready { "ready" } else { "not ready" };
            note(&mut alloc, at, story(word, &report.message));
            Some(AllocChange::Health)
        } else if before.message != alloc.message {
            let message = alloc.message.clone();
            note(&mut alloc, at, message);
            Some(AllocChange::Message)
        } else if before.tasks != alloc.tasks {
            Some(AllocChange::Message)
        } else {
            None
        };
        let Some(change) = change else { return };
        let (id, job, message) = (alloc.id, alloc.job.clone(), alloc.message.clone());
        let wanted = matches!(alloc.desired, Desired::Run);
        let status = alloc.status;
        let version = alloc.version;
        // A ready one that never was before: `ready_since` is still that of its placement.
        let first_ready = alloc.ready && !before.ready && before.ready_since == before.created_at;
        self.state.put_alloc(alloc);
        self.emit_alloc(id, change, &message);
        self.follow_batch(&job, version, status, wanted);
        if first_ready {
            self.follow_deployment(&job, version);
        }
    }

    /// A batch job ends with its allocations: when enough have completed, or one has failed for
    /// good.
    fn follow_batch(&mut self, id: &JobId, version: u64, status: AllocStatus, wanted: bool) {
        let Some(job) = self.state.jobs.get(id) else { return };
        let JobKind::Batch { completions, retries, .. } = job.spec().kind else { return };
        if !job.active() || !job.runs_current(version) {
            return;
        }
        let mine = || self.state.allocs_of(id).filter(|alloc| job.runs_current(alloc.version));
        match status {
            AllocStatus::Complete => {
                let complete = mine().filter(|alloc| alloc.status == AllocStatus::Complete);
                let done: BTreeSet<u32> = complete
                    .map(|alloc| alloc.index)
                    .filter(|index| *index < completions)
                    .collect();
                if done.len() >= completions as usize {
                    self.end_job(id, JobOutcome::Complete);
                }
            }
            AllocStatus::Failed if wanted => {
                let worst = mine()
                    .filter(|alloc| alloc.status == AllocStatus::Failed)
                    .map(|alloc| alloc.failures)
                    .max();
                if worst >= Some(retries) {
                    self.end_job(id, JobOutcome::Failed);
                }
            }
            // Only a timeout stops a batch job's allocation for good; a drained one is placed anew.
            AllocStatus::Stopped | AllocStatus::Failed | AllocStatus::Lost => {
                let timed_out = self.state.allocs_of(id).any(|alloc| {
                    alloc.ended()
                        && matches!(alloc.desired, Desired::Stop(StopReason::TimedOut))
                        && job.runs_current(alloc.version)
                });
                if timed_out {
                    self.end_job(id, JobOutcome::Failed);
                }
            }
            _ => {}
        }
    }

    pub(super) fn collect_garbage(
        &mut self,
        allocs: &[AllocId],
        jobs: &[JobId],
        replies_before: Timestamp,
    ) -> Result<Reply, Rejected> {
        for id in allocs {
            if self.state.allocs.get(id).is_some_and(|alloc| alloc.ended()) {
                self.forget_alloc(*id);
            }
        }
        for job in jobs {
            self.forget_job(job);
        }
        self.state.forget_replies_before(replies_before);
        Ok(Reply::Done)
    }

    pub(super) fn forget_alloc(&mut self, id: AllocId) {
        if !self.state.allocs.contains_key(&id) {
            return;
        }
        self.emit_alloc(id, AllocChange::Removed, "");
        self.state.remove_alloc(id);
    }

    pub(super) fn emit_alloc(&mut self, id: AllocId, change: AllocChange, message: &str) {
        let Some(alloc) = self.state.allocs.get(&id) else { return };
        let event = Event::AllocChanged {
            alloc: id,
            job: alloc.job.clone(),
            index: alloc.index,
            node: alloc.node.clone(),
            change,
            status: alloc.status,
            health: alloc.health,
            message: message.to_owned(),
        };
        self.emit(event);
    }
}

fn story(word: &str, message: &str) -> String {
    match message {
        "" => word.to_owned(),
        message => format!("{word}: {}", cut(message, MESSAGE_BYTES_MAX)),
    }
}

pub(super) fn note(alloc: &mut Allocation, at: Timestamp, text: String) {
    if text.is_empty() {
        return;
    }
    if alloc.notes.len() >= ALLOCATION_NOTES_KEPT {
        // The first line, where it was placed, stays.
        alloc.notes.remove(1);
    }
    alloc.notes.push(Note { at, text });
}

fn bounded(task: &TaskState) -> TaskState {
    TaskState {
        error: cut(&task.error, MESSAGE_BYTES_MAX),
        output_tail: cut_front(&task.output_tail, OUTPUT_TAIL_BYTES_MAX),
        ..task.clone()
    }
}

/// At most `max` bytes from the front, never within a character.
fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

/// At most `max` bytes from the end, never within a character.
fn cut_front(text: &str, max: usize) -> String {
    text[text.ceil_char_boundary(text.len().saturating_sub(max))..].to_owned()
}
