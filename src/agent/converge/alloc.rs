//! One allocation: what is known of it, and what is said of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::task::{Seen, Task};
use crate::limits::{MESSAGE_BYTES_MAX, OUTPUT_TAIL_BYTES_MAX};
use crate::model::allocation::{
    AllocReport, AllocStatus, Assignment, Health, TaskPhase, TaskState,
};
use crate::model::job::JobKind;
use crate::model::name::TaskName;
use crate::model::time::Timestamp;

/// An allocation as the agent knows it; kept across restarts of the agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::agent) struct Alloc {
    pub(in crate::agent) assignment: Arc<Assignment>,
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
    pub(in crate::agent) outcome: Option<AllocStatus>,
    #[serde(default)]
    pub(super) ended_at: Timestamp,
    /// Nobody wants it any more: end it and remove all of it.
    #[serde(default)]
    pub(in crate::agent) gone: bool,
    /// It could take traffic when that was last looked at.
    #[serde(default)]
    was_ready: bool,
    /// When it last ceased to be ready; none if it is, or never was.
    #[serde(default)]
    left_at: Option<Timestamp>,
    /// No server is heard since then.
    #[serde(default)]
    pub(super) unheard_since: Option<Timestamp>,
    /// It was ended for that, and nothing else.
    #[serde(default)]
    pub(super) cut_off: bool,
    pub(in crate::agent) tasks: BTreeMap<TaskName, Task>,
    #[serde(skip)]
    pub(super) reported: Option<AllocReport>,
    /// The leader may not have what was said.
    #[serde(skip)]
    pub(super) say_again: bool,
}

impl Alloc {
    pub(super) fn new(assignment: Assignment) -> Self {
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
            was_ready: false,
            left_at: None,
            unheard_since: None,
            cut_off: false,
            reported: None,
            say_again: false,
        }
    }

    pub(super) fn is_batch(&self) -> bool {
        matches!(self.assignment.spec.kind, JobKind::Batch { .. })
    }

    /// Whether its tasks are to run.
    pub(super) fn wanted(&self) -> bool {
        !self.gone
            && !self.stop
            && !self.cut_off
            && self.failing.is_none()
            && self.outcome.is_none()
    }

    /// Whether it can take traffic.
    fn ready(&self) -> bool {
        self.wanted()
            && self.status() == AllocStatus::Running
            && self.tasks.values().all(Task::ready)
    }

    /// Notes when it ceases to be ready.
    pub(super) fn follow_ready(&mut self, now: Timestamp) {
        let ready = self.ready();
        if ready {
            self.left_at = None;
        } else if self.was_ready {
            self.left_at = Some(now);
        }
        // A clock that was set back must not make it linger longer.
        self.left_at = self.left_at.map(|at| at.min(now));
        self.was_ready = ready;
    }

    /// Until when it runs on though it is to stop, so that callers have time to notice. What
    /// nobody called in the last while does not linger.
    pub(super) fn lingers_until(&self) -> Timestamp {
        let spec = &self.assignment.spec;
        let callable = self.stop && !self.is_batch() && spec.ports().next().is_some();
        match self.left_at {
            Some(at) if callable && !self.gone && !self.cut_off && self.failing.is_none() => {
                at + spec.shutdown_delay
            }
            _ => Timestamp(0),
        }
    }

    /// Whether nothing of it runs or may run.
    pub(super) fn down(&self) -> bool {
        self.tasks.values().all(Task::down)
    }

    fn status(&self) -> AllocStatus {
        // A task that is being asked about is taken for what it was.
        let up = |task: &Task| {
            task.seen == Seen::Running || task.done || (task.seen == Seen::Unknown && task.live)
        };
        match self.outcome {
            Some(outcome) => outcome,
            None if self.tasks.values().all(up) => AllocStatus::Running,
            // What is on its way down was last known to run.
            None if !self.wanted()
                && !self.down()
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
        if self.only_cut_off() && self.outcome.is_none() {
            return self.cut_off_message();
        }
        let alone = self.tasks.len() == 1;
        for (name, task) in &self.tasks {
            let text = match task.state.phase {
                TaskPhase::Pulling => "fetching its image".to_owned(),
                TaskPhase::Waiting | TaskPhase::Pending => task.state.error.clone(),
                TaskPhase::Running => match &task.kill {
                    Some(reason) => reason.clone(),
                    None if task.trouble.is_empty() => task.unfit(),
                    None => task.trouble.clone(),
                },
                _ => String::new(),
            };
            if !text.is_empty() {
                return if alone { text } else { format!("{name}: {text}") };
            }
        }
        String::new()
    }

    pub(super) fn report(&self) -> AllocReport {
        AllocReport {
            id: self.assignment.id,
            generation: self.generation,
            status: self.status(),
            health: self.health(),
            ready: self.ready(),
            tasks: self
                .tasks
                .iter()
                .map(|(name, task)| (name.clone(), bounded(&task.state)))
                .collect(),
            message: cut(&self.message()),
        }
    }
}

/// As much as the leader takes of one task.
fn bounded(state: &TaskState) -> TaskState {
    let from = state.output_tail.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX);
    let from = state.output_tail.ceil_char_boundary(from);
    let output_tail = state.output_tail[from..].to_owned();
    TaskState { error: cut(&state.error), output_tail, ..state.clone() }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)].to_owned()
}
