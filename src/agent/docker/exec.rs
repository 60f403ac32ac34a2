//! Commands inside containers.

use bollard::Docker as Engine;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults};
use futures::StreamExt as _;
use rustix::process::{Pid, Signal};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::engine::error;
use crate::agent::runtime::{ExecInput, ExecOrder, ExecOutput, RuntimeError};

/// What the engine calls a command that runs in a container.
struct Running<'e> {
    engine: &'e Engine,
    id: String,
    ended: bool,
}

impl Drop for Running<'_> {
    /// The engine lets a command run on when its caller is gone: end it.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (engine, id) = (self.engine.clone(), std::mem::take(&mut self.id));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { signal(&engine, &id, Signal::KILL).await });
        }
    }
}

/// Sends a signal to the command and what it started in its group; the engine has no call for it.
/// An engine that runs elsewhere, or an agent without the right, leaves it be.
async fn signal(engine: &Engine, id: &str, signal: Signal) {
    let Ok(inspected) = engine.inspect_exec(id).await else { return };
    if inspected.running != Some(true) {
        return;
    }
    let pid = inspected.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let (Some(pid), Some(container)) = (pid, inspected.container_id) else { return };
    // The number is the engine's; to an agent in a container of its own it may be another's.
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()));
    if !groups.is_ok_and(|groups| groups.contains(&container)) {
        return;
    }
    // Commands lead a group of their own.
    if rustix::process::kill_process_group(pid, signal).is_err() {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Runs a command in a container and returns its exit code.
pub(super) async fn run(
    engine: &Engine,
    handle: &str,
    order: ExecOrder,
    mut input: mpsc::Receiver<ExecInput>,
    output: mpsc::Sender<ExecOutput>,
) -> Result<i32, RuntimeError> {
    let options = CreateExecOptions {
        attach_stdin: Some(order.stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(order.tty),
        cmd: Some(order.command.clone()),
        ..CreateExecOptions::default()
    };
    let id = engine.create_exec(handle, options).await.map_err(error)?.id;
    let start = StartExecOptions { tty: order.tty, ..StartExecOptions::default() };
    let started = engine.start_exec(&id, Some(start)).await.map_err(error)?;
    let StartExecResults::Attached { output: mut stream, input: stdin } = started else {
        return Err(RuntimeError::Failed("the engine did not attach to the command".to_owned()));
    };
    let mut running = Running { engine, id, ended: false };
    let resize = |columns: u16, rows: u16| {
        let size = ResizeExecOptions { width: columns, height: rows };
        engine.resize_exec(&running.id, size)
    };
    if order.tty && order.columns > 0 && order.rows > 0 {
        // Too early for some engines; the next change of size will do.
        let _ = resize(order.columns, order.rows).await;
    }
    let feed = async {
        let mut stdin = Some(stdin);
        while let Some(item) = input.recv().await {
            match item {
                ExecInput::Stdin(bytes) => {
                    if let Some(open) = &mut stdin
                        && (open.write_all(&bytes).await.is_err() || open.flush().await.is_err())
                    {
                        stdin = None;
                    }
                }
                ExecInput::StdinEnd => {
                    if let Some(mut open) = stdin.take() {
                        let _ = open.shutdown().await;
                    }
                }
                ExecInput::Resize { columns, rows } => {
                    let _ = resize(columns, rows).await;
                }
                ExecInput::Signal(number) => {
                    if let Some(number) = Signal::from_named_raw(number) {
                        signal(engine, &running.id, number).await;
                    }
                }
            }
        }
    };
    let read = async {
        while let Some(item) = stream.next().await {
            let item = match item.map_err(error)? {
                LogOutput::StdErr { message } => ExecOutput::Stderr(message),
                LogOutput::StdOut { message }
                | LogOutput::Console { message }
                | LogOutput::StdIn { message } => ExecOutput::Stdout(message),
            };
            if output.send(item).await.is_err() {
                return Ok(false);
            }
        }
        Ok::<_, RuntimeError>(true)
    };
    let to_end = tokio::select! {
        read = read => read?,
        () = feed => false,
        () = output.closed() => false,
    };
    if !to_end {
        return Err(RuntimeError::Cancelled);
    }
    let inspected = engine.inspect_exec(&running.id).await.map_err(error)?;
    running.ended = inspected.running != Some(true);
    let code = inspected.exit_code.unwrap_or_default();
    Ok(i32::try_from(code).unwrap_or(i32::MAX))
}
