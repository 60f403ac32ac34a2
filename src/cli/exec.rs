//! `orch exec`: a command inside a copy of a job, over a WebSocket.

use std::io::{IsTerminal, Read};

use clap::Args;
use futures::{SinkExt, StreamExt};
use rustix::process::Signal;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output;
use super::socket::{self, frame};
use super::target::{CopyRef, ProjectFlag};
use crate::api::view::allocation::{
    AllocationRow, ExecControl, ExecExit, TerminalSize, exec_channel,
};
use crate::api::view::query::{Exec, ListAllocations};
use crate::model::name::{JobId, TaskName};

/// Bytes of standard input sent at once.
const INPUT_BYTES: usize = 32 << 10;
/// Pieces of standard input waiting to be sent.
const INPUT_PIECES: usize = 8;

/// Flags of `orch exec`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch exec web.0 -- ls -l /srv      one command
  orch exec -it web.0 -- sh          a shell
  tar c dir | orch exec -i web.0 -- tar x
The exit code is the command's own. Ctrl-C goes to the command; a second one leaves it.")]
pub(super) struct ExecArgs {
    /// The copy, as web.2; of a job alone, its first copy that runs
    #[arg(value_name = "JOB[.N]")]
    target: CopyRef,
    #[command(flatten)]
    project: ProjectFlag,
    /// Send standard input to the command
    #[arg(long, short)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(long, short)]
    tty: bool,
    /// The task, of a job with several
    #[arg(long, value_name = "TASK")]
    task: Option<TaskName>,
    /// The command
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<String>,
}

pub(super) async fn run(args: ExecArgs, context: &Context) -> Outcome {
    let job = args.target.job.id(&args.project)?;
    let id = copy(&job, args.target.index, context).await?;
    let terminal = args.tty && std::io::stdout().is_terminal();
    let size = if terminal { crossterm::terminal::size().ok() } else { None };
    let query = Exec {
        command: args.command.clone(),
        task: args.task.as_ref().map(ToString::to_string),
        tty: args.tty,
        stdin: args.interactive,
        columns: size.map(|(columns, _)| u32::from(columns)),
        rows: size.map(|(_, rows)| u32::from(rows)),
    };
    let socket = socket::connect(&id, "exec", &query, context).await?;
    let raw = Raw::begin(args.tty && args.interactive && std::io::stdin().is_terminal())?;
    let ended = carry(socket, args.interactive, terminal, context).await;
    drop(raw);
    let ended = ended?;
    match ended {
        ExecExit { code: Some(code), .. } => Ok(Exit(u8::try_from(code).unwrap_or(255))),
        ExecExit { error, .. } => {
            let why = error.unwrap_or_else(|| "the session ended without a word".to_owned());
            Err(Failure::failed(format!("{job}: {why}")))
        }
    }
}

/// The allocation that is meant, which must run.
pub(super) async fn copy(
    job: &JobId,
    index: Option<u32>,
    context: &Context,
) -> Result<String, Failure> {
    let (state, id) = placed(job, index, context).await?;
    if matches!(state.as_str(), "running" | "stopping" | "starting") {
        return Ok(id);
    }
    let name = index.map_or_else(|| job.to_string(), |index| format!("{job}.{index}"));
    let failure = Failure::new(Exit::REFUSED, format!("{name} is {state}, not running"));
    Err(failure.hint(format!("orch status {job}")))
}

/// The state and the id of the allocation that is meant.
pub(super) async fn placed(
    job: &JobId,
    index: Option<u32>,
    context: &Context,
) -> Result<(String, String), Failure> {
    let query = ListAllocations {
        project: Some(job.project.to_string()),
        job: Some(job.name.to_string()),
        consistency: context.consistency,
        ..ListAllocations::default()
    };
    let call = Call::get(["allocations"]).query(&query).hint("orch status lists jobs");
    let mut rows: Vec<AllocationRow> = context.client.list(call).await?;
    rows.retain(|row| index.is_none_or(|index| index == row.index));
    let name = index.map_or_else(|| job.to_string(), |index| format!("{job}.{index}"));
    let waits = rows.first().map(|row| row.state.clone());
    // One that is on its way out is the last choice; of a number that is there twice, the newer.
    let newest = |row: &AllocationRow| row.id.clone().map(|id| (id.len(), id));
    rows.retain(|row| row.id.is_some());
    rows.sort_by_key(|row| (row.state != "running", row.index, std::cmp::Reverse(newest(row))));
    match (rows.into_iter().find_map(|row| Some((row.state, row.id?))), waits) {
        (Some(found), _) => Ok(found),
        (None, Some(state)) => {
            let failure = Failure::new(Exit::REFUSED, format!("{name} is {state}, not placed"));
            Err(failure.hint(format!("orch status {job}")))
        }
        (None, None) => {
            let failure = Failure::new(Exit::NOT_FOUND, format!("there is no copy {name}"));
            Err(failure.hint(format!("orch ps {job} lists its copies")))
        }
    }
}

/// Moves bytes both ways until the command has ended.
async fn carry(
    socket: WebSocketStream<TcpStream>,
    interactive: bool,
    terminal: bool,
    context: &Context,
) -> Result<ExecExit, Failure> {
    let (mut sink, mut stream) = socket.split();
    let mut input = if interactive { Some(read_input()) } else { None };
    let watch = |kind| {
        signal(kind).map_err(|error| Failure::failed(format!("can't watch for signals: {error}")))
    };
    let mut resized = watch(SignalKind::window_change())?;
    let mut interrupted = watch(SignalKind::interrupt())?;
    // Whoever ends us wants the terminal back as it was.
    let mut ended = watch(SignalKind::terminate())?;
    let mut hung_up = watch(SignalKind::hangup())?;
    let mut interrupts = 0;
    let broke = |error: WsError| Failure::failed(format!("the connection broke: {error}"));
    loop {
        let message = tokio::select! {
            message = stream.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Some(exit) = show(&bytes, context)? {
                        return Ok(exit);
                    }
                    continue;
                }
                Some(Ok(Message::Close(_))) | None => return Ok(ExecExit::default()),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(broke(error)),
            },
            piece = next_input(&mut input) => match piece {
                Some(piece) => frame(exec_channel::STDIN, &piece),
                None => {
                    input = None;
                    frame(exec_channel::STDIN, b"")
                }
            },
            _ = resized.recv(), if terminal => match crossterm::terminal::size() {
                Ok((columns, rows)) => {
                    let size = TerminalSize { columns: columns.into(), rows: rows.into() };
                    control(&ExecControl { resize: Some(size), ..ExecControl::default() })
                }
                Err(_) => continue,
            },
            // On a terminal of its own the command gets the key itself.
            _ = interrupted.recv() => {
                interrupts += 1;
                if interrupts > 1 {
                    return Err(Failure::new(Exit::INTERRUPTED, "left the command, which is ended"));
                }
                let signal = Some(Signal::INT.as_raw());
                control(&ExecControl { signal, ..ExecControl::default() })
            },
            _ = ended.recv() => return Err(Failure::new(Exit(143), "ended")),
            _ = hung_up.recv() => return Err(Failure::new(Exit(129), "the terminal is gone")),
        };
        if let Err(error) = sink.send(message).await {
            // What the command said before it ended may still be on its way.
            if !matches!(error, WsError::ConnectionClosed | WsError::AlreadyClosed | WsError::Io(_))
            {
                return Err(broke(error));
            }
            input = None;
        }
    }
}

/// What the command printed; how it ended if it has.
fn show(message: &[u8], context: &Context) -> Result<Option<ExecExit>, Failure> {
    let Some((channel, bytes)) = message.split_first() else { return Ok(None) };
    match *channel {
        exec_channel::STDOUT => context.output.bytes(bytes)?,
        exec_channel::STDERR => output::error_bytes(bytes),
        exec_channel::EXIT => {
            let exit = serde_json::from_slice(bytes).map_err(|error| {
                Failure::failed(format!("the server did not say how it ended: {error}"))
            })?;
            return Ok(Some(exit));
        }
        _ => {}
    }
    Ok(None)
}

fn control(control: &impl Serialize) -> Message {
    // Numbers: they always encode.
    frame(exec_channel::CONTROL, &serde_json::to_vec(control).unwrap_or_default())
}

/// Standard input piece by piece. A thread of its own reads it: a read can't be given up, and
/// must not hold up the end.
fn read_input() -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(INPUT_PIECES);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = vec![0; INPUT_BYTES];
        while let Ok(read) = stdin.read(&mut buffer) {
            let piece = buffer.get(..read).unwrap_or_default().to_vec();
            if read == 0 || send.blocking_send(piece).is_err() {
                break;
            }
        }
    });
    receive
}

async fn next_input(input: &mut Option<mpsc::Receiver<Vec<u8>>>) -> Option<Vec<u8>> {
    match input {
        Some(input) => input.recv().await,
        None => std::future::pending().await,
    }
}

/// The terminal sends each key as it is, until this is dropped.
struct Raw(bool);

impl Raw {
    fn begin(wanted: bool) -> Result<Self, Failure> {
        if wanted {
            crossterm::terminal::enable_raw_mode()
                .map_err(|error| Failure::failed(format!("can't switch the terminal: {error}")))?;
        }
        Ok(Self(wanted))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if self.0 {
            // There is nobody left to tell.
            let _ = crossterm::terminal::disable_raw_mode();
        }
    }
}
