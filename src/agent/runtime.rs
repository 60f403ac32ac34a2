//! What the agent needs of anything that runs tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::order::{Owner, TaskKey, TaskOrder};
use crate::limits::OUTPUT_TAIL_BYTES_MAX;
use crate::model::time::Timestamp;

/// Why a runtime did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum RuntimeError {
    /// It does not answer at all: nothing is known, and it is not the task's fault.
    #[error("{0}")]
    Unavailable(String),
    /// The image is not there, and pulling it may help.
    #[error("{0}")]
    ImageMissing(String),
    /// There is no such container or process.
    #[error("{0}")]
    NotFound(String),
    /// It can't be done; the text names the engine's own reason.
    #[error("{0}")]
    Failed(String),
    /// The work was called off.
    #[error("called off")]
    Cancelled,
}

/// A task that a runtime has, running or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Whose.
    pub(super) key: TaskKey,
    /// Container id or `pid:N`.
    pub(super) handle: String,
    /// Whether it runs.
    pub(super) running: bool,
}

/// How a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// It runs.
    Running {
        /// Since when, if the runtime knows.
        started_at: Option<Timestamp>,
    },
    /// It has ended.
    Ended(Exit),
    /// There is nothing, or nothing that has ever run.
    Absent,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Exit {
    /// 128 + N for signal N.
    pub(super) code: i32,
    /// Killed for want of memory.
    pub(super) oom_killed: bool,
    /// When, if the runtime knows.
    pub(super) finished_at: Option<Timestamp>,
    /// What the runtime itself had to say; may be empty.
    pub(super) error: String,
    /// The end of what it printed.
    pub(super) tail: String,
}

/// One line of a task's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Nanoseconds since 1970.
    pub(super) at: u64,
    /// Whether it came on standard error.
    pub(super) stderr: bool,
    /// Without its line end.
    pub(super) text: Bytes,
}

/// Which lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LogQuery {
    /// Go on with what comes until the task ends.
    pub(super) follow: bool,
    /// Lines from the end to begin with; absent: all.
    pub(super) tail: Option<u32>,
    /// Only lines after that nanosecond since 1970.
    pub(super) after: u64,
}

/// A command to run inside a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ExecOrder {
    /// Its words.
    pub(super) command: Vec<String>,
    /// Whether it reads input.
    pub(super) stdin: bool,
    /// Whether it gets a terminal.
    pub(super) tty: bool,
    /// The terminal's size.
    pub(super) columns: u16,
    /// The terminal's size.
    pub(super) rows: u16,
}

/// What goes into a command that runs inside a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExecInput {
    /// Bytes for its standard input.
    Stdin(Bytes),
    /// Its standard input ends.
    StdinEnd,
    /// The terminal's new size.
    Resize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// A signal by number.
    Signal(i32),
}

/// What comes out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExecOutput {
    /// Standard output, or the terminal's.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
}

/// The result of asking a runtime.
pub(super) type Answer<'a, T> = BoxFuture<'a, Result<T, RuntimeError>>;

/// Something that runs tasks.
pub(super) trait Runtime: Send + Sync + std::fmt::Debug {
    /// Its name, as nodes list it.
    fn word(&self) -> &'static str;

    /// Everything of that owner's it has, running or ended.
    fn list<'a>(&'a self, owner: &'a Owner) -> Answer<'a, Vec<Found>>;

    /// Says on `sink` what changes by itself, and what has changed since `since`. Ends when the
    /// runtime goes away, which makes everything it said before void.
    fn watch<'a>(
        &'a self,
        owner: &'a Owner,
        since: Timestamp,
        sink: mpsc::Sender<TaskKey>,
    ) -> Answer<'a, ()>;

    /// Fetches the task's image.
    fn pull<'a>(&'a self, order: &'a TaskOrder) -> Answer<'a, ()>;

    /// Makes the task and starts it, in place of whatever it was before; returns its handle. With
    /// `reuse` the ended container of that handle is started again, and made anew if it is gone.
    fn start<'a>(&'a self, order: &'a TaskOrder, reuse: Option<&'a str>) -> Answer<'a, String>;

    /// Asks the task to end, and kills it when `grace` is over; returns once it has ended.
    fn stop<'a>(&'a self, key: &'a TaskKey, handle: &'a str, grace: Duration) -> Answer<'a, ()>;

    /// Removes what is left of the task.
    fn remove<'a>(&'a self, key: &'a TaskKey, handle: &'a str) -> Answer<'a, ()>;

    /// How the task is.
    fn inspect<'a>(&'a self, key: &'a TaskKey, handle: &'a str) -> Answer<'a, Condition>;

    /// Sends the lines asked for on `sink`, oldest first; ends when there are no more, or when
    /// nobody listens.
    fn logs<'a>(
        &'a self,
        key: &'a TaskKey,
        handle: &'a str,
        query: LogQuery,
        sink: mpsc::Sender<Line>,
    ) -> Answer<'a, ()>;

    /// Runs a command inside the task and returns its exit code. It is killed when the input's
    /// sender is dropped or nobody takes its output.
    fn exec<'a>(
        &'a self,
        key: &'a TaskKey,
        handle: &'a str,
        order: ExecOrder,
        input: mpsc::Receiver<ExecInput>,
        output: mpsc::Sender<ExecOutput>,
    ) -> Answer<'a, i32>;

    /// Bytes that each of the owner's tasks has written to its own file system.
    fn disk_used<'a>(&'a self, owner: &'a Owner) -> Answer<'a, BTreeMap<TaskKey, u64>>;
}

/// The end of an output as text, not longer than is kept of it.
pub(super) fn tail_text(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim_end();
    text[text.ceil_char_boundary(text.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX))..].to_owned()
}
