//! `orch port-forward`: ports of a copy of a job, reachable from here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::context::Context;
use super::exec;
use super::failure::{Exit, Failure, Outcome};
use super::output::note;
use super::socket::{self, frame};
use super::target::{CopyRef, ProjectFlag};
use super::words::printable;
use crate::api::view::allocation::{ExecExit, exec_channel};
use crate::api::view::query::Forward;
use crate::limits::{FORWARDED_CONNECTIONS_MAX, SESSION_PIECE_BYTES};
use crate::model::name::{JobId, PortName, TaskName};

/// Flags of `orch port-forward`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch port-forward web.0 8080:80           http://127.0.0.1:8080 is port 80 of web.0
  orch port-forward web.0 8080:http         the same, by the port's name in the job
  orch port-forward db :5432 9090           a free port here; the same number on both sides
If the copy is replaced meanwhile, new connections go to the new one. Ctrl-C ends it.")]
pub(super) struct PortForwardArgs {
    /// The copy, as web.2; of a job alone, its first copy that runs
    #[arg(value_name = "JOB[.N]")]
    target: CopyRef,
    /// Port here and port there; without the first a free one is taken
    #[arg(value_name = "[LOCAL]:REMOTE", required = true)]
    ports: Vec<Pair>,
    #[command(flatten)]
    project: ProjectFlag,
    /// Where to listen
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// The task, of a job with several
    #[arg(long, value_name = "TASK")]
    task: Option<TaskName>,
}

/// A port here and one there.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair {
    /// 0: a free one.
    local: u16,
    remote: String,
}

impl FromStr for Pair {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no pair of ports; write 8080:80, :80, 80, or a port's name as 8080:http"
            )
        };
        let (local, remote) = match text.split_once(':') {
            Some((local, remote)) => (Some(local), remote),
            None => (None, text),
        };
        let number = remote.parse::<u16>().ok().filter(|number| *number > 0);
        if number.is_none()
            && (remote.parse::<PortName>().is_err() || remote.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(wrong());
        }
        let local = match local {
            Some("") => 0,
            Some(local) => local.parse().map_err(|_| wrong())?,
            None => number.unwrap_or(0),
        };
        Ok(Self { local, remote: remote.to_owned() })
    }
}

/// A port that is listened on, as programs read it.
#[derive(Debug, Serialize)]
struct Listening {
    local: SocketAddr,
    job: String,
    remote: String,
}

pub(super) async fn run(args: PortForwardArgs, context: &Context) -> Outcome {
    let job = args.target.job.id(&args.project)?;
    let index = args.target.index;
    // So that a mistake shows now, not with the first connection.
    exec::copy(&job, index, context).await?;
    let mut listeners = Vec::new();
    for pair in args.ports {
        let wanted = SocketAddr::new(args.address, pair.local);
        let listener = TcpListener::bind(wanted).await.map_err(|error| {
            Failure::failed(format!("can't listen on {wanted}: {error}"))
                .hint("name another port here, or none as :80 for a free one")
        })?;
        let local = listener.local_addr().unwrap_or(wanted);
        let name = index.map_or_else(|| job.to_string(), |index| format!("{job}.{index}"));
        let shown = Listening { local, job: name.clone(), remote: pair.remote.clone() };
        context.output.item(&shown, || format!("{local} -> {name}:{}", pair.remote))?;
        listeners.push((listener, pair.remote));
    }
    let there = Arc::new(There {
        job,
        index,
        task: args.task.map(|task| task.to_string()),
        context: context.clone(),
    });
    let room = Arc::new(Semaphore::new(FORWARDED_CONNECTIONS_MAX));
    let mut tasks = JoinSet::new();
    for (listener, remote) in listeners {
        tasks.spawn(accept(listener, remote, there.clone(), room.clone()));
    }
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(Exit::DONE),
        // They end only if this machine is out of something for good.
        ended = tasks.join_next() => match ended {
            Some(Ok(failure)) => Err(failure),
            _ => Err(Failure::failed("a listener ended by itself")),
        },
    }
}

/// What is forwarded to.
struct There {
    job: JobId,
    index: Option<u32>,
    task: Option<String>,
    context: Context,
}

async fn accept(
    listener: TcpListener,
    remote: String,
    there: Arc<There>,
    room: Arc<Semaphore>,
) -> Failure {
    let mut connections = JoinSet::new();
    loop {
        // One too many waits until another has ended.
        let Ok(permit) = room.clone().acquire_owned().await else {
            return Failure::failed("it ends");
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                note(&format!("error: a connection could not be taken: {error}"));
                // Out of files, as a rule: one may be free soon.
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (there, remote) = (there.clone(), remote.clone());
        connections.spawn(async move {
            if let Err(failure) = there.connect(stream, &remote).await {
                note(&format!("error: {}", printable(&failure.what)));
            }
            drop(permit);
        });
    }
}

type Socket = WebSocketStream<TcpStream>;

impl There {
    /// One connection, from its begin to its end.
    async fn connect(&self, stream: TcpStream, remote: &str) -> Result<(), Failure> {
        // Looked up each time: the copy may be another by now.
        let id = exec::copy(&self.job, self.index, &self.context).await?;
        let query = Forward { port: remote.to_owned(), task: self.task.clone() };
        let socket = socket::connect(&id, "forward", &query, &self.context).await?;
        let _ = stream.set_nodelay(true);
        let (from, to) = stream.into_split();
        let (sink, messages) = socket.split();
        let mut outward = std::pin::pin!(outward(from, sink));
        let mut inward = std::pin::pin!(inward(messages, to));
        tokio::select! {
            ended = &mut inward => ended,
            // Our end is closed; what is still said to us comes until theirs is.
            sink = &mut outward => {
                let ended = inward.await;
                drop(sink);
                ended
            }
        }
    }
}

/// From the connection here, until it is closed. The sink comes back: dropping it would end all.
async fn outward(
    mut from: OwnedReadHalf,
    mut sink: SplitSink<Socket, Message>,
) -> SplitSink<Socket, Message> {
    let mut piece = vec![0; SESSION_PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await;
        let bytes = match &read {
            Ok(read) => piece.get(..*read).unwrap_or_default(),
            // Broken off: nobody is left to say anything to.
            Err(_) => {
                let _ = sink.close().await;
                return sink;
            }
        };
        // An empty message is the end of this direction.
        if sink.send(frame(exec_channel::STDIN, bytes)).await.is_err() || bytes.is_empty() {
            return sink;
        }
    }
}

/// From there, until that end is closed too.
async fn inward(mut messages: SplitStream<Socket>, mut to: OwnedWriteHalf) -> Result<(), Failure> {
    while let Some(message) = messages.next().await {
        let bytes = match message {
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Close(_)) => return Ok(()),
            Ok(_) => continue,
            Err(error) => return Err(Failure::failed(format!("the connection broke: {error}"))),
        };
        match bytes.split_first() {
            Some((&exec_channel::STDOUT, [])) => {
                let _ = to.shutdown().await;
            }
            Some((&exec_channel::STDOUT, bytes)) => {
                let gone = to.write_all(bytes).await.is_err();
                // Whoever connected does not listen any more.
                if gone {
                    return Ok(());
                }
            }
            Some((&exec_channel::EXIT, bytes)) => {
                let exit: ExecExit = serde_json::from_slice(bytes).unwrap_or_default();
                return exit.error.map_or(Ok(()), |error| Err(Failure::failed(error)));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_ports_read_as_they_are_written() {
        let pair = |text: &str| text.parse::<Pair>().map(|pair| (pair.local, pair.remote)).ok();
        let is = |local: u16, remote: &str| Some((local, remote.to_owned()));
        assert_eq!(pair("8080:80"), is(8080, "80"));
        assert_eq!(pair(":80"), is(0, "80"));
        assert_eq!(pair("80"), is(80, "80"));
        assert_eq!(pair("8080:http"), is(8080, "http"));
        assert_eq!(pair("http"), is(0, "http"));
        for bad in ["", ":", "80:", "x:80", "70000:80", "80:70000", "80:0", "1:2:3"] {
            assert_eq!(pair(bad), None, "{bad}");
        }
    }
}
