//! What is assigned against what is observed: decides what to do next. Pure: no clock, no socket,
//! no task; time and results come in as events.
//!
//! Level-triggered: each decision looks at what is wanted and what is known now, never at how it
//! came about. A task has at most one operation on its way; its result says what is known next.
//! So events may be late, repeated or lost, and the end is the assigned state all the same.
//!
//! Start at `Converge::handle`, then `task::Task::decide`.

mod account;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use self::task::{Op, Seen, Task};
use super::order::TaskKey;
use super::runtime::{Condition, Found, RuntimeError};
use crate::limits::{AGENT_ENDED_KEPT, ENDED_ALLOCATION_KEPT_MS};
use crate::model::allocation::{AllocReport, AllocStatus, Assignment, Health, TaskPhase};
use crate::model::job::JobKind;
use crate::model::name::{AllocId, TaskName};
use crate::model::time::{Millis, Timestamp};

/// How long a starting agent waits for the leader's word before it starts what does not run:
/// its orders may be old.
pub(super) const STARTS_HELD: Millis = Millis::from_secs(5);
/// Wait before an operation that failed for no reason of the task's is tried again.
pub(super) const OP_RETRY: Millis = Millis(1000);

/// What happened.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// Everything that is assigned.
    Sync { run: Vec<Assignment>, stop: Vec<(AllocId, u64)> },
    /// A change to it.
    Orders { run: Vec<Assignment>, stop: Vec<(AllocId, u64)>, forget: Vec<AllocId> },
    /// The image of a task that is being started is being fetched.
    Pulling { key: TaskKey },
    /// An operation is through.
    Started { key: TaskKey, result: Result<String, RuntimeError> },
    /// An operation is through.
    Stopped { key: TaskKey, result: Result<(), RuntimeError> },
    /// An operation is through.
    Inspected { key: TaskKey, result: Result<Condition, RuntimeError> },
    /// An operation is through.
    Removed { key: TaskKey, result: Result<(), RuntimeError> },
    /// A runtime noticed that a task has changed.
    Changed { key: TaskKey },
    /// All that a runtime has, asked for at `since` (see [`Converge::listing`]).
    Listed { runtime: &'static str, since: u64, found: Vec<Found> },
    /// A runtime does not answer.
    Down { runtime: &'static str, message: String },
    /// What a task's checks say, in its `run`-th run.
    Health { key: TaskKey, run: u64, health: Health, message: String },
    /// A task has written more than it may.
    OverDisk { key: TaskKey, used: u64, limit: u64 },
    /// Time has passed.
    Tick,
    /// End and remove everything.
    EndAll,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Start the task; with `reuse`, its ended container.
    Start { key: TaskKey, assignment: Arc<Assignment>, reuse: Option<String> },
    /// Call a start off if it still fetches the image.
    CancelStart { key: TaskKey },
    /// End the task.
    Stop { key: TaskKey, runtime: &'static str, handle: String, grace: Millis },
    /// Find out how it is.
    Inspect { key: TaskKey, runtime: &'static str, handle: String },
    /// Remove what is left of it.
    Remove { key: TaskKey, runtime: &'static str, handle: String },
    /// Check its health from now on.
    Probe { key: TaskKey, run: u64, assignment: Arc<Assignment>, handle: String },
    /// Don't any more.
    EndProbe { key: TaskKey },
    /// Tell the leader.
    Report(AllocReport),
    /// The runtime has a task that belongs to no known allocation: end and remove it.
    RemoveStray { runtime: &'static str, found: Found },
    /// Nothing is left of an allocation.
    Drop(AllocId),
}

/// An allocation as the agent knows it; kept across restarts of the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Alloc {
    pub(super) assignment: Arc<Assignment>,
    /// The highest order seen, to run or to stop.
    pub(super) generation: u64,
    /// It is to end.
    #[serde(default)]
    pub(super) stop: bool,
    /// A task failed for good; why.
    #[serde(default)]
    pub(super) failing: Option<String>,
    /// How it ended.
    #[serde(default)]
    pub(super) outcome: Option<AllocStatus>,
    #[serde(default)]
    pub(super) ended_at: Timestamp,
    /// Nobody wants it any more: end it and remove all of it.
    #[serde(default)]
    pub(super) gone: bool,
    pub(super) tasks: BTreeMap<TaskName, Task>,
    #[serde(skip)]
    reported: Option<AllocReport>,
}

impl Alloc {
    fn new(assignment: Assignment) -> Self {
        let tasks = assignment.spec.tasks.iter().map(|spec| (spec.name.clone(), Task::new(spec)));
        Self {
            generation: assignment.grant.generation,
            tasks: tasks.collect(),
            assignment: Arc::new(assignment),
            stop: false,
            failing: None,
            outcome: None,
            ended_at: Timestamp(0),
            gone: false,
            reported: None,
        }
    }

    fn is_batch(&self) -> bool {
        matches!(self.assignment.spec.kind, JobKind::Batch { .. })
    }

    /// Whether its tasks are to run.
    fn wanted(&self) -> bool {
        !self.gone && !self.stop && self.failing.is_none() && self.outcome.is_none()
    }

    /// Whether nothing of it runs or may run.
    fn down(&self) -> bool {
        self.tasks.values().all(Task::down)
    }

    fn status(&self) -> AllocStatus {
        let up = |task: &Task| task.seen == Seen::Running || task.done;
        match self.outcome {
            Some(outcome) => outcome,
            None if self.tasks.values().all(up) => AllocStatus::Running,
            // What is on its way down was last known to run.
            None if !self.wanted()
                && self.reported.as_ref().is_some_and(|r| r.status == AllocStatus::Running) =>
            {
                AllocStatus::Running
            }
            None => AllocStatus::Starting,
        }
    }

    fn health(&self) -> Health {
        if self.outcome.is_some() {
            return Health::Unknown;
        }
        let mut all = Health::Healthy;
        for task in self.tasks.values() {
            let health = match task.seen {
                Seen::Running => task.health,
                _ if task.done => Health::Healthy,
                // How it was until it is known what became of it.
                Seen::Unknown if task.live => task.health,
                _ => Health::Unknown,
            };
            match health {
                Health::Unhealthy => return Health::Unhealthy,
                Health::Unknown => all = Health::Unknown,
                Health::Healthy => {}
            }
        }
        all
    }

    fn message(&self) -> String {
        if let Some(failing) = &self.failing {
            return failing.clone();
        }
        let alone = self.tasks.len() == 1;
        for (name, task) in &self.tasks {
            let text = match task.state.phase {
                TaskPhase::Pulling => "fetching its image".to_owned(),
                TaskPhase::Waiting | TaskPhase::Pending => task.state.error.clone(),
                TaskPhase::Running => match &task.kill {
                    Some(reason) => reason.clone(),
                    None => task.check_message.clone(),
                },
                _ => String::new(),
            };
            if !text.is_empty() {
                return if alone { text } else { format!("{name}: {text}") };
            }
        }
        String::new()
    }

    fn report(&self) -> AllocReport {
        AllocReport {
            id: self.assignment.id,
            generation: self.generation,
            status: self.status(),
            health: self.health(),
            tasks: self
                .tasks
                .iter()
                .map(|(name, task)| (name.clone(), task.state.clone()))
                .collect(),
            message: self.message(),
        }
    }
}

/// Compares and decides.
#[derive(Debug)]
pub(super) struct Converge {
    allocs: BTreeMap<AllocId, Alloc>,
    /// Runtimes this agent has at all.
    offered: BTreeSet<&'static str>,
    /// Those that answer.
    up: BTreeSet<&'static str>,
    /// What runtimes have that belongs to nobody known, until the leader has spoken.
    strays: BTreeMap<TaskKey, (&'static str, Found)>,
    /// The leader has spoken since the agent started.
    synced: bool,
    /// Before then, and before the leader has spoken, nothing new is started.
    held_until: Timestamp,
    /// Counts operations, to tell a listing from before from one after.
    sequence: u64,
    touched: BTreeSet<AllocId>,
    dirty: BTreeSet<AllocId>,
    jitter: u64,
}

impl Converge {
    /// With what an earlier life of the agent knew. `seed` is for jitter.
    pub(super) fn new(
        known: BTreeMap<AllocId, Alloc>,
        offered: BTreeSet<&'static str>,
        now: Timestamp,
        seed: u64,
    ) -> Self {
        let touched = known.keys().copied().collect();
        Self {
            allocs: known,
            offered,
            up: BTreeSet::new(),
            strays: BTreeMap::new(),
            synced: false,
            held_until: now + STARTS_HELD,
            sequence: 0,
            touched,
            dirty: BTreeSet::new(),
            jitter: seed.max(1),
        }
    }

    /// All allocations.
    pub(super) fn allocs(&self) -> &BTreeMap<AllocId, Alloc> {
        &self.allocs
    }

    /// A listing begins now: its result is to name this number.
    pub(super) fn listing(&self) -> u64 {
        self.sequence
    }

    /// Allocations that have changed since this was last asked.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<AllocId> {
        std::mem::take(&mut self.dirty)
    }

    /// Takes an event in and says what to do.
    pub(super) fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Sync { run, stop } => self.sync(run, &stop, &mut actions),
            Event::Orders { run, stop, forget } => {
                self.orders(run, &stop, &mut actions);
                for id in forget {
                    self.let_go(id);
                }
            }
            Event::Listed { runtime, since, found } => {
                self.listed(runtime, since, found, &mut actions);
            }
            Event::Down { runtime, message } => self.down(runtime, &message),
            Event::Tick => self.touched.extend(self.due(now)),
            Event::EndAll => {
                self.synced = true;
                let all: Vec<_> = self.allocs.keys().copied().collect();
                all.into_iter().for_each(|id| self.let_go(id));
                self.drop_strays(&mut actions);
            }
            event => self.task_event(now, event),
        }
        self.settle(now, &mut actions);
        actions
    }

    /// When something is due next that no event will announce.
    pub(super) fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        self.allocs.values().filter_map(|alloc| self.deadline_of(alloc, now)).min()
    }

    fn deadline_of(&self, alloc: &Alloc, now: Timestamp) -> Option<Timestamp> {
        if alloc.outcome.is_some() && !alloc.gone {
            return Some(alloc.ended_at + Millis(ENDED_ALLOCATION_KEPT_MS));
        }
        let wanted = alloc.wanted();
        let held = if self.synced { Timestamp(0) } else { self.held_until };
        alloc
            .tasks
            .values()
            .filter(|task| task.op.is_none() && self.up.contains(task.runtime))
            .filter_map(|task| task.deadline(wanted))
            .map(|at| if wanted { at.max(held) } else { at })
            .min()
            .map(|at| at.max(now))
    }

    fn due(&self, now: Timestamp) -> Vec<AllocId> {
        let due = |alloc: &Alloc| self.deadline_of(alloc, now).is_some_and(|at| at <= now);
        self.allocs.iter().filter(|(_, alloc)| due(alloc)).map(|(id, _)| *id).collect()
    }

    // --- orders ---

    fn sync(&mut self, run: Vec<Assignment>, stop: &[(AllocId, u64)], actions: &mut Vec<Action>) {
        self.synced = true;
        let named: BTreeSet<_> =
            run.iter().map(|order| order.id).chain(stop.iter().map(|(id, _)| *id)).collect();
        self.orders(run, stop, actions);
        let unnamed: Vec<_> = self
            .allocs
            .iter()
            // What has ended stays, with its logs, until the state forgets it.
            .filter(|(id, alloc)| !named.contains(*id) && alloc.outcome.is_none())
            .map(|(id, _)| *id)
            .collect();
        unnamed.into_iter().for_each(|id| self.let_go(id));
        // The leader may not have what was said to another one.
        for (id, alloc) in &mut self.allocs {
            alloc.reported = None;
            self.touched.insert(*id);
        }
        self.drop_strays(actions);
    }

    fn orders(&mut self, run: Vec<Assignment>, stop: &[(AllocId, u64)], actions: &mut Vec<Action>) {
        for assignment in run {
            self.order_to_run(assignment);
        }
        for (id, generation) in stop {
            self.order_to_stop(*id, *generation, actions);
        }
    }

    fn order_to_run(&mut self, assignment: Assignment) {
        let id = assignment.id;
        self.touched.insert(id);
        self.dirty.insert(id);
        let Some(alloc) = self.allocs.get_mut(&id) else {
            let mut alloc = Alloc::new(assignment);
            // What an agent without memory of it finds running is taken over.
            for (name, task) in &mut alloc.tasks {
                let key = TaskKey { alloc: id, task: name.clone() };
                match self.strays.remove(&key) {
                    Some((_, found)) => task.found(Some(&found)),
                    None if self.up.contains(task.runtime) => task.found(None),
                    None => {}
                }
                if !self.offered.contains(task.runtime) {
                    alloc.failing =
                        Some(format!("this node does not offer the {} runtime", task.runtime));
                }
            }
            self.allocs.insert(id, alloc);
            return;
        };
        let generation = assignment.grant.generation;
        // An order from a leader that others have passed by.
        if generation < alloc.generation {
            return;
        }
        let newer = generation > alloc.generation;
        if newer && (alloc.stop || alloc.outcome.is_some() || alloc.gone) {
            alloc.stop = false;
            alloc.gone = false;
            alloc.failing = None;
            alloc.outcome = None;
            alloc.tasks.values_mut().for_each(Task::begin_again);
        }
        alloc.generation = generation;
        if newer || *alloc.assignment != assignment {
            alloc.assignment = Arc::new(assignment);
        }
    }

    fn order_to_stop(&mut self, id: AllocId, generation: u64, actions: &mut Vec<Action>) {
        self.touched.insert(id);
        match self.allocs.get_mut(&id) {
            Some(alloc) if generation >= alloc.generation => {
                alloc.generation = generation;
                alloc.stop = true;
                self.dirty.insert(id);
            }
            Some(_) => {}
            // It never came here, or all of it is gone.
            None => actions.push(Action::Report(AllocReport {
                id,
                generation,
                status: AllocStatus::Stopped,
                health: Health::Unknown,
                tasks: BTreeMap::new(),
                message: String::new(),
            })),
        }
    }

    fn let_go(&mut self, id: AllocId) {
        if let Some(alloc) = self.allocs.get_mut(&id) {
            alloc.gone = true;
            self.touched.insert(id);
            self.dirty.insert(id);
        }
    }

    // --- runtimes ---

    fn listed(
        &mut self,
        runtime: &'static str,
        since: u64,
        found: Vec<Found>,
        actions: &mut Vec<Action>,
    ) {
        self.up.insert(runtime);
        let mut by_key: BTreeMap<TaskKey, Found> = BTreeMap::new();
        for found in found {
            // Of two for one task the one that runs counts; the other one is in the way.
            match by_key.get(&found.key) {
                Some(other) if other.running || !found.running => {
                    actions.push(Action::RemoveStray { runtime, found });
                }
                _ => {
                    if let Some(other) = by_key.insert(found.key.clone(), found) {
                        actions.push(Action::RemoveStray { runtime, found: other });
                    }
                }
            }
        }
        for (id, alloc) in &mut self.allocs {
            for (name, task) in alloc.tasks.iter_mut().filter(|(_, task)| task.runtime == runtime) {
                let found = by_key.remove(&TaskKey { alloc: *id, task: name.clone() });
                // A listing from before the last operation says nothing.
                if task.op.is_none() && task.sequence <= since {
                    let before = (task.seen, task.handle.clone());
                    task.found(found.as_ref());
                    if before != (task.seen, task.handle.clone()) {
                        self.dirty.insert(*id);
                    }
                }
            }
            self.touched.insert(*id);
        }
        self.strays.retain(|_, (of, _)| *of != runtime);
        self.strays.extend(by_key.into_iter().map(|(key, found)| (key, (runtime, found))));
        if self.synced {
            self.drop_strays(actions);
        }
    }

    fn drop_strays(&mut self, actions: &mut Vec<Action>) {
        for (_, (runtime, found)) in std::mem::take(&mut self.strays) {
            actions.push(Action::RemoveStray { runtime, found });
        }
    }

    fn down(&mut self, runtime: &'static str, message: &str) {
        self.up.remove(runtime);
        for (id, alloc) in &mut self.allocs {
            for task in alloc.tasks.values_mut().filter(|task| task.runtime == runtime) {
                if task.seen != Seen::Running
                    && task.op.is_none()
                    && task.state.phase != TaskPhase::Ended
                {
                    task.state.error = message.to_owned();
                    self.touched.insert(*id);
                }
            }
        }
    }

    // --- what follows ---

    fn settle(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let held = !self.synced && now < self.held_until;
        for id in std::mem::take(&mut self.touched) {
            let Some(alloc) = self.allocs.get_mut(&id) else { continue };
            let wanted = alloc.wanted();
            let (gone, assignment) = (alloc.gone, alloc.assignment.clone());
            for (name, task) in &mut alloc.tasks {
                if !self.up.contains(task.runtime) {
                    continue;
                }
                let key = TaskKey { alloc: id, task: name.clone() };
                let situation = task::Situation { now, wanted, gone, held };
                if let Some(action) = task.decide(key, &assignment, &situation) {
                    if task.op.is_some() && !matches!(action, Action::CancelStart { .. }) {
                        self.sequence += 1;
                        task.sequence = self.sequence;
                        self.dirty.insert(id);
                    }
                    actions.push(action);
                }
            }
            for (name, task) in &mut alloc.tasks {
                let key = TaskKey { alloc: id, task: name.clone() };
                actions.extend(task.follow_probe(key, &assignment));
            }
            if alloc.gone {
                // A task of a runtime that this agent does not have was never started.
                let unoffered = |task: &Task| !self.offered.contains(task.runtime);
                if alloc.tasks.values().all(|task| task.removed() || unoffered(task)) {
                    self.allocs.remove(&id);
                    self.dirty.remove(&id);
                    actions.push(Action::Drop(id));
                }
                continue;
            }
            if alloc.outcome.is_none() {
                let nowhere = alloc.tasks.values().all(|t| !self.offered.contains(t.runtime));
                let complete = alloc.is_batch() && alloc.tasks.values().all(|task| task.done);
                alloc.outcome = if complete {
                    Some(AllocStatus::Complete)
                } else if !wanted && (alloc.down() || nowhere) {
                    Some(match alloc.failing {
                        Some(_) => AllocStatus::Failed,
                        None => AllocStatus::Stopped,
                    })
                } else {
                    None
                };
                if alloc.outcome.is_some() {
                    alloc.ended_at = now;
                    alloc.tasks.values_mut().for_each(|task| task.state.phase = TaskPhase::Ended);
                }
            } else if now >= alloc.ended_at + Millis(ENDED_ALLOCATION_KEPT_MS) {
                alloc.gone = true;
                self.touched.insert(id);
            }
            let report = alloc.report();
            if alloc.reported.as_ref() != Some(&report) {
                self.dirty.insert(id);
                alloc.reported = Some(report.clone());
                actions.push(Action::Report(report));
            }
        }
        self.bound_ended();
        if !self.touched.is_empty() {
            self.settle(now, actions);
        }
    }

    /// Ended allocations are kept for their logs, but not without end.
    fn bound_ended(&mut self) {
        let ended = |alloc: &&Alloc| alloc.outcome.is_some() && !alloc.gone;
        let count = self.allocs.values().filter(ended).count();
        if count > AGENT_ENDED_KEPT {
            let mut oldest: Vec<_> = self
                .allocs
                .iter()
                .filter(|(_, alloc)| ended(alloc))
                .map(|(id, alloc)| (alloc.ended_at, *id))
                .collect();
            oldest.sort_unstable();
            for (_, id) in oldest.into_iter().take(count - AGENT_ENDED_KEPT) {
                self.let_go(id);
            }
        }
    }

    /// xorshift: enough to keep restarts from falling together.
    fn random(&mut self) -> u64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        self.jitter
    }
}
