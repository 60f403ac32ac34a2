//! `orch exec`: a command inside a copy of a job, over a WebSocket.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use clap::Args;
use futures::{SinkExt, StreamExt};
use reqwest::Url;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::client::{Call, pairs, refusal_of, url};
use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output;
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
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Flags of `orch exec`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch exec web.0 -- ls -l /srv      one command
  orch exec -it web.0 -- sh          a shell
  tar c dir | orch exec -i web.0 -- tar x
The exit code is the command's own.")]
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
    let socket = connect(&id, &query, context).await?;
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

/// The allocation that is meant.
async fn copy(job: &JobId, index: Option<u32>, context: &Context) -> Result<String, Failure> {
    let query = ListAllocations {
        project: Some(job.project.to_string()),
        job: Some(job.name.to_string()),
        consistency: context.consistency,
        ..ListAllocations::default()
    };
    let call = Call::get(["allocations"]).query(&query).hint("orch status lists jobs");
    let mut rows: Vec<AllocationRow> = context.client.list(call).await?;
    rows.retain(|row| row.id.is_some() && index.is_none_or(|index| index == row.index));
    // One that is on its way out is the last choice.
    rows.sort_by_key(|row| (row.state != "running", row.index));
    let name = index.map_or_else(|| job.to_string(), |index| format!("{job}.{index}"));
    match rows.into_iter().next() {
        Some(row) if matches!(row.state.as_str(), "running" | "stopping" | "starting") => {
            row.id.ok_or_else(|| Failure::failed(format!("{name} is not placed")))
        }
        Some(row) => {
            let failure =
                Failure::new(Exit::REFUSED, format!("{name} is {}, not running", row.state));
            Err(failure.hint(format!("orch status {job}")))
        }
        None => {
            let failure = Failure::new(Exit::NOT_FOUND, format!("there is no copy {name}"));
            Err(failure.hint(format!("orch ps {job} lists its copies")))
        }
    }
}

/// To the first server that takes the connection.
async fn connect(
    id: &str,
    query: &Exec,
    context: &Context,
) -> Result<WebSocketStream<TcpStream>, Failure> {
    let path = ["allocations", id, "exec"].map(str::to_owned);
    let query = pairs(query);
    let mut last = Failure::failed("no server answers");
    for server in context.client.servers_in_turn() {
        if server.scheme() != "http" {
            return Err(Failure::failed(format!("{server}: exec goes over http only"))
                .hint("name a server with http:// in --addr or ORCH_ADDR"));
        }
        let mut target = url(server, &path, &query);
        if target.set_scheme("ws").is_err() {
            continue;
        }
        match open(server, &target).await {
            Ok(socket) => return Ok(socket),
            Err(failure) if failure.passing => last = failure,
            Err(failure) => return Err(failure),
        }
    }
    Err(last)
}

async fn open(server: &Url, target: &Url) -> Result<WebSocketStream<TcpStream>, Failure> {
    let host = server.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = server.port_or_known_default().unwrap_or(80);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host.as_str(), port)))
        .await
        .map_err(|_| Failure::failed(format!("{server} does not answer")).passing())?
        .map_err(|error| Failure::failed(format!("{server}: {error}")).passing())?;
    // Keys are sent one by one; each has to arrive at once.
    let _ = stream.set_nodelay(true);
    match tokio_tungstenite::client_async(target.as_str(), stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            Err(refusal_of(response.status(), target.as_str(), &body))
        }
        Err(error) => Err(Failure::failed(format!("{server}: {error}")).passing()),
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
    let mut resized = signal(SignalKind::window_change())
        .map_err(|error| Failure::failed(format!("can't watch the terminal's size: {error}")))?;
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

fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    Message::Binary(frame.into())
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
