//! A placed copy of a job version on a node, and what its agent says of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::job::{JobSpec, Protocol};
use super::name::{AllocId, JobId, NodeName, PortName, TaskName};
use super::resources::Resources;
use super::time::{Millis, Timestamp};

/// One placed copy of a job version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Never used twice.
    pub id: AllocId,
    /// The job.
    pub job: JobId,
    /// Which version of it.
    pub version: u64,
    /// Which replica: `web.0` is the first.
    pub index: u32,
    /// Where.
    pub node: NodeName,
    /// What was decided for it: ports, devices, and the counter that makes older orders void.
    pub grant: Grant,
    /// What it reserves on the node.
    pub reserved: Resources,
    /// Host ports it reserves there, with their transport.
    #[serde(default)]
    pub reserved_ports: Vec<(u16, Protocol)>,
    /// What the cluster wants of it.
    pub desired: Desired,
    /// What its agent said last, or what became of it.
    pub status: AllocStatus,
    /// Whether its liveness checks pass.
    pub health: Health,
    /// Whether it can take traffic.
    #[serde(default)]
    pub ready: bool,
    /// Each task's state; empty until the agent reports.
    #[serde(default)]
    pub tasks: BTreeMap<TaskName, TaskState>,
    /// One line about what is happening or went wrong; may be empty.
    #[serde(default)]
    pub message: String,
    /// The one it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<AllocId>,
    /// How many in a row failed before it in this place.
    #[serde(default)]
    pub failures: u32,
    /// When the first of them was placed anew: failures are counted from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// It failed, and nothing takes its place any more.
    #[serde(default)]
    pub gave_up: bool,
    /// It is to go elsewhere once its successor is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<Move>,
    /// Its node is lost, and its job waits before it is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disconnected_at: Option<Timestamp>,
    /// Placed.
    pub created_at: Timestamp,
    /// Status changed.
    pub changed_at: Timestamp,
    /// Health changed.
    #[serde(default)]
    pub health_since: Timestamp,
    /// Became ready, or ceased to be.
    #[serde(default)]
    pub ready_since: Timestamp,
    /// Its story, oldest first, at most `ALLOCATION_NOTES_KEPT` lines.
    #[serde(default)]
    pub notes: Vec<Note>,
}

impl Allocation {
    /// It can't run any more, or nobody can tell.
    pub fn ended(&self) -> bool {
        self.status.ended()
    }

    /// It is meant to run and has not ended.
    pub fn wanted(&self) -> bool {
        matches!(self.desired, Desired::Run) && !self.ended()
    }

    /// It runs, is meant to, and can take traffic.
    pub fn available(&self) -> bool {
        self.wanted()
            && self.status == AllocStatus::Running
            && self.ready
            && self.disconnected_at.is_none()
    }

    /// Restarts of all its tasks together.
    pub fn restarts(&self) -> u32 {
        self.tasks.values().fold(0, |sum, task| sum.saturating_add(task.restarts))
    }

    /// When the last of its tasks started; none if one has not.
    pub fn started_at(&self) -> Option<Timestamp> {
        self.tasks
            .values()
            .map(|task| task.started_at)
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .max()
    }
}

/// One line of an allocation's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// What.
    pub text: String,
}

/// That an allocation is to go elsewhere without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Why.
    pub reason: StopReason,
    /// Since when.
    pub since: Timestamp,
    /// Where to, if that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<NodeName>,
}

impl Move {
    /// A move that only makes placement better is forgotten when it could not be made for so
    /// long: the place it was meant for is taken.
    const BETTER_PLACE: Millis = Millis::from_secs(600);

    /// Whether it is not meant any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.reason == StopReason::Rebalanced && now.since(self.since) >= Self::BETTER_PLACE
    }
}

/// What the scheduler decided for an allocation; leaves no choice open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Grant {
    /// Host port of each named port.
    #[serde(default)]
    pub ports: BTreeMap<PortName, u16>,
    /// Devices by number.
    #[serde(default)]
    pub gpus: Vec<u32>,
    /// Grows with each change of the order; an agent refuses a lower one.
    pub generation: u64,
    /// Containers of another scheduler's that are its tasks to begin with, by id: no label of
    /// theirs says so, since the engine can't change labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adopted: BTreeMap<TaskName, String>,
}

/// What the cluster wants of an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Desired {
    /// That it runs.
    Run,
    /// That it ends, and why.
    Stop(StopReason),
}

/// Why an allocation is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The user stopped the job.
    JobStopped,
    /// Fewer replicas are wanted.
    ScaledDown,
    /// A new version takes its place.
    Updated,
    /// The node is being emptied.
    Drained,
    /// The node no longer fits the job.
    NodeUnfit,
    /// The batch job's time is up.
    TimedOut,
    /// The node was lost, and another took its place.
    NodeLost,
    /// The user asked for a restart elsewhere.
    Moved,
    /// A job of higher priority needs its room.
    Preempted,
    /// It fits better elsewhere.
    Rebalanced,
    /// Its version failed, and the job goes back to an earlier one.
    Reverted,
    /// The replica that it replaced came back with its node.
    Reconnected,
}

impl StopReason {
    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::JobStopped => "the job was stopped",
            Self::ScaledDown => "fewer replicas are wanted",
            Self::Updated => "a new version takes its place",
            Self::Drained => "its node is being drained",
            Self::NodeUnfit => "its node no longer fits the job",
            Self::TimedOut => "it ran longer than its timeout",
            Self::NodeLost => "its node was lost and it was replaced",
            Self::Moved => "it was moved",
            Self::Preempted => "a job of higher priority needs its room",
            Self::Rebalanced => "it fits better elsewhere",
            Self::Reverted => "its version failed and the job goes back to an earlier one",
            Self::Reconnected => "the replica that it replaced came back with its node",
        }
    }
}

/// How far an allocation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AllocStatus {
    /// Placed; its agent has not said anything of it.
    Pending,
    /// The agent pulls, creates or starts, or waits before it tries again.
    Starting,
    /// All its tasks run.
    Running,
    /// It ended as asked for.
    Stopped,
    /// A batch job's tasks ended with 0.
    Complete,
    /// Its agent gave up.
    Failed,
    /// Its node is lost.
    Lost,
}

impl AllocStatus {
    /// It can't run any more, or nobody can tell.
    pub fn ended(self) -> bool {
        matches!(self, Self::Stopped | Self::Complete | Self::Failed | Self::Lost)
    }

    /// The word users know it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

/// Whether checks pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not known yet.
    #[default]
    Unknown,
    /// All its tasks run, and those with checks pass them.
    Healthy,
    /// A check fails.
    Unhealthy,
}

impl Health {
    /// The word users know it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One task of an allocation, as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct TaskState {
    /// How far it is.
    pub phase: TaskPhase,
    /// Container id, or `pid:N` of a process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Last start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Last end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Of the last end; 128 + N for signal N.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Killed for want of memory.
    pub oom_killed: bool,
    /// Restarts since it was placed.
    pub restarts: u32,
    /// The last thing that went wrong; may be empty.
    pub error: String,
    /// The end of what it printed before it last failed; may be empty.
    pub output_tail: String,
    /// What its liveness check says; none before the first word, or without a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<CheckResult>,
    /// What its readiness check says; none before the first word, or without a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<CheckResult>,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// Whether it passes.
    pub passing: bool,
    /// The answer in words, as `GET /health answered 503`; may be empty when it passes.
    #[serde(default)]
    pub message: String,
    /// Since when it says so.
    pub since: Timestamp,
}

/// How far a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum TaskPhase {
    /// Nothing done yet.
    #[default]
    Pending,
    /// Its image is being fetched.
    Pulling,
    /// Created, being started.
    Starting,
    /// It runs.
    Running,
    /// Waits before the next try.
    Waiting,
    /// It ended for good.
    Ended,
}

/// What an agent is told to run. Sent whole, with the spec it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The allocation.
    pub id: AllocId,
    /// Which version of the job.
    pub version: u64,
    /// Which replica.
    pub index: u32,
    /// Ports, devices, generation.
    pub grant: Grant,
    /// What to run.
    pub spec: Arc<JobSpec>,
}

/// What an agent says of one allocation. Always the whole truth about it, so that a repeated or
/// a skipped report does no harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocReport {
    /// The allocation.
    pub id: AllocId,
    /// The order it acted on.
    pub generation: u64,
    /// How far it is; an agent never says `Pending` or `Lost`.
    pub status: AllocStatus,
    /// Whether liveness checks pass.
    pub health: Health,
    /// Whether it can take traffic: all its tasks run, and those with a readiness check pass it;
    /// those without one are healthy.
    #[serde(default)]
    pub ready: bool,
    /// Each task.
    pub tasks: BTreeMap<TaskName, TaskState>,
    /// One line about what is happening or went wrong; may be empty.
    #[serde(default)]
    pub message: String,
}
