//! What the agent needs of anything that runs tasks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::meter::Sample;
use super::order::{Owner, TaskKey, TaskOrder};
use crate::limits::OUTPUT_TAIL_BYTES_MAX;
use crate::model::pattern::Pattern;
use crate::model::time::Timestamp;
use crate::rpc::v1::{FileInfo, FoundContainer};

/// Why a runtime did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
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
    /// It may not be done, or not so.
    #[error("{0}")]
    Refused(String),
    /// The work was called off.
    #[error("called off")]
    Cancelled,
}

/// A task that a runtime has, running or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose.
    pub key: TaskKey,
    /// Container id or `pid:N`.
    pub handle: String,
    /// Whether it runs.
    pub running: bool,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// One of the owner's tasks.
    Task(TaskKey),
    /// A container that may have been taken over: no label says whose it is.
    Container(String),
}

/// How a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
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
pub struct Exit {
    /// 128 + N for signal N.
    pub code: i32,
    /// Killed for want of memory.
    pub oom_killed: bool,
    /// When, if the runtime knows.
    pub finished_at: Option<Timestamp>,
    /// What the runtime itself had to say; may be empty.
    pub error: String,
    /// The end of what it printed.
    pub tail: String,
}

/// One line of a task's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Nanoseconds since 1970.
    pub at: u64,
    /// Whether it came on standard error.
    pub stderr: bool,
    /// Without its line end.
    pub text: Bytes,
}

/// Which lines.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// Go on with what comes until the task ends.
    pub follow: bool,
    /// Wanted lines from the end to begin with; absent: all.
    pub tail: Option<u32>,
    /// Only later ones.
    pub after: After,
    /// Only those in which it is found.
    pub grep: Option<Pattern>,
}

impl LogQuery {
    /// Whether this line is asked for, as far as that shows in it.
    pub fn wants(&self, line: &Line) -> bool {
        line.at > self.after.of(line.stderr)
            && self.grep.as_ref().is_none_or(|pattern| pattern.is_in(&line.text))
    }
}

/// A place in a task's output, in nanoseconds since 1970. Each stream is in order by itself alone:
/// two threads note the times of lines, and write when they get to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct After {
    /// Of standard output.
    pub stdout: u64,
    /// Of standard error.
    pub stderr: u64,
}

impl After {
    /// The same for both streams.
    pub fn both(at: u64) -> Self {
        Self { stdout: at, stderr: at }
    }

    /// That of one stream.
    pub fn of(self, stderr: bool) -> u64 {
        if stderr { self.stderr } else { self.stdout }
    }

    /// The later one of each.
    pub fn max(self, other: Self) -> Self {
        Self { stdout: self.stdout.max(other.stdout), stderr: self.stderr.max(other.stderr) }
    }

    /// The line was read.
    pub fn saw(&mut self, line: &Line) {
        let place = if line.stderr { &mut self.stderr } else { &mut self.stdout };
        *place = line.at.max(*place);
    }
}

/// A command to run inside a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOrder {
    /// Its words.
    pub command: Vec<String>,
    /// Whether it reads input.
    pub stdin: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// The terminal's size.
    pub columns: u16,
    /// The terminal's size.
    pub rows: u16,
}

/// What goes into a command that runs inside a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
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
pub enum ExecOutput {
    /// Standard output, or the terminal's.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
}

/// The result of asking a runtime.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, RuntimeError>>;

/// Something that runs tasks.
pub trait Runtime: Send + Sync + std::fmt::Debug {
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
        sink: mpsc::Sender<Notice>,
    ) -> Answer<'a, ()>;

    /// Containers that run under Mesos for these of its tasks.
    fn find<'a>(&'a self, mesos_tasks: &'a [String]) -> Answer<'a, Vec<FoundContainer>>;

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

    /// What lies at a path of the task, running or not.
    fn look_at<'a>(
        &'a self,
        key: &'a TaskKey,
        handle: &'a str,
        path: &'a str,
    ) -> Answer<'a, FileInfo>;

    /// Sends what lies at a path, with all below it, on `output` as a tar stream whose entries
    /// begin with the path's last part.
    fn read_files<'a>(
        &'a self,
        key: &'a TaskKey,
        handle: &'a str,
        path: &'a str,
        output: mpsc::Sender<ExecOutput>,
    ) -> Answer<'a, ()>;

    /// Unpacks a tar stream into the directory at a path. A sender that is dropped before it said
    /// the end has given up: what came by then stays.
    fn write_files<'a>(
        &'a self,
        key: &'a TaskKey,
        handle: &'a str,
        path: &'a str,
        input: mpsc::Receiver<ExecInput>,
    ) -> Answer<'a, ()>;

    /// Where the task's ports are that are not published; none if it listens on the host itself.
    fn inside<'a>(&'a self, key: &'a TaskKey, handle: &'a str) -> Answer<'a, Option<IpAddr>>;

    /// What these tasks have used, each with its handle; those that can't be measured are left
    /// out.
    fn usage<'a>(&'a self, tasks: &'a [(TaskKey, String)]) -> Answer<'a, Vec<(TaskKey, Sample)>>;

    /// Bytes that each of the owner's tasks has written to its own file system.
    fn disk_used<'a>(&'a self, owner: &'a Owner) -> Answer<'a, BTreeMap<TaskKey, u64>>;
}

/// The end of an output as text, not longer than is kept of it.
pub(super) fn tail_text(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text = text.trim_end();
    text[text.ceil_char_boundary(text.len().saturating_sub(OUTPUT_TAIL_BYTES_MAX))..].to_owned()
}
