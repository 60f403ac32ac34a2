//! Sessions: someone reads a task's log or runs a command in it, through the leader.
//!
//! Every queue is bounded, and a slow reader holds up its own session alone: containers write to
//! their log files whoever reads them.

use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Streaming;
use tonic::transport::Channel;

use super::keeper::Event;
use super::order::TaskKey;
use super::runtime::{After, ExecInput, ExecOrder, ExecOutput, Line, LogQuery, RuntimeError};
use super::view::View;
use crate::clock::SharedClock;
use crate::limits::{
    ADOPT_TASKS_MAX, COMMAND_WORDS_MAX, LOG_TAIL_LINES_MAX, SESSION_FRAME_BYTES, SESSION_QUEUE_MAX,
};
use crate::model::name::{AllocId, TaskName};
use crate::model::pattern::Pattern;
use crate::model::time::Millis;
use crate::rpc::v1::agents_client::AgentsClient;
use crate::rpc::v1::session_frame::Frame;
use crate::rpc::v1::session_request::Kind;
use crate::rpc::v1::{
    ExecRequest, Exit, FoundContainers, LogLine, LogLines, LogsRequest, OpenSession, SessionError,
    SessionFrame, SessionRequest,
};

/// Between two looks whether a task that ended runs again.
const LOOK_AGAIN: Millis = Millis(200);
/// How long a server may take to take the last frame.
const LAST_FRAME_TAKEN: std::time::Duration = std::time::Duration::from_secs(5);
/// Lines that wait to be put into a frame.
const LINES_WAITING: usize = 256;

/// Why a session ends badly, with its code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure(pub(super) &'static str, pub(super) String);

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let code = match error {
            RuntimeError::NotFound(_) | RuntimeError::ImageMissing(_) => "not_found",
            RuntimeError::Unavailable(_) => "unreachable",
            RuntimeError::Refused(_) => "refused",
            RuntimeError::Failed(_) | RuntimeError::Cancelled => "failed",
        };
        Self(code, error.to_string())
    }
}

/// Carries a session out; `refused` if there are too many already.
pub(super) async fn run(
    mut client: AgentsClient<Channel>,
    open: OpenSession,
    events: mpsc::Sender<Event>,
    clock: SharedClock,
    refused: bool,
) {
    let (frames, outgoing) = mpsc::channel(SESSION_QUEUE_MAX);
    let hello = SessionFrame { frame: Some(Frame::Session(open.session)) };
    if frames.send(hello).await.is_err() {
        return;
    }
    let mut incoming = match client.session(ReceiverStream::new(outgoing)).await {
        Ok(answer) => answer.into_inner(),
        Err(error) => return tracing::debug!(%error, "a session was not taken"),
    };
    let session = Session { frames: frames.clone(), events, clock };
    let outcome = if refused {
        Err(Failure("refused", "too many sessions are open on this node".to_owned()))
    } else {
        session.serve(open.request.unwrap_or_default(), &mut incoming).await
    };
    let last = match outcome {
        Ok(code) => Frame::Exit(Exit { code }),
        Err(Failure(code, message)) => {
            Frame::Error(SessionError { code: code.to_owned(), message })
        }
    };
    let _ = frames.send(SessionFrame { frame: Some(last) }).await;
    // Letting go of the answers would reset the stream, and with it what is still to be sent.
    drop((session, frames));
    let taken = async { while let Ok(Some(_)) = incoming.message().await {} };
    let _ = tokio::time::timeout(LAST_FRAME_TAKEN, taken).await;
}

#[derive(Clone)]
pub(super) struct Session {
    frames: mpsc::Sender<SessionFrame>,
    events: mpsc::Sender<Event>,
    clock: SharedClock,
}

impl Session {
    async fn serve(
        &self,
        request: SessionRequest,
        incoming: &mut Streaming<SessionFrame>,
    ) -> Result<i32, Failure> {
        if let Some(Kind::Find(find)) = request.kind {
            return self.find(&find.mesos_tasks).await.map(|()| 0);
        }
        let alloc = AllocId(request.alloc);
        let task = match request.task.as_str() {
            "" => None,
            name => Some(name.parse::<TaskName>().map_err(|error| {
                Failure("not_found", format!("there is no task {name:?}: {error}"))
            })?),
        };
        let views = self.look(alloc, task.clone()).await?;
        if views.is_empty() {
            let what =
                task.map_or_else(|| alloc.to_string(), |task| format!("task {task} of {alloc}"));
            return Err(Failure("not_found", format!("this node has nothing of {what}")));
        }
        match request.kind {
            Some(Kind::Logs(logs)) => {
                // Whoever reads says nothing; that the line ends is all that can come.
                let left = async { while let Ok(Some(_)) = incoming.message().await {} };
                tokio::select! {
                    done = self.logs(views, logs) => done.map(|()| 0),
                    () = left => Err(Failure("failed", "the reader left".to_owned())),
                }
            }
            Some(Kind::Exec(exec)) => self.exec(&views, exec, incoming).await,
            Some(Kind::Files(files)) => self.files(&views, files, incoming).await.map(|()| 0),
            Some(Kind::Forward(to)) => self.forward(&views, &to, incoming).await.map(|()| 0),
            Some(Kind::Find(_)) | None => {
                Err(Failure("refused", "the session asks for nothing known".to_owned()))
            }
        }
    }

    /// Looks for containers that run under Mesos.
    async fn find(&self, mesos_tasks: &[String]) -> Result<(), Failure> {
        if mesos_tasks.len() > ADOPT_TASKS_MAX {
            return Err(Failure("refused", format!("more than {ADOPT_TASKS_MAX} tasks")));
        }
        let (reply, answer) = oneshot::channel();
        let stops = || Failure("unreachable", "the agent stops".to_owned());
        self.events.send(Event::Containers { reply }).await.map_err(|_| stops())?;
        let Some(runtime) = answer.await.map_err(|_| stops())? else {
            return Err(Failure("unreachable", "the Docker engine does not answer".to_owned()));
        };
        let containers = runtime.find(mesos_tasks).await?;
        let frame = Frame::Found(FoundContainers { containers });
        let frame = SessionFrame { frame: Some(frame) };
        self.frames.send(frame).await.map_err(|_| stops())
    }

    async fn look(&self, alloc: AllocId, task: Option<TaskName>) -> Result<Vec<View>, Failure> {
        let (reply, answer) = oneshot::channel();
        let stops = || Failure("unreachable", "the agent stops".to_owned());
        let asked = Event::Lookup { alloc, task, reply };
        self.events.send(asked).await.map_err(|_| stops())?;
        answer.await.map_err(|_| stops())
    }

    // --- logs ---

    async fn logs(&self, views: Vec<View>, request: LogsRequest) -> Result<(), Failure> {
        let grep = match request.grep.as_str() {
            "" => None,
            text => Some(Pattern::new(text, request.ignore_case).map_err(|error| {
                Failure("refused", format!("the pattern can't be looked for: {error}"))
            })?),
        };
        // Lines of that very millisecond are wanted as well.
        let since = After::both(request.since.saturating_mul(1_000_000).saturating_sub(1));
        let after = |task: &TaskName| {
            let known = request.after.iter().find(|cursor| cursor.task == task.as_str());
            known.map_or(since, |cursor| {
                since.max(After { stdout: cursor.stdout, stderr: cursor.stderr })
            })
        };
        let follow = request.follow;
        let mut sources = Vec::new();
        for view in views {
            let query = LogQuery {
                follow,
                tail: request.tail.map(|lines| lines.min(LOG_TAIL_LINES_MAX)),
                after: after(&view.key.task),
                grep: grep.clone(),
            };
            let (sink, lines) = mpsc::channel(LINES_WAITING);
            let (session, key) = (self.clone(), view.key.clone());
            let read = tokio::spawn(async move { session.read(key, query, sink).await });
            sources.push(Source { task: view.key.task, lines, read: AbortOnDropHandle::new(read) });
        }
        if follow { self.as_they_come(sources).await } else { self.by_time(sources).await }
    }

    /// Reads one task's lines, across its restarts if the query follows.
    async fn read(
        self,
        key: TaskKey,
        mut query: LogQuery,
        sink: mpsc::Sender<Line>,
    ) -> Result<(), Failure> {
        let mut read_of: Option<String> = None;
        loop {
            let views = self.look(key.alloc, Some(key.task.clone())).await?;
            let Some(view) = views.into_iter().next() else { return Ok(()) };
            let readable = view.runtime.zip(view.handle);
            // A last look finds what it printed in a run that was too short to be seen.
            let news = view.running
                || view.over
                || readable.as_ref().map(|(_, handle)| handle) != read_of.as_ref();
            if let Some((runtime, handle)) = readable.filter(|_| news) {
                let began = self.clock.now().0.saturating_mul(1_000_000);
                let (lines, mut pieces) = mpsc::channel::<Line>(LINES_WAITING);
                let asked = LogQuery { follow: query.follow && !view.over, ..query.clone() };
                let read = runtime.logs(&key, &handle, asked, lines);
                let mut last = query.after;
                let pass = async {
                    while let Some(line) = pieces.recv().await {
                        last.saw(&line);
                        if sink.send(line).await.is_err() {
                            break;
                        }
                    }
                };
                let (read, ()) = futures::future::join(read, pass).await;
                match read {
                    Ok(()) => {}
                    // It is being replaced, or the engine is away for a moment.
                    Err(_) if query.follow && !view.over => {}
                    Err(error) => return Err(error.into()),
                }
                if query.tail.take().is_some() {
                    // What was left out of the first part stays left out.
                    last = last.max(After::both(began));
                }
                query.after = last;
                read_of = Some(handle);
            }
            if !query.follow || view.over || sink.is_closed() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN.as_duration()).await;
        }
    }

    async fn as_they_come(&self, sources: Vec<Source>) -> Result<(), Failure> {
        join_all(sources.into_iter().map(|source| self.pass_on(source))).await.into_iter().collect()
    }

    async fn pass_on(&self, mut source: Source) -> Result<(), Failure> {
        let mut waiting = Vec::new();
        while source.lines.recv_many(&mut waiting, LINES_WAITING).await > 0 {
            let mut frame = Lines::default();
            for line in waiting.drain(..) {
                if frame.push(&source.task, line) {
                    self.send_lines(&mut frame).await?;
                }
            }
            self.send_lines(&mut frame).await?;
        }
        source.result().await
    }

    /// Each source is in order: the earliest of the next ones is the next of all.
    async fn by_time(&self, mut sources: Vec<Source>) -> Result<(), Failure> {
        let mut heads: Vec<Option<Line>> = Vec::new();
        for source in &mut sources {
            heads.push(source.lines.recv().await);
        }
        let mut frame = Lines::default();
        loop {
            let earliest = heads
                .iter()
                .enumerate()
                .filter_map(|(at, head)| Some((head.as_ref()?.at, at)))
                .min();
            let Some((_, at)) = earliest else { break };
            let Some(source) = sources.get_mut(at) else { break };
            let next = source.lines.recv().await;
            if let Some(line) = heads.get_mut(at).and_then(|head| std::mem::replace(head, next))
                && frame.push(&source.task, line)
            {
                self.send_lines(&mut frame).await?;
            }
        }
        self.send_lines(&mut frame).await?;
        for source in sources {
            source.result().await?;
        }
        Ok(())
    }

    async fn send_lines(&self, lines: &mut Lines) -> Result<(), Failure> {
        let lines = std::mem::take(lines).lines;
        if lines.is_empty() {
            return Ok(());
        }
        self.send(Frame::Logs(LogLines { lines })).await
    }

    pub(super) async fn send(&self, frame: Frame) -> Result<(), Failure> {
        let sent = self.frames.send(SessionFrame { frame: Some(frame) }).await;
        sent.map_err(|_| Failure("failed", "the reader left".to_owned()))
    }

    // --- exec ---

    async fn exec(
        &self,
        views: &[View],
        request: ExecRequest,
        incoming: &mut Streaming<SessionFrame>,
    ) -> Result<i32, Failure> {
        let view = only(views)?;
        if request.command.is_empty() || request.command.len() > COMMAND_WORDS_MAX {
            let text = format!("a command has 1 to {COMMAND_WORDS_MAX} words");
            return Err(Failure("refused", text));
        }
        let task = &view.key.task;
        let Some(runtime) = &view.runtime else {
            return Err(Failure("unreachable", format!("the runtime of task {task} is away")));
        };
        let Some(handle) = view.handle.as_deref().filter(|_| view.running) else {
            return Err(Failure("refused", format!("task {task} does not run now")));
        };
        let size = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let order = ExecOrder {
            command: request.command,
            stdin: request.stdin,
            tty: request.tty,
            columns: size(request.columns),
            rows: size(request.rows),
        };
        let (feed, input) = mpsc::channel(SESSION_QUEUE_MAX);
        let (output, mut pieces) = mpsc::channel(SESSION_QUEUE_MAX);
        let run = runtime.exec(&view.key, handle, order, input, output);
        let read = async {
            // The sender lives to the end of the line: dropping it ends the command.
            while let Ok(Some(frame)) = incoming.message().await {
                let item = match frame.frame {
                    Some(Frame::Stdin(bytes)) => ExecInput::Stdin(bytes),
                    Some(Frame::StdinEnd(_)) => ExecInput::StdinEnd,
                    Some(Frame::Resize(new)) => {
                        ExecInput::Resize { columns: size(new.columns), rows: size(new.rows) }
                    }
                    Some(Frame::Signal(number)) => ExecInput::Signal(number),
                    _ => continue,
                };
                if feed.send(item).await.is_err() {
                    break;
                }
            }
        };
        let pass = async {
            while let Some(piece) = pieces.recv().await {
                self.send(match piece {
                    ExecOutput::Stdout(bytes) => Frame::Stdout(bytes),
                    ExecOutput::Stderr(bytes) => Frame::Stderr(bytes),
                })
                .await?;
            }
            Ok::<_, Failure>(())
        };
        let work = async { tokio::join!(run, pass) };
        tokio::select! {
            (code, passed) = work => {
                passed?;
                Ok(code?)
            }
            () = read => Err(Failure("failed", "the caller left".to_owned())),
        }
    }
}

/// The task that is meant, of those there are.
pub(super) fn only(views: &[View]) -> Result<&View, Failure> {
    match views {
        [view] => Ok(view),
        _ => {
            let names = views.iter().map(|view| view.key.task.to_string()).collect::<Vec<_>>();
            let names = names.join(", ");
            Err(Failure("refused", format!("it has several tasks, name one: {names}")))
        }
    }
}

/// One task's lines.
struct Source {
    task: TaskName,
    lines: mpsc::Receiver<Line>,
    read: AbortOnDropHandle<Result<(), Failure>>,
}

impl Source {
    async fn result(self) -> Result<(), Failure> {
        drop(self.lines);
        match self.read.await {
            Ok(result) => result,
            Err(error) => Err(Failure("failed", error.to_string())),
        }
    }
}

/// Lines for one frame.
#[derive(Default)]
struct Lines {
    lines: Vec<LogLine>,
    bytes: usize,
}

impl Lines {
    /// Adds one; whether the frame is full.
    fn push(&mut self, task: &TaskName, line: Line) -> bool {
        self.bytes += line.text.len() + 16;
        let Line { at, stderr, text } = line;
        self.lines.push(LogLine { at, stderr, text, task: task.to_string() });
        self.bytes >= SESSION_FRAME_BYTES
    }
}
