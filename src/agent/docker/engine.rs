//! The engine: lists, watches, starts and stops; labels say which container is whose.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker as Engine;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerState, ContainerSummaryStateEnum};
use bollard::query_parameters::{
    EventsOptionsBuilder, ListContainersOptionsBuilder, StopContainerOptionsBuilder,
};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;

use super::{adopt, create, exec, files, logs, usage};
use crate::agent::meter::Sample;
use crate::agent::order::{Owner, TaskKey, TaskOrder};
use crate::agent::runtime::{
    Answer, Condition, ExecInput, ExecOrder, ExecOutput, Exit, Found, Line, LogQuery, Notice,
    Runtime, RuntimeError, tail_text,
};
use crate::model::time::Timestamp;
use crate::rpc::v1::{FileInfo, FoundContainer};

/// Exit code of what was ended by SIGKILL.
const KILLED: i32 = 137;
/// The engine is asked so often why, so long apart.
const MEMORY_NEWS_LOOKS: u32 = 4;
const MEMORY_NEWS: Duration = Duration::from_millis(60);

/// Where the engine listens unless told otherwise.
const SOCKET: &str = "/var/run/docker.sock";
/// For an answer to begin, in seconds; starts on a loaded engine take their time.
const ANSWER_SECONDS: u64 = 120;
/// Added to a task's grace for the engine's own work.
const STOP_MARGIN: Duration = Duration::from_secs(30);

pub(super) const LABEL_CLUSTER: &str = "orch.cluster";
pub(super) const LABEL_NODE: &str = "orch.node";
pub(super) const LABEL_ALLOC: &str = "orch.alloc";
pub(super) const LABEL_TASK: &str = "orch.task";
pub(super) const LABEL_GENERATION: &str = "orch.generation";
pub(super) const LABEL_JOB: &str = "orch.job";

/// What the engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) struct EngineFacts {
    /// Its version.
    pub(in crate::agent) version: String,
}

/// The engine of this host.
#[derive(Debug, Clone)]
pub(in crate::agent) struct Docker {
    engine: Engine,
    volume_roots: Vec<PathBuf>,
}

impl Docker {
    /// Connects and asks for the engine's version.
    ///
    /// # Errors
    /// If it does not answer.
    pub(in crate::agent) async fn connect(
        socket: Option<&str>,
        volume_roots: Vec<PathBuf>,
    ) -> Result<(Self, EngineFacts), RuntimeError> {
        let socket = socket.unwrap_or(SOCKET);
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        let unavailable =
            |error: EngineError| RuntimeError::Unavailable(format!("{path}: {}", text(&error)));
        if !Path::new(path).exists() {
            return Err(RuntimeError::Unavailable(format!("{path}: no such socket")));
        }
        let engine = Engine::connect_with_unix(path, ANSWER_SECONDS, bollard::API_DEFAULT_VERSION)
            .map_err(unavailable)?
            // bollard encodes credentials with the standard alphabet, the engine wants the one for
            // URLs and silently ignores what it can't read.
            .with_request_modifier(|mut request| {
                const AUTH: &str = "X-Registry-Auth";
                let fixed = request.headers().get(AUTH).and_then(|value| {
                    let text = value.to_str().ok()?.replace('+', "-").replace('/', "_");
                    http::HeaderValue::from_str(&text).ok()
                });
                if let Some(fixed) = fixed {
                    request.headers_mut().insert(AUTH, fixed);
                }
                request
            });
        let connected = async {
            let engine = engine.negotiate_version().await?;
            let version = engine.version().await?.version.unwrap_or_default();
            Ok::<_, EngineError>((engine, version))
        };
        let (engine, version) = tokio::time::timeout(Duration::from_secs(10), connected)
            .await
            .map_err(|_| RuntimeError::Unavailable(format!("{path}: no answer within 10s")))?
            .map_err(unavailable)?;
        Ok((Self { engine, volume_roots }, EngineFacts { version }))
    }

    async fn list_sized(
        &self,
        owner: &Owner,
        size: bool,
    ) -> Result<Vec<(Found, Option<i64>)>, RuntimeError> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .size(size)
            .filters(&owned_by(owner, &[]).into_iter().collect())
            .build();
        let list = self.engine.list_containers(Some(options)).await.map_err(error)?;
        let found = list.into_iter().filter_map(|container| {
            let labels = container.labels?;
            let key = key_of(|label| labels.get(label))?;
            let running = matches!(
                container.state?,
                ContainerSummaryStateEnum::RUNNING
                    | ContainerSummaryStateEnum::PAUSED
                    | ContainerSummaryStateEnum::RESTARTING
            );
            Some((Found { key, handle: container.id?, running }, container.size_rw))
        });
        Ok(found.collect())
    }

    async fn condition(&self, handle: &str) -> Result<Condition, RuntimeError> {
        let state = match self.engine.inspect_container(handle, None).await.map_err(error) {
            Ok(container) => container.state.unwrap_or_default(),
            Err(RuntimeError::NotFound(_)) => return Ok(Condition::Absent),
            Err(error) => return Err(error),
        };
        if state.running == Some(true) {
            let started_at = state.started_at.as_deref().and_then(time);
            return Ok(Condition::Running { started_at });
        }
        // Created, but never started.
        let Some(finished_at) = state.finished_at.as_deref().and_then(time) else {
            return Ok(Condition::Absent);
        };
        let tail = self.tail(handle).await;
        let mut exit = exit(&state, finished_at, tail);
        if exit.code == KILLED && !exit.oom_killed {
            exit.oom_killed = self.was_short_of_memory(handle).await;
        }
        Ok(Condition::Ended(exit))
    }

    /// The engine hears of a kill for want of memory by another way than of the end, and that may
    /// be the slower one.
    async fn was_short_of_memory(&self, handle: &str) -> bool {
        for _ in 0..MEMORY_NEWS_LOOKS {
            tokio::time::sleep(MEMORY_NEWS).await;
            let again = self.engine.inspect_container(handle, None).await;
            let state = again.ok().and_then(|container| container.state);
            if state.and_then(|state| state.oom_killed) == Some(true) {
                return true;
            }
        }
        false
    }

    /// The end of what it printed; nothing if that can't be had.
    async fn tail(&self, handle: &str) -> String {
        let (sink, mut lines) = mpsc::channel(64);
        let query = LogQuery { tail: Some(50), ..LogQuery::default() };
        let read = logs::lines(&self.engine, handle, query, sink);
        let collect = async {
            let mut tail = Vec::new();
            while let Some(line) = lines.recv().await {
                tail.extend_from_slice(&line.text);
                tail.push(b'\n');
            }
            tail
        };
        let (_, tail) = futures::future::join(read, collect).await;
        tail_text(&tail)
    }
}

impl Runtime for Docker {
    fn word(&self) -> &'static str {
        "docker"
    }

    fn list<'a>(&'a self, owner: &'a Owner) -> Answer<'a, Vec<Found>> {
        async {
            let list = self.list_sized(owner, false).await?;
            Ok(list.into_iter().map(|(found, _)| found).collect())
        }
        .boxed()
    }

    fn watch<'a>(
        &'a self,
        owner: &'a Owner,
        since: Timestamp,
        sink: mpsc::Sender<Notice>,
    ) -> Answer<'a, ()> {
        async move {
            // Without the filter health checks alone would flood it.
            let filters = [("type", &["container"][..]), ("event", &["die", "destroy"][..])];
            let own: BTreeMap<_, _> = owned_by(owner, &filters).into_iter().collect();
            // Containers that were taken over have no labels of ours: theirs is looked for.
            let mut taken = own.clone();
            taken.insert("label".to_owned(), vec![adopt::LABEL.to_owned()]);
            let since = (since.0 / 1000).to_string();
            let stream = |filters: &BTreeMap<String, Vec<String>>| {
                let filters = filters.clone().into_iter().collect();
                let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
                self.engine.events(Some(options))
            };
            let own = stream(&own).map(|event| (event, false));
            let taken = stream(&taken).map(|event| (event, true));
            let mut events = std::pin::pin!(futures::stream::select(own, taken));
            while let Some((event, taken)) = events.next().await {
                let event = event.map_err(|e| RuntimeError::Unavailable(text(&e)))?;
                let Some(actor) = event.actor else { continue };
                let notice = if taken {
                    actor.id.map(Notice::Container)
                } else {
                    let labels = actor.attributes;
                    labels.and_then(|labels| key_of(|label| labels.get(label))).map(Notice::Task)
                };
                if let Some(notice) = notice
                    && sink.send(notice).await.is_err()
                {
                    return Ok(());
                }
            }
            Err(RuntimeError::Unavailable("the Docker engine went away".to_owned()))
        }
        .boxed()
    }

    fn find<'a>(&'a self, mesos_tasks: &'a [String]) -> Answer<'a, Vec<FoundContainer>> {
        adopt::find(&self.engine, mesos_tasks).boxed()
    }

    fn pull<'a>(&'a self, order: &'a TaskOrder) -> Answer<'a, ()> {
        create::pull(&self.engine, order).boxed()
    }

    fn start<'a>(&'a self, order: &'a TaskOrder, reuse: Option<&'a str>) -> Answer<'a, String> {
        async move {
            if let Some(handle) = reuse {
                match self.engine.start_container(handle, None).await.map_err(error) {
                    Ok(()) => return Ok(handle.to_owned()),
                    Err(RuntimeError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            create::start(&self.engine, order, &self.volume_roots).await
        }
        .boxed()
    }

    fn stop<'a>(&'a self, _: &'a TaskKey, handle: &'a str, grace: Duration) -> Answer<'a, ()> {
        async move {
            // The answer comes when it has ended: later than any other.
            let engine = self.engine.clone().with_timeout(grace + STOP_MARGIN);
            let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::new().t(seconds).build();
            engine.stop_container(handle, Some(options)).await.map_err(error)
        }
        .boxed()
    }

    fn remove<'a>(&'a self, _: &'a TaskKey, handle: &'a str) -> Answer<'a, ()> {
        create::remove(&self.engine, handle).boxed()
    }

    fn inspect<'a>(&'a self, _: &'a TaskKey, handle: &'a str) -> Answer<'a, Condition> {
        self.condition(handle).boxed()
    }

    fn logs<'a>(
        &'a self,
        _: &'a TaskKey,
        handle: &'a str,
        query: LogQuery,
        sink: mpsc::Sender<Line>,
    ) -> Answer<'a, ()> {
        logs::lines(&self.engine, handle, query, sink).boxed()
    }

    fn exec<'a>(
        &'a self,
        _: &'a TaskKey,
        handle: &'a str,
        order: ExecOrder,
        input: mpsc::Receiver<ExecInput>,
        output: mpsc::Sender<ExecOutput>,
    ) -> Answer<'a, i32> {
        exec::run(&self.engine, handle, order, input, output).boxed()
    }

    fn look_at<'a>(
        &'a self,
        _: &'a TaskKey,
        handle: &'a str,
        path: &'a str,
    ) -> Answer<'a, FileInfo> {
        files::look_at(&self.engine, handle, path).boxed()
    }

    fn read_files<'a>(
        &'a self,
        _: &'a TaskKey,
        handle: &'a str,
        path: &'a str,
        output: mpsc::Sender<ExecOutput>,
    ) -> Answer<'a, ()> {
        files::read(&self.engine, handle, path, output).boxed()
    }

    fn write_files<'a>(
        &'a self,
        _: &'a TaskKey,
        handle: &'a str,
        path: &'a str,
        input: mpsc::Receiver<ExecInput>,
    ) -> Answer<'a, ()> {
        files::write(&self.engine, handle, path, input).boxed()
    }

    fn inside<'a>(&'a self, _: &'a TaskKey, handle: &'a str) -> Answer<'a, Option<IpAddr>> {
        async move {
            let container = self.engine.inspect_container(handle, None).await.map_err(error)?;
            let networks = container.network_settings.and_then(|network| network.networks);
            let addresses = networks.unwrap_or_default().into_values();
            let address =
                addresses.filter_map(|network| network.ip_address?.parse::<IpAddr>().ok()).next();
            match address {
                Some(address) => Ok(Some(address)),
                None => Err(RuntimeError::Refused(
                    "the container has no address of its own; only its published ports can be \
                     reached"
                        .to_owned(),
                )),
            }
        }
        .boxed()
    }

    fn usage<'a>(&'a self, tasks: &'a [(TaskKey, String)]) -> Answer<'a, Vec<(TaskKey, Sample)>> {
        usage::samples(&self.engine, tasks).boxed()
    }

    fn disk_used<'a>(&'a self, owner: &'a Owner) -> Answer<'a, BTreeMap<TaskKey, u64>> {
        async {
            let list = self.list_sized(owner, true).await?;
            let sizes = list.into_iter().filter_map(|(found, size)| {
                Some((found.key, u64::try_from(size?).unwrap_or_default()))
            });
            Ok(sizes.collect())
        }
        .boxed()
    }
}

/// Filters of the engine's lists: each key with the values that will do.
fn owned_by(owner: &Owner, more: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let labels = vec![
        format!("{LABEL_CLUSTER}={}", owner.cluster_label()),
        format!("{LABEL_NODE}={}", owner.node),
    ];
    let more = more.iter().map(|(key, values)| {
        ((*key).to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
    });
    std::iter::once(("label".to_owned(), labels)).chain(more).collect()
}

fn key_of<'l>(label: impl Fn(&str) -> Option<&'l String>) -> Option<TaskKey> {
    Some(TaskKey {
        alloc: label(LABEL_ALLOC)?.parse().ok()?,
        task: label(LABEL_TASK)?.parse().ok()?,
    })
}

/// The engine's time; none for its "never", which is the year 1.
fn time(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().filter(|at| *at > 0).map(Timestamp)
}

fn exit(state: &ContainerState, finished_at: Timestamp, tail: String) -> Exit {
    let code = state.exit_code.unwrap_or_default();
    Exit {
        code: i32::try_from(code).unwrap_or(i32::MAX),
        oom_killed: state.oom_killed.unwrap_or_default(),
        finished_at: Some(finished_at),
        error: state.error.clone().unwrap_or_default(),
        tail,
    }
}

/// The engine's own words.
fn text(error: &EngineError) -> String {
    match error {
        EngineError::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        EngineError::DockerStreamError { error } => error.trim().to_owned(),
        other => other.to_string(),
    }
}

pub(super) fn error(error: EngineError) -> RuntimeError {
    let text = text(&error);
    match error {
        EngineError::DockerResponseServerError { status_code: 404, .. }
            if text.contains("No such image") =>
        {
            RuntimeError::ImageMissing(text)
        }
        EngineError::DockerResponseServerError { status_code: 404, .. } => {
            RuntimeError::NotFound(text)
        }
        // Bad gateway and the like, and what an engine that shuts down says.
        EngineError::DockerResponseServerError { status_code: 502..=504, .. }
        | EngineError::IOError { .. }
        | EngineError::HyperResponseError { .. }
        | EngineError::HyperLegacyError { .. }
        | EngineError::SocketNotFoundError(_)
        | EngineError::RequestTimeoutError => {
            RuntimeError::Unavailable(format!("the Docker engine does not answer: {text}"))
        }
        _ => RuntimeError::Failed(text),
    }
}
