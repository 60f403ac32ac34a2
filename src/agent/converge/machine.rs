//! Takes events in, and says what to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::alloc::Alloc;
use super::event::{Action, Event, Everything};
use super::task::{Seen, Situation, Task};
use super::unknown::Unknown;
use crate::agent::order::TaskKey;
use crate::agent::runtime::Found;
use crate::limits::{AGENT_ENDED_KEPT, ENDED_ALLOCATION_KEPT_MS};
use crate::model::allocation::{AllocStatus, Assignment, TaskPhase};
use crate::model::name::AllocId;
use crate::model::time::{Millis, Timestamp};

/// How long a starting agent waits for the leader's word before it starts what does not run:
/// its orders may be old.
const STARTS_HELD: Millis = Millis::from_secs(5);

/// Compares and decides.
#[derive(Debug)]
pub(in crate::agent) struct Converge {
    pub(super) allocs: BTreeMap<AllocId, Alloc>,
    /// Runtimes this agent has at all.
    pub(super) offered: BTreeSet<&'static str>,
    /// Those that answer.
    pub(super) up: BTreeSet<&'static str>,
    /// Those that have ever answered.
    pub(super) ever_up: BTreeSet<&'static str>,
    /// What is to be stopped and is not known.
    pub(super) unknown: BTreeMap<AllocId, Unknown>,
    /// Something depends on what runtimes have now.
    pub(super) list_wanted: bool,
    /// What runtimes have that belongs to nobody known, until the leader has spoken.
    strays: BTreeMap<TaskKey, (&'static str, Found)>,
    /// The leader has spoken since the agent started.
    synced: bool,
    /// Before then, and before the leader has spoken, nothing new is started.
    pub(super) held_until: Timestamp,
    /// Counts operations, to tell a listing from before from one after.
    pub(super) sequence: u64,
    pub(super) touched: BTreeSet<AllocId>,
    pub(super) dirty: BTreeSet<AllocId>,
    jitter: u64,
}

impl Converge {
    /// With what an earlier life of the agent knew. `seed` is for jitter.
    pub(in crate::agent) fn new(
        mut known: BTreeMap<AllocId, Alloc>,
        offered: BTreeSet<&'static str>,
        now: Timestamp,
        seed: u64,
    ) -> Self {
        let touched = known.keys().copied().collect();
        for alloc in known.values_mut() {
            alloc.unheard_since.get_or_insert(now);
        }
        Self {
            allocs: known,
            offered,
            up: BTreeSet::new(),
            ever_up: BTreeSet::new(),
            unknown: BTreeMap::new(),
            list_wanted: false,
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
    pub(in crate::agent) fn allocs(&self) -> &BTreeMap<AllocId, Alloc> {
        &self.allocs
    }

    /// A listing begins now: its result is to name this number.
    pub(in crate::agent) fn listing(&self) -> u64 {
        self.sequence
    }

    /// Allocations that have changed since this was last asked.
    pub(in crate::agent) fn take_dirty(&mut self) -> BTreeSet<AllocId> {
        std::mem::take(&mut self.dirty)
    }

    /// Takes an event in and says what to do.
    pub(in crate::agent) fn handle(&mut self, now: Timestamp, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Sync(everything) => self.sync(everything, &mut actions),
            Event::Orders { run, stop, forget } => {
                self.orders(run, &stop);
                for id in forget {
                    self.unknown.remove(&id);
                    self.let_go(id);
                }
            }
            Event::Listed { runtime, since, found } => {
                self.listed(runtime, since, found, &mut actions);
            }
            Event::Down { runtime, message } => self.down(runtime, &message),
            Event::LineDown { silent_for } => self.line_down(now, silent_for),
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
        self.answer_unknown(now, &mut actions);
        actions
    }

    /// When something is due next that no event will announce.
    pub(in crate::agent) fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let answers = Some(self.held_until).filter(|_| !self.unknown.is_empty());
        let answers = answers.filter(|at| now < *at);
        let allocs = self.allocs.values().filter_map(|alloc| self.deadline_of(alloc, now));
        allocs.chain(answers).min()
    }

    fn deadline_of(&self, alloc: &Alloc, now: Timestamp) -> Option<Timestamp> {
        if alloc.outcome.is_some() && !alloc.gone {
            return Some(alloc.ended_at + Millis(ENDED_ALLOCATION_KEPT_MS));
        }
        let (wanted, lingers_until) = (alloc.wanted(), alloc.lingers_until());
        let held = if self.synced { Timestamp(0) } else { self.held_until };
        alloc
            .tasks
            .values()
            .filter(|task| task.op.is_none() && self.up.contains(task.runtime))
            .filter_map(|task| task.deadline(wanted, lingers_until))
            .map(|at| if wanted { at.max(held) } else { at })
            .chain(alloc.cut_off_at())
            .min()
            .map(|at| at.max(now))
    }

    fn due(&self, now: Timestamp) -> Vec<AllocId> {
        let due = |alloc: &Alloc| self.deadline_of(alloc, now).is_some_and(|at| at <= now);
        self.allocs.iter().filter(|(_, alloc)| due(alloc)).map(|(id, _)| *id).collect()
    }

    // --- orders ---

    fn sync(&mut self, everything: Everything, actions: &mut Vec<Action>) {
        let Everything { run, stop, mut ended } = everything;
        self.synced = true;
        self.unknown.clear();
        self.heard();
        // What runs here all the same was counted as lost, and replaced.
        for id in &ended {
            if let Some(alloc) = self.allocs.get_mut(id)
                && alloc.outcome.is_none()
            {
                alloc.stop = true;
                self.dirty.insert(*id);
            }
        }
        ended.extend(run.iter().map(|order| order.id));
        ended.extend(stop.iter().map(|(id, _)| *id));
        let named = ended;
        self.orders(run, &stop);
        let unnamed: Vec<_> =
            self.allocs.keys().filter(|id| !named.contains(id)).copied().collect();
        unnamed.into_iter().for_each(|id| self.let_go(id));
        // The leader may not have what was said to another one.
        for (id, alloc) in &mut self.allocs {
            alloc.say_again = true;
            self.touched.insert(*id);
        }
        self.drop_strays(actions);
    }

    fn orders(&mut self, run: Vec<Assignment>, stop: &[(AllocId, u64)]) {
        for assignment in run {
            self.order_to_run(assignment);
        }
        for (id, generation) in stop {
            self.order_to_stop(*id, *generation);
        }
    }

    fn order_to_run(&mut self, assignment: Assignment) {
        let id = assignment.id;
        self.unknown.remove(&id);
        self.touched.insert(id);
        self.dirty.insert(id);
        let Some(alloc) = self.allocs.get_mut(&id) else {
            let mut alloc = Alloc::new(assignment);
            // What an agent without memory of it finds running is taken over.
            for (name, task) in &mut alloc.tasks {
                let key = TaskKey { alloc: id, task: name.clone() };
                let adopted = alloc.assignment.grant.adopted.get(name);
                match (self.strays.remove(&key), adopted) {
                    (Some((_, found)), _) => task.found(Some(&found)),
                    (None, Some(container)) => task.adopt(container),
                    (None, None) if self.up.contains(task.runtime) => task.found(None),
                    (None, None) => {}
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
        let over = matches!(alloc.outcome, Some(AllocStatus::Complete | AllocStatus::Failed));
        if newer && over {
            // What came to an end by itself stays ended: it is reported again.
            alloc.stop = false;
            alloc.gone = false;
        } else if newer && (alloc.stop || alloc.outcome.is_some() || alloc.gone) {
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

    fn order_to_stop(&mut self, id: AllocId, generation: u64) {
        self.touched.insert(id);
        match self.allocs.get_mut(&id) {
            Some(alloc) if generation >= alloc.generation => {
                alloc.generation = generation;
                alloc.stop = true;
                self.dirty.insert(id);
            }
            Some(_) => {}
            // It never came here, or all of it is gone, or this agent has lost its memory.
            None => self.stop_unknown(id, generation),
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
        self.ever_up.insert(runtime);
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
        self.look_for_unknown(runtime, &by_key);
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
            if alloc.cut_off_at().is_some_and(|at| now >= at) {
                alloc.cut_off = true;
                self.dirty.insert(id);
            }
            alloc.tasks.values_mut().for_each(|task| task.tell_reasons(now));
            alloc.follow_ready(now);
            let (wanted, lingers) = (alloc.wanted(), now < alloc.lingers_until());
            let (gone, assignment) = (alloc.gone, alloc.assignment.clone());
            for (name, task) in &mut alloc.tasks {
                if !self.up.contains(task.runtime) {
                    continue;
                }
                let key = TaskKey { alloc: id, task: name.clone() };
                let situation = Situation { now, wanted, gone, held, lingers };
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
                if let Some(handle) = task.left.take() {
                    let found = Found { key: key.clone(), handle, running: false };
                    actions.push(Action::RemoveStray { runtime: task.runtime, found });
                }
                task.follow_checks(key, &assignment, actions);
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
                } else if !wanted && !alloc.only_cut_off() && (alloc.down() || nowhere) {
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
            let news = alloc.reported.as_ref() != Some(&report);
            if news {
                self.dirty.insert(id);
            }
            if std::mem::take(&mut alloc.say_again) || news {
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
    pub(super) fn random(&mut self) -> u64 {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        self.jitter
    }
}
