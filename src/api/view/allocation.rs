//! Allocations: rows of `orch ps`, the full record, and log lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Resources;
use super::time::Time;

/// One copy of a job; wanted copies that are not placed have rows too, without id and node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AllocationRow {
    /// The owning project.
    pub project: String,
    /// The job's name in it.
    pub job: String,
    /// The copy's number: `web.0` is the first.
    pub index: u32,
    /// As `a17`; absent if it is not placed.
    pub id: Option<String>,
    /// Where; absent if it is not placed.
    pub node: Option<String>,
    /// Which version of the job.
    pub version: u64,
    /// `pending`, `starting`, `running`, `stopping`, `stopped`, `complete`, `failed`, `lost`.
    pub state: String,
    /// `healthy`, `unhealthy` or `unknown`.
    pub health: String,
    /// Whether it takes traffic.
    #[serde(default)]
    pub ready: bool,
    /// It failed, and nothing takes its place any more.
    #[serde(default)]
    pub gave_up: bool,
    /// Why it is to go elsewhere once its successor is ready; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<String>,
    /// What its checks said last; empty before their first word, and without checks.
    #[serde(default)]
    pub checks: Vec<CheckRow>,
    /// Of its only or first task: container id, or `pid:N` of a process.
    pub container_id: Option<String>,
    /// Host port of each named port.
    pub ports: BTreeMap<String, u16>,
    /// Where its ports are reached: the node's address.
    pub address: Option<String>,
    /// Restarts of all its tasks together.
    pub restarts: u32,
    /// When the last of its tasks started; absent if one has not.
    pub started_at: Option<Time>,
    /// When it was placed.
    pub created_at: Option<Time>,
    /// What is happening or went wrong; why it is not placed. May be empty.
    pub message: String,
}

/// Everything about an allocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AllocationStatus {
    /// The row of the list.
    #[serde(flatten)]
    pub row: AllocationRow,
    /// Each task, by name.
    pub tasks: Vec<TaskRow>,
    /// What it reserves on its node.
    pub reserved: Resources,
    /// Devices by number.
    pub gpus: Vec<u32>,
    /// Why it is to end; absent if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// The one it replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// How many in a row failed before it in this place.
    pub failures: u32,
    /// Status changed.
    pub changed_at: Time,
    /// Health changed.
    pub health_since: Time,
    /// Its story, oldest first.
    pub notes: Vec<NoteRow>,
}

/// One task of an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskRow {
    /// Its name in the job.
    pub task: String,
    /// `pending`, `pulling`, `starting`, `running`, `waiting`, `ended`.
    pub state: String,
    /// Container id, or `pid:N` of a process.
    pub container_id: Option<String>,
    /// Last start.
    pub started_at: Option<Time>,
    /// Last end.
    pub finished_at: Option<Time>,
    /// Of the last end; 128 + N for signal N.
    pub exit_code: Option<i32>,
    /// Killed for want of memory.
    pub oom_killed: bool,
    /// Restarts since it was placed.
    pub restarts: u32,
    /// The last thing that went wrong; may be empty.
    pub error: String,
    /// The end of what it printed before it last failed; may be empty.
    pub output_tail: String,
}

/// What a check of a task said last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckRow {
    /// The task.
    pub task: String,
    /// `health` (it is restarted when this fails) or `readiness` (it takes no traffic meanwhile).
    pub kind: String,
    /// Whether it passes.
    pub passing: bool,
    /// The answer: `GET /health answered 503`; may be empty when it passes.
    pub message: String,
    /// Since when it says so.
    pub since: Time,
}

/// One line of an allocation's story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NoteRow {
    /// When.
    pub at: Time,
    /// What.
    pub text: String,
}

/// One line of output, as a line of `application/x-ndjson`. A stream that can't go on ends with a
/// line that has `error` alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// When it was written: RFC 3339 with nanoseconds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// The copy's number.
    #[serde(default)]
    pub index: u32,
    /// The allocation.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// `stdout` or `stderr`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stream: String,
    /// Without its line end; bytes that are no UTF-8 are replaced.
    #[serde(default)]
    pub line: String,
    /// Why the stream ends here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What a reader should know of this copy, as that it can't be reached for now; no output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// First bytes of the binary frames of an exec connection.
pub mod exec_channel {
    /// To the process; an empty frame ends its input.
    pub const STDIN: u8 = 0;
    /// From the process.
    pub const STDOUT: u8 = 1;
    /// From the process.
    pub const STDERR: u8 = 2;
    /// To the process: an [`super::ExecControl`] as JSON.
    pub const CONTROL: u8 = 3;
    /// The last frame: an [`super::ExecExit`] as JSON.
    pub const EXIT: u8 = 4;
}

/// Sent on an exec connection's control channel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecControl {
    /// The terminal's size has changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<TerminalSize>,
    /// Signal by number, to the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TerminalSize {
    /// Characters of a line.
    pub columns: u32,
    /// Lines.
    pub rows: u32,
}

/// How an exec ended: one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ExecExit {
    /// The process's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// It could not be run, or its agent was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
