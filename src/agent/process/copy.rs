//! Files of process tasks. A process of its own reads and writes them with the task's own rights,
//! so that a task can lead nobody where it may not go itself; and only below the task's directory.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::exec;
use super::files::{Surroundings, TaskDir};
use crate::agent::runtime::{ExecInput, ExecOrder, ExecOutput, RuntimeError};
use crate::archive::{self, ArchiveError, Top};
use crate::limits::{MESSAGE_BYTES_MAX, SESSION_QUEUE_MAX};
use crate::rpc::v1::FileInfo;

/// The hidden subcommand that copies.
const COPY_COMMAND: &str = "process-copy";
const LOOK: &str = "look";
const READ: &str = "read";
const WRITE: &str = "write";
/// Exit codes of the copying process.
const FAILED: u8 = 1;
const NOT_FOUND: u8 = 3;
const REFUSED: u8 = 4;

/// The agent's side.
pub(super) struct Copier<'p> {
    pub(super) program: &'p Path,
    pub(super) dir: TaskDir,
    pub(super) command: Surroundings,
}

impl Copier<'_> {
    pub(super) async fn look_at(self, path: &str) -> Result<FileInfo, RuntimeError> {
        let (output, mut pieces) = mpsc::channel(SESSION_QUEUE_MAX);
        let (_feed, input) = mpsc::channel(1);
        let mut said = Vec::new();
        let gather = async {
            while let Some(piece) = pieces.recv().await {
                if let ExecOutput::Stdout(bytes) = piece
                    && said.len() < MESSAGE_BYTES_MAX * 4
                {
                    said.extend_from_slice(&bytes);
                }
            }
        };
        let (done, ()) = futures::future::join(self.run(LOOK, path, input, output), gather).await;
        done?;
        let found: Found = serde_json::from_slice(&said)
            .map_err(|error| RuntimeError::Failed(format!("{path}: {error}")))?;
        Ok(found.into())
    }

    pub(super) async fn read(
        self,
        path: &str,
        output: mpsc::Sender<ExecOutput>,
    ) -> Result<(), RuntimeError> {
        let (_feed, input) = mpsc::channel(1);
        self.run(READ, path, input, output).await
    }

    pub(super) async fn write(
        self,
        path: &str,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<(), RuntimeError> {
        let (output, mut pieces) = mpsc::channel(SESSION_QUEUE_MAX);
        let drain = async { while pieces.recv().await.is_some() {} };
        let (done, ()) = futures::future::join(self.run(WRITE, path, input, output), drain).await;
        done
    }

    async fn run(
        self,
        action: &str,
        path: &str,
        input: mpsc::Receiver<ExecInput>,
        output: mpsc::Sender<ExecOutput>,
    ) -> Result<(), RuntimeError> {
        let sandbox = self.dir.sandbox();
        let words = [self.program.as_os_str(), COPY_COMMAND.as_ref(), action.as_ref()]
            .map(|word: &OsStr| word.to_string_lossy().into_owned());
        let places = [sandbox.display().to_string(), path.to_owned()];
        let command = Surroundings {
            words: words.into_iter().chain(places).collect(),
            working_dir: PathBuf::from("/"),
            ..self.command
        };
        let order = ExecOrder { stdin: action == WRITE, ..ExecOrder::default() };
        // What it complains of stays here.
        let (all, mut pieces) = mpsc::channel(SESSION_QUEUE_MAX);
        let mut complaint = Vec::new();
        let sort = async {
            while let Some(piece) = pieces.recv().await {
                match piece {
                    ExecOutput::Stderr(bytes) if complaint.len() < MESSAGE_BYTES_MAX => {
                        complaint.extend_from_slice(&bytes);
                    }
                    ExecOutput::Stderr(_) => {}
                    out @ ExecOutput::Stdout(_) => {
                        if output.send(out).await.is_err() {
                            break;
                        }
                    }
                }
            }
        };
        let run = exec::run(self.program, &self.dir, command, &order, input, all);
        let (code, ()) = futures::future::join(run, sort).await;
        let text = String::from_utf8_lossy(&complaint).trim().to_owned();
        match u8::try_from(code?).unwrap_or(FAILED) {
            0 => Ok(()),
            NOT_FOUND => Err(RuntimeError::NotFound(text)),
            REFUSED => Err(RuntimeError::Refused(text)),
            _ => Err(RuntimeError::Failed(text)),
        }
    }
}

/// What lies at a path, as the copying process says it.
#[derive(Serialize, Deserialize)]
struct Found {
    name: String,
    size: u64,
    mode: u32,
    modified: u64,
    kind: String,
    directory: bool,
    link_target: String,
}

impl From<Found> for FileInfo {
    fn from(found: Found) -> Self {
        let Found { name, size, mode, modified, kind, directory, link_target } = found;
        Self { name, size, mode, modified, kind, directory, link_target }
    }
}

/// Copies from below `root` to standard output, or from standard input to there; the exit code.
///
/// Called by `main` before anything else is set up, as the task's user.
pub fn copy(action: &OsStr, root: &Path, path: &Path) -> u8 {
    let outcome = match action.to_str() {
        Some(LOOK) => resolve(root, path).and_then(|path| look(&path)),
        Some(READ) => resolve(root, path).and_then(|path| {
            let name = path.file_name().unwrap_or_else(|| OsStr::new("."));
            let out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
            Ok(archive::pack(&path, Path::new(name), out)?)
        }),
        Some(WRITE) => resolve(root, &path.join("."))
            .and_then(|path| Ok(archive::unpack(io::stdin().lock(), &path, &Top::Keep)?)),
        _ => Err(CopyError::Refused("it can look, read and write".to_owned())),
    };
    let (code, text) = match outcome {
        Ok(()) => return 0,
        Err(CopyError::NotFound(text)) => (NOT_FOUND, text),
        Err(CopyError::Refused(text)) => (REFUSED, text),
        Err(CopyError::Failed(text)) => (FAILED, text),
    };
    let _ = io::stderr().write_all(text.as_bytes());
    code
}

enum CopyError {
    NotFound(String),
    Refused(String),
    Failed(String),
}

impl From<ArchiveError> for CopyError {
    fn from(error: ArchiveError) -> Self {
        let text = error.to_string();
        match error {
            _ if error.is_not_found() => Self::NotFound(text),
            ArchiveError::Refused { .. } => Self::Refused(text),
            _ => Self::Failed(text),
        }
    }
}

/// The true path, which must be below the root. The last part may be a link, which is not
/// followed unless something comes behind it.
fn resolve(root: &Path, path: &Path) -> Result<PathBuf, CopyError> {
    let text = path.to_string_lossy();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => CopyError::NotFound(format!("there is no {text}")),
        io::ErrorKind::NotADirectory => CopyError::Refused(format!("{text}: {error}")),
        _ => CopyError::Failed(format!("{text}: {error}")),
    };
    let root = fs::canonicalize(root).map_err(failed)?;
    let full = root.join(path);
    let through = text.ends_with('/') || text.ends_with("/.") || full == root;
    let real = match (full.parent(), full.file_name()) {
        (Some(parent), Some(name)) if !through => {
            fs::canonicalize(parent).map_err(failed)?.join(name)
        }
        _ => fs::canonicalize(&full).map_err(failed)?,
    };
    if real.starts_with(&root) {
        return Ok(real);
    }
    Err(CopyError::Refused(format!(
        "{text} is outside the task's own directory, to which copies of a process are kept: write \
         paths in it, as file.txt, or whole ones below {}",
        root.display()
    )))
}

fn look(path: &Path) -> Result<(), CopyError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => CopyError::NotFound(format!("there is no {}", path.display())),
        _ => CopyError::Failed(format!("{}: {error}", path.display())),
    };
    let data = fs::symlink_metadata(path).map_err(failed)?;
    let kind = match data.file_type() {
        kind if kind.is_dir() => "directory",
        kind if kind.is_symlink() => "link",
        kind if kind.is_file() => "file",
        _ => "other",
    };
    let modified = data.modified().ok();
    let modified = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let link_target = fs::read_link(path).unwrap_or_default();
    let found = Found {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        size: data.len(),
        mode: data.permissions().mode() & 0o777,
        modified: modified.map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(0)),
        kind: kind.to_owned(),
        directory: kind == "directory" || (kind == "link" && path.is_dir()),
        link_target: link_target.to_string_lossy().into_owned(),
    };
    let text = serde_json::to_vec(&found).map_err(|error| CopyError::Failed(error.to_string()))?;
    io::stdout().write_all(&text).map_err(|error| CopyError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_task_s_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("sandbox");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(dir.path().join("job"), "secret").unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        let real = fs::canonicalize(&root).unwrap();
        let is = |path: &str| resolve(&root, Path::new(path)).ok();
        assert_eq!(is("sub"), Some(real.join("sub")));
        assert_eq!(is("sub/../new"), Some(real.join("new")));
        assert_eq!(is("."), Some(real.clone()));
        assert_eq!(is(&real.join("sub").display().to_string()), Some(real.join("sub")));
        // A link itself may be copied; what is behind it may not.
        assert_eq!(is("up"), Some(real.join("up")));
        for outside in ["up/", "up/.", "up/job", "..", "../job", "/etc/passwd", "sub/../../job"] {
            assert!(
                matches!(resolve(&root, Path::new(outside)), Err(CopyError::Refused(_))),
                "{outside}"
            );
        }
        assert!(matches!(resolve(&root, Path::new("no/such")), Err(CopyError::NotFound(_))));
    }
}
