//! What the next pass of the planners has to look at, gathered from events and timers.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::model::name::JobId;
use crate::planner::Scope;
use crate::state::{AllocChange, Event, State};

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
    /// Something waits for time to pass until then.
    look_at: Option<Instant>,
    /// The next pass over everything, whatever happens.
    full_at: Instant,
}

impl Agenda {
    /// Of a server that has just begun to lead: everything is due.
    pub(super) fn new(state: &State, now: Instant) -> Self {
        Self {
            cursor: state.last_event(),
            scope: Scope { all: true, jobs: BTreeSet::new() },
            freed: false,
            unplaced: BTreeSet::new(),
            look_at: None,
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
            Event::JobChanged { job, .. } => self.look_again(job.clone()),
            Event::AllocChanged { job, change, status, .. } => {
                self.look_again(job.clone());
                self.freed |= status.ended() || *change == AllocChange::Removed;
            }
            // System jobs, jobs that fit nowhere and jobs with work on the node.
            Event::NodeChanged { .. } | Event::Restored => self.scope.all = true,
            Event::VariableChanged { .. } => {}
        }
    }

    /// A job must be looked at again.
    pub(super) fn look_again(&mut self, job: JobId) {
        if !self.scope.all {
            self.scope.jobs.insert(job);
        }
    }

    /// A pass came to nothing: what it looked at is due again.
    pub(super) fn put_back(&mut self, scope: Scope) {
        self.scope.all |= scope.all;
        self.scope.jobs.extend(scope.jobs);
    }

    /// What is due now; nothing if there is nothing to look at.
    pub(super) fn take(&mut self, now: Instant) -> Option<Scope> {
        if self.look_at.is_some_and(|at| at <= now) || self.full_at <= now {
            self.scope.all = true;
        }
        if self.freed {
            self.scope.jobs.extend(self.unplaced.iter().cloned());
            self.freed = false;
        }
        if self.scope.all {
            self.scope.jobs.clear();
        } else if self.scope.jobs.is_empty() {
            return None;
        }
        Some(std::mem::take(&mut self.scope))
    }

    /// Notes what a pass came to.
    pub(super) fn planned(
        &mut self,
        scope: &Scope,
        unplaced: BTreeSet<JobId>,
        look_at: Option<Instant>,
        next_full: Instant,
    ) {
        if scope.all {
            self.unplaced = unplaced;
            self.look_at = look_at;
            self.full_at = next_full;
            return;
        }
        self.unplaced.retain(|job| !scope.jobs.contains(job));
        self.unplaced.extend(unplaced);
        // What other jobs wait for is still to come.
        self.look_at = self.look_at.into_iter().chain(look_at).min();
    }

    /// When something is due without any event.
    pub(super) fn wake_at(&self) -> Instant {
        self.look_at.map_or(self.full_at, |at| at.min(self.full_at))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::allocation::{AllocStatus, Health};
    use crate::model::name::AllocId;
    use crate::model::node::NodeState;
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

    /// An agenda after its first pass, at `now`.
    fn after_first_pass(now: Instant, unplaced: &[&str]) -> Agenda {
        let mut agenda = Agenda::new(&State::default(), now);
        let scope = agenda.take(now).expect("a new leader looks at everything");
        assert!(scope.all);
        agenda.planned(&scope, jobs(unplaced), None, now + Duration::from_secs(30));
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
        let mut agenda = after_first_pass(now, &["big"]);
        agenda.note(&alloc_event("web", AllocStatus::Stopped));
        let scope = agenda.take(now).expect("something changed");
        assert_eq!(scope.jobs, jobs(&["big", "web"]));
        // It fits now: the next time it is left alone.
        agenda.planned(&scope, BTreeSet::new(), None, now + Duration::from_secs(30));
        agenda.note(&alloc_event("web", AllocStatus::Stopped));
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
        let later = now + Duration::from_secs(1);
        let mut agenda = after_first_pass(now, &[]);
        let scope = Scope { all: false, jobs: jobs(&["web"]) };
        agenda.planned(&scope, BTreeSet::new(), Some(later), now + Duration::from_secs(30));
        assert_eq!(agenda.wake_at(), later);
        assert_eq!(agenda.take(now), None);
        // A pass over other jobs takes nothing away from what this one waits for.
        let other = Scope { all: false, jobs: jobs(&["db"]) };
        agenda.planned(&other, BTreeSet::new(), None, now + Duration::from_secs(30));
        let scope = agenda.take(later).expect("the time has come");
        assert!(scope.all);
        agenda.planned(&scope, BTreeSet::new(), None, later + Duration::from_secs(30));
        assert_eq!(agenda.wake_at(), later + Duration::from_secs(30));
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
