//! What follows from checks: a task that is not alive is restarted, one that is not ready is not
//! called; and how often the reasons are told.

use super::Action;
use super::event::{CheckKind, Finding};
use super::machine::Converge;
use super::task::{Op, Seen, Task};
use crate::agent::order::TaskKey;
use crate::model::allocation::{Assignment, CheckResult, Health};
use crate::model::time::{Millis, Timestamp};
use std::sync::Arc;

/// Between two reasons of a check that goes on failing: a text with a counter in it must not be
/// told each time.
const REASON_PAUSE: Millis = Millis::from_secs(5);

/// When a check's reason was told, and the one that waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Telling {
    at: Timestamp,
    later: Option<String>,
}

/// One for each kind of check.
#[derive(Debug, Clone, Default)]
pub(super) struct Tellings {
    liveness: Telling,
    readiness: Telling,
}

impl Converge {
    /// Takes in what a check of a task's `run`-th run has found out.
    pub(super) fn checked(
        &mut self,
        now: Timestamp,
        key: &TaskKey,
        run: u64,
        kind: CheckKind,
        finding: Finding,
    ) {
        self.with(key, |task, _| {
            if task.run != run || task.seen != Seen::Running || task.kill.is_some() {
                return;
            }
            match (kind, &finding) {
                (CheckKind::Liveness, Finding::Passes) => task.health = Health::Healthy,
                (CheckKind::Liveness, Finding::Fails(reason)) => {
                    task.health = Health::Unhealthy;
                    task.kill = Some(format!("health check failed: {reason}"));
                }
                (CheckKind::Liveness, Finding::NotYet(_)) | (CheckKind::Readiness, _) => {}
            }
            task.found_out(now, kind, finding);
        });
    }
}

impl Task {
    fn found_out(&mut self, now: Timestamp, kind: CheckKind, finding: Finding) {
        let (passing, message) = match finding {
            Finding::Passes => (true, String::new()),
            Finding::Fails(reason) | Finding::NotYet(reason) => (false, reason),
        };
        let (known, telling) = match kind {
            CheckKind::Liveness => (&mut self.state.liveness, &mut self.tellings.liveness),
            CheckKind::Readiness => (&mut self.state.readiness, &mut self.tellings.readiness),
        };
        match known {
            Some(known) if known.passing == passing => {
                telling.later = (known.message != message).then_some(message);
            }
            _ => {
                *known = Some(CheckResult { passing, message, since: now });
                *telling = Telling { at: now, later: None };
            }
        }
        self.tell_reasons(now);
    }

    /// Takes over the reasons that have waited long enough.
    pub(super) fn tell_reasons(&mut self, now: Timestamp) {
        let Tellings { liveness, readiness } = &mut self.tellings;
        let state = &mut self.state;
        for (known, telling) in [(&mut state.liveness, liveness), (&mut state.readiness, readiness)]
        {
            if let Some(known) = known
                && now >= telling.at + REASON_PAUSE
                && let Some(reason) = telling.later.take()
            {
                known.message = reason;
                telling.at = now;
            }
        }
    }

    /// When the next reason has waited long enough.
    pub(super) fn next_telling(&self) -> Option<Timestamp> {
        let Tellings { liveness, readiness } = &self.tellings;
        [liveness, readiness]
            .into_iter()
            .filter(|telling| telling.later.is_some())
            .map(|telling| telling.at + REASON_PAUSE)
            .min()
    }

    /// Nothing is known of its checks: it begins, or has ended.
    pub(super) fn forget_checks(&mut self) {
        self.health = Health::Unknown;
        self.state.liveness = None;
        self.state.readiness = None;
        self.tellings = Tellings::default();
        self.trouble.clear();
    }

    /// Whether it can take traffic: its readiness check passes; without one, it is healthy.
    pub(super) fn ready(&self) -> bool {
        if self.done {
            return true;
        }
        // A task that is being asked about is taken for what it was.
        let up = self.seen == Seen::Running || (self.seen == Seen::Unknown && self.live);
        let passes = match self.has_readiness {
            true => self.state.readiness.as_ref().is_some_and(|result| result.passing),
            false => self.health == Health::Healthy,
        };
        up && self.kill.is_none() && passes
    }

    /// What keeps it from being alive or ready, in words; empty if nothing does.
    pub(super) fn unfit(&self) -> String {
        let failing = |result: &Option<CheckResult>| {
            result.as_ref().filter(|result| !result.passing).map(|result| result.message.clone())
        };
        match (failing(&self.state.liveness), failing(&self.state.readiness)) {
            (Some(reason), _) => format!("not healthy: {reason}"),
            (None, Some(reason)) => format!("not ready: {reason}"),
            (None, None) => String::new(),
        }
    }

    /// Starts and ends its checks as it comes and goes.
    pub(super) fn follow_checks(
        &mut self,
        key: TaskKey,
        assignment: &Arc<Assignment>,
        actions: &mut Vec<Action>,
    ) {
        let kinds = [
            self.has_check.then_some(CheckKind::Liveness),
            self.has_readiness.then_some(CheckKind::Readiness),
        ];
        if kinds == [None, None] {
            return;
        }
        let up = self.seen == Seen::Running && self.kill.is_none() && self.op != Some(Op::Stop);
        match (&self.handle, self.probed) {
            (Some(handle), probed) if up && probed != Some(self.run) => {
                self.probed = Some(self.run);
                actions.extend(kinds.into_iter().flatten().map(|kind| Action::Probe {
                    key: key.clone(),
                    run: self.run,
                    kind,
                    assignment: assignment.clone(),
                    handle: handle.clone(),
                }));
            }
            (_, Some(_)) if !up => {
                self.probed = None;
                actions.push(Action::EndProbes { key });
            }
            _ => {}
        }
    }
}
