//! What lies in a process task's directory: the word between the agent and the shim.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::pid::Ident;
use crate::agent::order::{Owner, TaskKey};
use crate::agent::runtime::Exit;
use crate::agent::store::replace;
use crate::rpc;

/// What a shim is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Job {
    /// Start a task and see it through.
    Task(Box<TaskJob>),
    /// Become a command on a terminal.
    Terminal(Box<TerminalJob>),
}

/// A command with its surroundings.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Surroundings {
    pub(super) words: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) working_dir: PathBuf,
    /// User and group by number.
    pub(super) ids: Option<(u32, u32)>,
}

impl Surroundings {
    /// Ready to be started.
    pub(super) fn command(&self) -> Option<std::process::Command> {
        use std::os::unix::process::CommandExt as _;
        let (program, words) = self.words.split_first()?;
        let mut command = std::process::Command::new(program);
        command.args(words).env_clear().envs(&self.environment).current_dir(&self.working_dir);
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        Some(command)
    }
}

/// A task for a shim.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TaskJob {
    pub(super) key: TaskKey,
    pub(super) owner: Owner,
    /// Counts starts in this directory.
    pub(super) run: u64,
    pub(super) command: Surroundings,
    pub(super) stop_signal: i32,
    /// Control groups that it is to be in.
    pub(super) cgroups: Vec<PathBuf>,
}

/// A command on a terminal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TerminalJob {
    /// The terminal's device file.
    pub(super) terminal: String,
    pub(super) command: Surroundings,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Running {
    pub(super) run: u64,
    pub(super) shim: Ident,
    pub(super) child: Ident,
    /// Milliseconds since 1970.
    pub(super) started_at: u64,
}

/// What ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ended {
    pub(super) run: u64,
    pub(super) exit: Exit,
}

/// What a shim says on its standard output, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Word {
    /// It runs.
    Running(Running),
    /// It could not be started.
    Failed(String),
}

/// A task's directory.
#[derive(Debug, Clone)]
pub(super) struct TaskDir(pub(super) PathBuf);

impl TaskDir {
    /// What the shim is to do.
    pub(super) fn job(&self) -> PathBuf {
        self.0.join("job")
    }

    /// What runs, or ran last.
    pub(super) fn running(&self) -> PathBuf {
        self.0.join("running")
    }

    /// How it ended.
    pub(super) fn ended(&self) -> PathBuf {
        self.0.join("ended")
    }

    /// Its output.
    pub(super) fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Where it starts, unless it is told otherwise.
    pub(super) fn sandbox(&self) -> PathBuf {
        self.0.join("sandbox")
    }
}

/// The value in a file; none if there is no such file.
///
/// # Errors
/// If it can't be read or holds something else.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(bytes) => rpc::unpack(&bytes).map(Some).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a value durably.
///
/// # Errors
/// If it can't be written.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, &rpc::pack(value).map_err(io::Error::other)?)
}
