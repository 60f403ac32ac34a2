//! What the next pass of the planners has to look at, gathered from events and timers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::name::JobId;
use crate::planner::{Plan, Scope};
use crate::state::{AllocChange, Event, State};

/// A planner that wants to be asked again gets at least this much time to have a reason.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(5);
/// The same after a pass over everything, which costs more.
const LOOK_AT_ALL_AGAIN_MIN: Duration = Duration::from_millis(100);

/// Gathers what changed until a pass takes it.
#[derive(Debug)]
pub(super) struct Agenda {
    /// The last event that was looked at.
    cursor: u64,
    scope: Scope,
    /// Room was freed: what fits nowhere may fit now.
    freed: bool,
    /// Jobs with replicas that fitted nowhere at the last pass that looked at them.
    unplaced: BTreeSet<JobId>,
    /// Those of them for which room is being freed: until they have it, nobody else may take it.
    expecting: BTreeSet<JobId>,
    /// What waits for time to pass.
    looks: BTreeMap<Instant, Scope>,
    /// The next pass over everything, whatever happens.
    full_at: Instant,
}

impl Agenda {
    /// Of a server that has just begun to lead: everything is due.
    pub(super) fn new(state: &State, now: Instant) -> Self {
        Self {
            cursor: state.last_event(),
            scope: Scope { all: true, ..Scope::default() },
            freed: false,
            unplaced: BTreeSet::new(),
            expecting: BTreeSet::new(),
            looks: BTreeMap::new(),
            full_at: now,
        }
    }

    /// Notes what happened since the last look at the state.
    pub(super) fn follow(&mut self, state: &State) {
        match state.events_after(self.cursor) {
            Ok(events) => events.iter().for_each(|record| self.note(&record.event)),
            // More happened than is kept: anything may have changed.
            Err(_) => self.scope.all = true,
        }
        self.cursor = state.last_event();
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::JobChanged { job, .. } | Event::DeploymentChanged { job, .. } => {
                self.look_again([job.clone()])
            }
            Event::AllocChanged { job, change, status, .. } => {
                self.look_again([job.clone()]);
                self.freed |= status.ended() || *change == AllocChange::Removed;
            }
            // System jobs, jobs that fit nowhere and jobs with work on the node.
            Event::NodeChanged { .. } | Event::Restored => self.scope.all = true,
            Event::VariableChanged { .. } => {}
        }
    }

    /// These jobs must be looked at again.
    pub(super) fn look_again(&mut self, jobs: impl IntoIterator<Item = JobId>) {
        self.scope.jobs.extend(jobs);
    }

    /// A pass came to nothing: what it looked at is due again.
    pub(super) fn put_back(&mut self, scope: Scope) {
        self.scope.all |= scope.all;
        self.scope.jobs.extend(scope.jobs);
    }

    /// What is due now; nothing if there is nothing to look at.
    pub(super) fn take(&mut self, now: Instant) -> Option<Scope> {
        while let Some(first) = self.looks.first_entry().filter(|first| *first.key() <= now) {
            let scope = first.remove();
            self.put_back(scope);
        }
        self.scope.all |= self.full_at <= now;
        if self.freed {
            self.scope.jobs.extend(self.unplaced.iter().cloned());
            self.freed = false;
        }
        if self.scope.all {
            self.scope.jobs.clear();
        } else if self.scope.jobs.is_empty() {
            return None;
        } else {
            self.scope.jobs.extend(self.expecting.iter().cloned());
        }
        Some(std::mem::take(&mut self.scope))
    }

    /// Notes what a pass at `now` came to; its planners want another look after `look_in`.
    pub(super) fn planned(
        &mut self,
        scope: &Scope,
        plan: &Plan,
        look_in: Option<Duration>,
        now: Instant,
        full_pass: Duration,
    ) {
        if scope.all {
            self.unplaced.clear();
            self.expecting.clear();
            self.looks.clear();
            self.full_at = now + full_pass;
        } else {
            self.unplaced.retain(|job| !scope.jobs.contains(job));
            self.expecting.retain(|job| !scope.jobs.contains(job));
        }
        self.unplaced.extend(plan.unplaced.keys().cloned());
        let expecting = plan.unplaced.iter().filter(|(_, unplaced)| unplaced.is_expected());
        self.expecting.extend(expecting.map(|(job, _)| job.clone()));
        if let Some(look_in) = look_in {
            let least = if scope.all { LOOK_AT_ALL_AGAIN_MIN } else { LOOK_AGAIN_MIN };
            let look = self.looks.entry(now + look_in.max(least)).or_default();
            // Without any job it is about nodes.
            look.all |= scope.all || scope.jobs.is_empty();
            look.jobs.extend(scope.jobs.iter().cloned());
        }
    }

    /// When something is due without any event.
    pub(super) fn wake_at(&self) -> Instant {
        let look = self.looks.keys().next().copied();
        look.map_or(self.full_at, |at| at.min(self.full_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::allocation::{AllocStatus, Health};
    use crate::model::name::AllocId;
    use crate::model::node::NodeState;
    use crate::planner::Unplaced;
    use crate::planner::scheduler::{Refusal, Refusals};
    use crate::state::{JobChange, NodeChange};

    fn job(name: &str) -> JobId {
        name.parse().expect("a valid name")
    }

    fn jobs(names: &[&str]) -> BTreeSet<JobId> {
        names.iter().map(|name| job(name)).collect()
    }

    fn job_event(name: &str) -> Event {
        Event::JobChanged { job: job(name), version: 1, change: JobChange::Created }
    }

    fn alloc_event(name: &str, status: AllocStatus) -> Event {
        Event::AllocChanged {
            alloc: AllocId(1),
            job: job(name),
            index: 0,
            node: "n1".parse().expect("a valid name"),
            change: AllocChange::Status,
            status,
            health: Health::Unknown,
            message: String::new(),
        }
    }

    const FULL: Duration = Duration::from_secs(30);

    fn unplaced(names: &[&str]) -> Plan {
        let unplaced = Unplaced { count: 1, refusals: Refusals::default() };
        let unplaced = names.iter().map(|name| (job(name), unplaced.clone())).collect();
        Plan { unplaced, ..Plan::default() }
    }

    /// An agenda after its first pass, at `now`.
    fn after_first_pass(now: Instant, full: &[&str]) -> Agenda {
        let mut agenda = Agenda::new(&State::default(), now);
        let scope = agenda.take(now).expect("a new leader looks at everything");
        assert!(scope.all);
        agenda.planned(&scope, &unplaced(full), None, now, FULL);
        assert_eq!(agenda.take(now), None);
        agenda
    }

    #[test]
    fn only_the_jobs_that_changed_are_looked_at() {
        let now = Instant::now();
        let mut agenda = after_first_pass(now, &["big"]);
        agenda.note(&job_event("web"));
        agenda.note(&alloc_event("db", AllocStatus::Running));
        let scope = agenda.take(now).expect("something changed");
        assert_eq!(scope, Scope { all: false, jobs: jobs(&["db", "web"]) });
        assert_eq!(agenda.take(now), None);
    }

    #[test]
    fn freed_room_brings_back_what_fitted_nowhere() {
        let now = Instant::now();
        let mut agenda = after_first_pass(now, &["big", "other"]);
        agenda.note(&alloc_event("web", AllocStatus::Stopped));
        let scope = agenda.take(now).expect("something changed");
        assert_eq!(scope.jobs, jobs(&["big", "other", "web"]));
        // One fits now: the next time it is left alone.
        agenda.planned(&scope, &unplaced(&["other"]), None, now, FULL);
        agenda.note(&alloc_event("web", AllocStatus::Stopped));
        assert_eq!(agenda.take(now).map(|scope| scope.jobs), Some(jobs(&["other", "web"])));
    }

    #[test]
    fn whoever_room_is_being_freed_for_is_looked_at_with_everyone_else() {
        let now = Instant::now();
        let mut agenda = after_first_pass(now, &[]);
        let freed = Refusal::BeingFreed { node: "n1".parse().expect("a valid name") };
        let unplaced = Unplaced { count: 1, refusals: Refusals::only(freed) };
        let plan = Plan { unplaced: [(job("big"), unplaced)].into(), ..Plan::default() };
        let big = Scope { all: false, jobs: jobs(&["big"]) };
        agenda.planned(&big, &plan, None, now, FULL);
        assert_eq!(agenda.take(now), None, "it is no reason to look by itself");
        agenda.note(&alloc_event("web", AllocStatus::Running));
        assert_eq!(agenda.take(now).map(|scope| scope.jobs), Some(jobs(&["big", "web"])));
        agenda.planned(&big, &Plan::default(), None, now, FULL);
        agenda.note(&alloc_event("web", AllocStatus::Running));
        assert_eq!(agenda.take(now).map(|scope| scope.jobs), Some(jobs(&["web"])));
    }

    #[test]
    fn a_change_of_nodes_or_of_the_whole_state_is_a_full_pass() {
        let now = Instant::now();
        let node = Event::NodeChanged {
            node: "n1".parse().expect("a valid name"),
            change: NodeChange::Joined,
            state: NodeState::Ready,
            message: String::new(),
        };
        for event in [node, Event::Restored] {
            let mut agenda = after_first_pass(now, &[]);
            agenda.note(&job_event("web"));
            agenda.note(&event);
            let scope = agenda.take(now).expect("something changed");
            assert_eq!(scope, Scope { all: true, jobs: BTreeSet::new() });
        }
    }

    #[test]
    fn time_passing_is_a_reason_to_look() {
        let now = Instant::now();
        let (wait, later) = (Duration::from_secs(1), now + Duration::from_secs(1));
        let mut agenda = after_first_pass(now, &[]);
        let web = Scope { all: false, jobs: jobs(&["web"]) };
        agenda.planned(&web, &Plan::default(), Some(wait), now, FULL);
        assert_eq!(agenda.wake_at(), later);
        // A pass over other jobs takes nothing away from what this one waits for.
        let other = Scope { all: false, jobs: jobs(&["db"]) };
        agenda.planned(&other, &Plan::default(), None, now, FULL);
        assert_eq!(agenda.take(now), None);
        assert_eq!(agenda.take(later), Some(web));
        assert_eq!(agenda.wake_at(), now + FULL);
        assert!(agenda.take(now + FULL).is_some_and(|scope| scope.all));
    }

    #[test]
    fn a_planner_that_looks_again_at_once_is_held_back() {
        let now = Instant::now();
        let mut agenda = after_first_pass(now, &[]);
        let web = Scope { all: false, jobs: jobs(&["web"]) };
        agenda.planned(&web, &Plan::default(), Some(Duration::ZERO), now, FULL);
        assert_eq!(agenda.wake_at(), now + LOOK_AGAIN_MIN);
    }

    #[test]
    fn a_pass_that_failed_is_due_again() {
        let now = Instant::now();
        let mut agenda = after_first_pass(now, &[]);
        agenda.note(&job_event("web"));
        let scope = agenda.take(now).expect("something changed");
        agenda.put_back(scope.clone());
        assert_eq!(agenda.take(now), Some(scope));
    }
}
