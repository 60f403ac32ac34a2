//! Commands beside a process task: with its environment, directory and user.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use rustix::process::{Pid, Signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::files::{self, Job, Surroundings, TaskDir, TerminalJob};
use super::runtime::SHIM_COMMAND;
use super::{pid, terminal};
use crate::agent::runtime::{ExecInput, ExecOrder, ExecOutput, RuntimeError};

const PIECE_BYTES: usize = 16 << 10;

/// A command that is killed, with all it started in its group, when nobody wants it any more.
struct Running {
    child: Child,
    group: Option<Pid>,
}

impl Running {
    fn new(child: Child) -> Self {
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        Self { child, group }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            let _ = rustix::process::kill_process_group(group, signal);
        }
    }

    async fn wait(&mut self) -> Result<i32, RuntimeError> {
        let status = self.child.wait().await.map_err(failed)?;
        // The number may be another's from here on.
        self.group = None;
        Ok(code(status))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or(9),
    }
}

fn failed(error: io::Error) -> RuntimeError {
    RuntimeError::Failed(error.to_string())
}

/// Runs a command and returns its exit code.
pub(super) async fn run(
    program: &Path,
    dir: &TaskDir,
    command: Surroundings,
    order: &ExecOrder,
    input: mpsc::Receiver<ExecInput>,
    output: mpsc::Sender<ExecOutput>,
) -> Result<i32, RuntimeError> {
    if order.tty {
        on_terminal(program, dir, command, order, input, output).await
    } else {
        on_pipes(&command, order.stdin, input, output).await
    }
}

async fn on_pipes(
    command: &Surroundings,
    with_input: bool,
    mut input: mpsc::Receiver<ExecInput>,
    output: mpsc::Sender<ExecOutput>,
) -> Result<i32, RuntimeError> {
    let name = command.words.first().cloned().unwrap_or_default();
    let empty = || RuntimeError::Failed("its command is empty".to_owned());
    let mut command = Command::from(command.command().ok_or_else(empty)?);
    command
        .stdin(if with_input { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let child =
        command.spawn().map_err(|error| RuntimeError::Failed(format!("{name}: {error}")))?;
    let mut running = Running::new(child);
    let (out, err) = (running.child.stdout.take(), running.child.stderr.take());
    let mut stdin = running.child.stdin.take();
    let group = running.group;
    let feed = async {
        while let Some(item) = input.recv().await {
            take_in(item, &mut stdin, group).await;
        }
    };
    let read = async {
        let out = pass(out, ExecOutput::Stdout, &output);
        let err = pass(err, ExecOutput::Stderr, &output);
        let (out, err) = tokio::join!(out, err);
        out && err
    };
    let read_to_end = tokio::select! {
        read = read => read,
        () = feed => false,
    };
    if read_to_end { running.wait().await } else { Err(RuntimeError::Cancelled) }
}

async fn take_in(item: ExecInput, stdin: &mut Option<ChildStdin>, group: Option<Pid>) {
    match item {
        ExecInput::Stdin(bytes) => {
            if let Some(open) = stdin
                && open.write_all(&bytes).await.is_err()
            {
                *stdin = None;
            }
        }
        ExecInput::StdinEnd => *stdin = None,
        ExecInput::Resize { .. } => {}
        ExecInput::Signal(number) => {
            if let Some((group, signal)) = group.zip(Signal::from_named_raw(number)) {
                let _ = rustix::process::kill_process_group(group, signal);
            }
        }
    }
}

/// Passes on what comes until it ends; whether somebody took it all.
async fn pass(
    from: Option<impl AsyncRead + Unpin>,
    kind: impl Fn(Bytes) -> ExecOutput,
    output: &mpsc::Sender<ExecOutput>,
) -> bool {
    let Some(mut from) = from else { return true };
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = tokio::select! {
            read = from.read(&mut piece) => read,
            () = output.closed() => return false,
        };
        match read {
            Ok(0) | Err(_) => return true,
            Ok(read) => {
                if output.send(kind(Bytes::copy_from_slice(&piece[..read]))).await.is_err() {
                    return false;
                }
            }
        }
    }
}

async fn on_terminal(
    program: &Path,
    dir: &TaskDir,
    mut command: Surroundings,
    order: &ExecOrder,
    mut input: mpsc::Receiver<ExecInput>,
    output: mpsc::Sender<ExecOutput>,
) -> Result<i32, RuntimeError> {
    let (near, name) = terminal::open(order.columns, order.rows).map_err(failed)?;
    if let Some((uid, gid)) = command.ids {
        std::os::unix::fs::chown(&name, Some(uid), Some(gid)).map_err(failed)?;
    }
    command.environment.entry("TERM".to_owned()).or_insert_with(|| "xterm".to_owned());
    // Two commands at once have two terminals, so the name of one tells them apart.
    let job_dir = TaskDir(dir.0.join(format!("terminal{}", name.replace('/', "-"))));
    let job = Job::Terminal(Box::new(TerminalJob { terminal: name, command }));
    std::fs::create_dir_all(&job_dir.0).map_err(failed)?;
    let _remove = RemoveOnDrop(&job_dir.0);
    files::write(&job_dir.job(), &job).map_err(failed)?;
    let child = Command::new(program)
        .arg(SHIM_COMMAND)
        .arg(&job_dir.0)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    // It makes a session of its own, whose number is its own.
    let mut running = Running::new(child);
    let mut word = running.child.stdout.take();
    let near = Terminal::new(near).map_err(failed)?;
    let group = running.group;
    let feed = async {
        while let Some(item) = input.recv().await {
            match item {
                ExecInput::Stdin(bytes) => {
                    let _ = near.write_all(&bytes).await;
                }
                // End of transmission, as typed.
                ExecInput::StdinEnd => {
                    let _ = near.write_all(&[4]).await;
                }
                ExecInput::Resize { columns, rows } => {
                    let _ = terminal::resize(near.fd.get_ref(), columns, rows);
                }
                ExecInput::Signal(number) => {
                    if let Some((group, signal)) = group.zip(Signal::from_named_raw(number)) {
                        let _ = rustix::process::kill_process_group(group, signal);
                    }
                }
            }
        }
    };
    let read = async {
        let mut piece = vec![0; PIECE_BYTES];
        let mut said = Vec::new();
        // Held open until it has become the command: before, nobody is on the far end.
        if let Some(word) = &mut word {
            let _ = word.take(PIECE_BYTES as u64).read_to_end(&mut said).await;
        }
        if !said.is_empty() {
            return match serde_json::from_slice(&said) {
                Ok(files::Word::Failed(text)) => Err(RuntimeError::Failed(text)),
                _ => Err(RuntimeError::Failed("its shim makes no sense".to_owned())),
            };
        }
        loop {
            match near.read(&mut piece).await {
                // The far end is closed: EIO on Linux.
                Ok(0) | Err(_) => return Ok(true),
                Ok(read) => {
                    let bytes = Bytes::copy_from_slice(&piece[..read]);
                    if output.send(ExecOutput::Stdout(bytes)).await.is_err() {
                        return Ok(false);
                    }
                }
            }
        }
    };
    let read_to_end = tokio::select! {
        read = read => read?,
        () = feed => false,
        () = output.closed() => false,
    };
    if read_to_end { running.wait().await } else { Err(RuntimeError::Cancelled) }
}

struct RemoveOnDrop<'p>(&'p Path);

impl Drop for RemoveOnDrop<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0);
    }
}

/// The near end of a terminal without blocking.
struct Terminal {
    fd: AsyncFd<OwnedFd>,
}

impl Terminal {
    fn new(near: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&near, true)?;
        Ok(Self { fd: pid::watched(near)? })
    }

    async fn read(&self, piece: &mut [u8]) -> io::Result<usize> {
        let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut *piece)?);
        self.fd.async_io(Interest::READABLE, read).await
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, bytes)?);
            let written = self.fd.async_io(Interest::WRITABLE, write).await?;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}
