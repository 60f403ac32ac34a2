//! One task: what is known of it, and the next step.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Action;
use super::checks::Tellings;
use crate::agent::order::TaskKey;
use crate::agent::runtime::Found;
use crate::model::allocation::{Assignment, Health, TaskPhase, TaskState};
use crate::model::job::{TaskRuntime, TaskSpec};
use crate::model::time::{Millis, Timestamp};

/// Wait before an operation that failed for no reason of the task's is tried again.
const OP_RETRY: Millis = Millis(1000);

/// What is known of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::agent) enum Seen {
    /// Something has to be asked first.
    #[default]
    Unknown,
    /// There is nothing.
    Absent,
    /// It runs.
    Running,
    /// It has ended, and how is known.
    Ended,
}

/// What is on its way for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::agent) enum Op {
    Start,
    Stop,
    Inspect,
    Remove,
}

/// A runtime's name; one of few fixed words.
type RuntimeWord = &'static str;

/// A task as the agent knows it; kept across restarts of the agent but for what can be asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::agent) struct Task {
    #[serde(skip)]
    pub(super) seen: Seen,
    #[serde(skip)]
    pub(super) op: Option<Op>,
    /// The start on its way is no longer wanted, and whoever carries it out knows.
    #[serde(skip)]
    pub(super) called_off: bool,
    /// Something changed while an operation was on its way.
    #[serde(skip)]
    pub(super) recheck: bool,
    /// Number of the last operation that began or ended.
    #[serde(skip)]
    pub(super) sequence: u64,
    /// Operations other than a start wait until then.
    #[serde(skip)]
    pub(super) retry_at: Timestamp,
    /// The run that is being probed.
    #[serde(skip)]
    pub(super) probed: Option<u64>,
    /// What its checks have to say, and when that was told.
    #[serde(skip)]
    pub(super) tellings: Tellings,
    /// Why an operation on it did not go through.
    #[serde(skip)]
    pub(super) trouble: String,
    #[serde(with = "runtime_word")]
    pub(super) runtime: RuntimeWord,
    stop_grace: Millis,
    pub(super) has_check: bool,
    #[serde(default)]
    pub(super) has_readiness: bool,
    /// Container id or `pid:N`.
    pub(super) handle: Option<String>,
    /// The container of another scheduler's that it is, until one of its own takes its place.
    #[serde(default)]
    pub(super) adopted: Option<String>,
    /// That container, ended, while it is to be removed.
    #[serde(default)]
    pub(super) left: Option<String>,
    /// It was started, and its end is not accounted for yet.
    pub(super) live: bool,
    /// Its container can't be used again.
    pub(super) fresh: bool,
    /// A batch job's task that ended with 0.
    pub(super) done: bool,
    /// It runs and is meant to, but not like this: why.
    pub(super) kill: Option<String>,
    /// It was asked to end because it was not wanted: that it ends is no failure.
    #[serde(default)]
    pub(super) asked: bool,
    /// Counts starts: what is heard of an earlier run is void.
    pub(super) run: u64,
    /// Times of the restarts that count.
    pub(super) recent: VecDeque<Timestamp>,
    /// Not before then.
    pub(super) next_start: Timestamp,
    pub(super) health: Health,
    pub(super) state: TaskState,
}

/// What a decision depends on beside the task.
pub(super) struct Situation {
    pub(super) now: Timestamp,
    pub(super) wanted: bool,
    pub(super) gone: bool,
    pub(super) held: bool,
    /// It is to end, but callers still have to notice.
    pub(super) lingers: bool,
}

impl Task {
    pub(super) fn new(spec: &TaskSpec) -> Self {
        let runtime = match spec.runtime {
            TaskRuntime::Docker { .. } => "docker",
            TaskRuntime::Process => "process",
        };
        Self {
            seen: Seen::Unknown,
            op: None,
            called_off: false,
            recheck: false,
            sequence: 0,
            retry_at: Timestamp(0),
            probed: None,
            tellings: Tellings::default(),
            trouble: String::new(),
            runtime,
            stop_grace: spec.stop_grace,
            has_check: spec.healthcheck.is_some(),
            has_readiness: spec.readiness.is_some(),
            handle: None,
            adopted: None,
            left: None,
            live: false,
            fresh: false,
            done: false,
            kill: None,
            asked: false,
            run: 0,
            recent: VecDeque::new(),
            next_start: Timestamp(0),
            health: Health::Unknown,
            state: TaskState::default(),
        }
    }

    /// It is this container of another scheduler's, if that runs; what follows it is its own.
    pub(super) fn adopt(&mut self, container: &str) {
        self.adopted = Some(container.to_owned());
        self.handle = self.adopted.clone();
        self.fresh = true;
    }

    /// Whether it is a container of another scheduler's, which no listing names.
    pub(super) fn is_adopted(&self) -> bool {
        self.adopted.is_some() && self.adopted == self.handle
    }

    /// The allocation is wanted once more.
    pub(super) fn begin_again(&mut self) {
        self.done = false;
        self.kill = None;
        self.fresh = true;
        self.recent.clear();
        self.next_start = Timestamp(0);
        if self.seen != Seen::Running {
            self.state.phase = TaskPhase::Pending;
            self.state.error.clear();
        }
    }

    /// Which runtime has it.
    pub(in crate::agent) fn runtime(&self) -> &'static str {
        self.runtime
    }

    /// Container id or `pid:N`, while there is one.
    pub(in crate::agent) fn handle(&self) -> Option<&str> {
        self.handle.as_deref()
    }

    /// Whether it is known to run.
    pub(in crate::agent) fn running(&self) -> bool {
        self.seen == Seen::Running
    }

    /// When its last run began.
    pub(in crate::agent) fn started_at(&self) -> Option<Timestamp> {
        self.state.started_at
    }

    /// Nothing of it runs or may run.
    pub(super) fn down(&self) -> bool {
        self.op.is_none() && matches!(self.seen, Seen::Absent | Seen::Ended)
    }

    /// Nothing is left of it.
    pub(super) fn removed(&self) -> bool {
        self.op.is_none() && self.seen == Seen::Absent
    }

    /// What the runtime's list says of it.
    pub(super) fn found(&mut self, found: Option<&Found>) {
        if found.is_none() && self.is_adopted() {
            // No listing has it; it has to be asked about.
            self.recheck |= self.seen == Seen::Running;
            return;
        }
        if found.is_some() {
            self.adopted = None;
        }
        match found {
            Some(found) if found.running => {
                if !self.live || self.handle.as_deref() != Some(&found.handle) {
                    self.live = true;
                    self.new_run();
                }
                self.handle = Some(found.handle.clone());
                self.state.container_id = self.handle.clone();
                // When it started is asked once.
                self.seen = match self.state.started_at {
                    Some(_) if self.state.phase == TaskPhase::Running => Seen::Running,
                    _ => Seen::Unknown,
                };
            }
            Some(found) => {
                let known = self.handle.as_deref() == Some(&found.handle) && !self.live;
                if !(known && self.seen == Seen::Ended) {
                    self.handle = Some(found.handle.clone());
                    self.seen = Seen::Unknown;
                }
            }
            None => {
                if self.live {
                    // Removed behind our back: that it ended is all that can be said.
                    self.seen = Seen::Unknown;
                } else {
                    self.handle = None;
                    self.seen = Seen::Absent;
                }
            }
        }
    }

    /// When its next step is due, if only time keeps it from being done.
    pub(super) fn deadline(&self, wanted: bool, lingers_until: Timestamp) -> Option<Timestamp> {
        let step = self.next_step_at(wanted, lingers_until);
        step.into_iter().chain(self.next_telling()).min()
    }

    fn next_step_at(&self, wanted: bool, lingers_until: Timestamp) -> Option<Timestamp> {
        match self.seen {
            Seen::Absent | Seen::Ended if wanted && !self.done => Some(self.next_start),
            Seen::Unknown if self.handle.is_some() => Some(self.retry_at),
            Seen::Running if self.kill.is_some() => Some(self.retry_at),
            Seen::Running if !wanted => Some(self.retry_at.max(lingers_until)),
            Seen::Ended if !wanted && self.retry_at > Timestamp(0) => Some(self.retry_at),
            _ => None,
        }
    }

    /// The next step; an operation is noted as being on its way.
    pub(super) fn decide(
        &mut self,
        key: TaskKey,
        assignment: &Arc<Assignment>,
        situation: &Situation,
    ) -> Option<Action> {
        let wanted = situation.wanted && !self.done;
        if let Some(op) = self.op {
            let call_off = op == Op::Start && !wanted && !self.called_off;
            self.called_off |= call_off;
            return call_off.then_some(Action::CancelStart { key });
        }
        if std::mem::take(&mut self.recheck) && self.handle.is_some() {
            self.seen = Seen::Unknown;
        }
        let runtime = self.runtime;
        let patient = situation.now < self.retry_at;
        let (op, action) = match (self.seen, self.handle.clone()) {
            (Seen::Unknown, Some(handle)) if !patient => {
                (Op::Inspect, Action::Inspect { key, runtime, handle })
            }
            (Seen::Running, Some(handle))
                if (self.kill.is_some() || (!wanted && !situation.lingers)) && !patient =>
            {
                self.asked = self.kill.is_none();
                (Op::Stop, Action::Stop { key, runtime, handle, grace: self.stop_grace })
            }
            (Seen::Ended, Some(handle)) if situation.gone && !patient => {
                (Op::Remove, Action::Remove { key, runtime, handle })
            }
            (Seen::Absent | Seen::Ended, handle)
                if wanted && !situation.held && situation.now >= self.next_start =>
            {
                let reuse = handle.filter(|_| self.seen == Seen::Ended && !self.fresh);
                self.called_off = false;
                self.state.phase = TaskPhase::Starting;
                (Op::Start, Action::Start { key, assignment: assignment.clone(), reuse })
            }
            _ => return None,
        };
        self.op = Some(op);
        Some(action)
    }

    /// A run begins of which nothing is known.
    pub(super) fn new_run(&mut self) {
        self.run += 1;
        self.asked = false;
        self.forget_checks();
    }

    /// It runs.
    pub(super) fn runs(&mut self, started_at: Timestamp) {
        self.seen = Seen::Running;
        self.live = true;
        self.state.phase = TaskPhase::Running;
        self.state.started_at = Some(started_at);
        self.state.container_id = self.handle.clone();
        self.state.finished_at = None;
        self.state.error.clear();
        if !self.has_check {
            self.health = Health::Healthy;
        }
    }

    /// An operation did not go through for no reason of the task's.
    pub(super) fn try_later(&mut self, now: Timestamp) {
        self.retry_at = now + OP_RETRY;
    }
}

/// Runtimes are known by fixed words.
mod runtime_word {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        word: &super::RuntimeWord,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(word)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<super::RuntimeWord, D::Error> {
        match String::deserialize(d)?.as_str() {
            "docker" => Ok("docker"),
            "process" => Ok("process"),
            other => Err(serde::de::Error::custom(format!("no such runtime: {other}"))),
        }
    }
}
