//! Output of allocations and jobs, as lines of JSON.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::{BoxFuture, join_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use super::context::{Context, StreamSlot, project};
use super::error::Problem;
use super::extract::{Params, Segment};
use super::from_state::allocation::newest;
use super::log_merge::{Merge, Source};
use super::view::allocation::LogLine;
use super::view::problem::ProblemDetails;
use super::view::query::{AllocationLogs, ConsistencyChoice, JobLogs};
use super::view::time::Time;
use crate::limits::{API_LOG_SOURCES_MAX, LOG_TAIL_LINES_MAX};
use crate::model::allocation::{AllocStatus, Allocation};
use crate::model::job::JobSpec;
use crate::model::name::{AllocId, JobId, JobName, TaskName};
use crate::model::pattern::Pattern;
use crate::rpc::v1::session_request::Kind;
use crate::rpc::v1::{LogCursor, LogsRequest, SessionRequest};
use crate::server::{Session, SessionError};
use crate::state::State as ClusterState;

/// How often a followed job is looked at for copies that came since.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Chunks of lines waiting for a slow reader; its agents wait meanwhile.
const CHUNKS: usize = 4;

/// What of the output is wanted.
#[derive(Debug, Clone)]
struct Wanted {
    follow: bool,
    tail: Option<u32>,
    since: u64,
    task: Option<TaskName>,
    /// As it was given; what it means is checked.
    grep: String,
    ignore_case: bool,
}

/// The query of either route.
struct Asked {
    follow: bool,
    tail: Option<u32>,
    since: Option<String>,
    task: Option<String>,
    grep: Option<String>,
    ignore_case: bool,
}

impl Wanted {
    fn new(asked: Asked) -> Result<Self, Problem> {
        let Asked { follow, tail, since, task, grep, ignore_case } = asked;
        if tail.is_some_and(|tail| tail > LOG_TAIL_LINES_MAX) {
            return Err(Problem::bad_request(format!(
                "?tail= is at most {LOG_TAIL_LINES_MAX}; leave it away for all there is"
            )));
        }
        let since: Option<Time> = since
            .map(|since| since.parse())
            .transpose()
            .map_err(|error| Problem::bad_request(format!("?since=: {error}")))?;
        let task = task
            .map(|task| task.parse())
            .transpose()
            .map_err(|error| Problem::invalid(format!("?task=: {error}")))?;
        let grep = grep.unwrap_or_default();
        Pattern::new(&grep, ignore_case)
            .map_err(|error| Problem::bad_request(format!("?grep=: {error}")))?;
        let since = since.map_or(0, |since| since.0.0);
        Ok(Self { follow, tail, since, task, grep, ignore_case })
    }

    fn check_task(&self, id: &JobId, spec: &JobSpec) -> Result<(), Problem> {
        let Some(wanted) = &self.task else { return Ok(()) };
        if spec.tasks.iter().any(|task| task.name == *wanted) {
            return Ok(());
        }
        let names: Vec<&str> = spec.tasks.iter().map(|task| task.name.as_str()).collect();
        let names = names.join(", ");
        let detail = format!("job {id} has no task {wanted}; it has {names}");
        Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail))
    }

    /// The session to open; `after` is where to go on.
    fn request(&self, alloc: &Allocation, after: Vec<LogCursor>) -> SessionRequest {
        SessionRequest {
            node: alloc.node.to_string(),
            alloc: alloc.id.0,
            task: self.task.as_ref().map(ToString::to_string).unwrap_or_default(),
            kind: Some(Kind::Logs(LogsRequest {
                follow: self.follow,
                tail: self.tail,
                since: self.since,
                grep: self.grep.clone(),
                ignore_case: self.ignore_case,
                after,
            })),
        }
    }
}

/// Output of one allocation.
#[utoipa::path(
    get, path = "/v1/allocations/{id}/logs", tag = "allocations",
    params(("id" = String, Path, description = "As a17"), AllocationLogs),
    responses((status = 200, body = LogLine, content_type = "application/x-ndjson"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn allocation_logs(
    State(context): State<Context>,
    Segment(id): Segment<AllocId>,
    Params(query): Params<AllocationLogs>,
) -> Result<Response, Problem> {
    let AllocationLogs { follow, tail, since, task, grep, ignore_case } = query;
    let wanted = Wanted::new(Asked { follow, tail, since, task, grep, ignore_case })?;
    let slot = context.stream_slot()?;
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let alloc = view.state.alloc(id).ok_or_else(|| Problem::not_found("allocation", id))?;
    if let Some(job) = view.state.job(&alloc.job) {
        wanted.check_task(&alloc.job, job.spec_of(alloc.version))?;
    }
    let request = wanted.request(alloc, Vec::new());
    let session = context.agents.open_session(request).await?;
    let merge = Merge::new(vec![Source::new(alloc, session)]);
    Ok(stream(Feed::new(context, wanted, merge, None), slot))
}

/// Output of a job's copies, merged by time.
#[utoipa::path(
    get, path = "/v1/jobs/{name}/logs", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), JobLogs),
    responses((status = 200, body = LogLine, content_type = "application/x-ndjson"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn job_logs(
    State(context): State<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<JobLogs>,
) -> Result<Response, Problem> {
    let JobLogs { project: of, index, follow, tail, since, task, grep, ignore_case } = query;
    let id = JobId { project: project(of.as_deref())?, name };
    let wanted = Wanted::new(Asked { follow, tail, since, task, grep, ignore_case })?;
    let slot = context.stream_slot()?;
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let job = view.state.job(&id).ok_or_else(|| Problem::not_found("job", &id))?;
    wanted.check_task(&id, job.spec())?;
    let allocs = copies(&view.state, &id, index);
    if allocs.is_empty() && !follow {
        let what = index.map_or_else(|| id.to_string(), |index| format!("{id}.{index}"));
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("no copy of {what} was placed yet, so there is no output"),
        ));
    }
    if allocs.len() > API_LOG_SOURCES_MAX {
        return Err(Problem::invalid(format!(
            "job {id} has {} copies, and the output of {API_LOG_SOURCES_MAX} at most is merged; \
             name one with ?index=",
            allocs.len()
        )));
    }
    let requests = allocs.iter().map(|alloc| wanted.request(alloc, Vec::new()));
    let opened = join_all(requests.map(|request| context.agents.open_session(request))).await;
    // What ended before is not news to whoever follows.
    let known = view.state.allocs_of(&id).map(|alloc| alloc.id).collect();
    let failed = opened.iter().all(Result::is_err);
    let mut sources = Vec::new();
    for (alloc, outcome) in allocs.iter().zip(opened) {
        match outcome {
            Ok(session) => sources.push(Source::new(alloc, session)),
            Err(error) if failed && !follow => return Err(error.into()),
            Err(error) if !follow => sources.push(Source::broken(alloc, error.to_string())),
            Err(error) => sources.push(Source::lost(alloc, &error)),
        }
    }
    let more = follow.then_some(More { id, index, known });
    Ok(stream(Feed::new(context, wanted, Merge::new(sources), more), slot))
}

/// The allocations whose output is a job's: all that have not ended, since an old and a new one
/// of the same number may be up at once; and of copies that have none, the last that has ended.
fn copies(state: &ClusterState, id: &JobId, index: Option<u32>) -> Vec<Arc<Allocation>> {
    let newest: BTreeSet<AllocId> = newest(state, id).into_values().map(|alloc| alloc.id).collect();
    state
        .allocs_of(id)
        .filter(|alloc| !alloc.ended() || newest.contains(&alloc.id))
        .filter(|alloc| index.is_none_or(|index| alloc.index == index))
        .filter_map(|alloc| state.alloc(alloc.id).cloned())
        .collect()
}

/// A followed job's copies.
struct More {
    id: JobId,
    index: Option<u32>,
    /// Those that are being read, or need not be.
    known: BTreeSet<AllocId>,
}

impl More {
    /// Copies that came since the last look, also those that have ended already.
    fn news(&mut self, state: &ClusterState) -> Vec<Arc<Allocation>> {
        let there: BTreeSet<AllocId> = state.allocs_of(&self.id).map(|alloc| alloc.id).collect();
        let come: Vec<_> = there
            .difference(&self.known)
            .filter_map(|id| state.alloc(*id).cloned())
            .filter(|alloc| self.index.is_none_or(|index| alloc.index == index))
            .collect();
        // Those that are forgotten never come again.
        self.known = there;
        come
    }
}

type Opening = BoxFuture<'static, (Arc<Allocation>, Result<Session, SessionError>)>;

/// Lines on their way to one reader.
struct Feed {
    context: Context,
    wanted: Wanted,
    merge: Merge,
    more: Option<More>,
    /// Copies on the way to be read, again or for the first time: none holds up the others.
    opening: FuturesUnordered<Opening>,
    /// Those that wait for a place.
    waiting: VecDeque<Arc<Allocation>>,
    /// When the reader came.
    began: u64,
}

fn stream(mut feed: Feed, slot: StreamSlot) -> Response {
    let (chunks, body) = mpsc::channel::<Result<Bytes, std::convert::Infallible>>(CHUNKS);
    tokio::spawn(async move {
        let stop = feed.context.stop.clone();
        let reader_gone = chunks.clone();
        tokio::select! {
            () = feed.run(&chunks) => {}
            () = reader_gone.closed() => {}
            () = stop.cancelled() => {
                let error = Some("this server is stopping; ask another".to_owned());
                // A reader that takes nothing hears no farewell.
                let _ = chunks.try_send(Ok(encode(&[LogLine { error, ..LogLine::default() }])));
            }
        }
        drop(slot);
    });
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, body).into_response()
}

fn encode(lines: &[LogLine]) -> Bytes {
    let mut bytes = Vec::new();
    for line in lines {
        // Lines have only texts and numbers: they always encode.
        if serde_json::to_writer(&mut bytes, line).is_ok() {
            bytes.push(b'\n');
        }
    }
    bytes.into()
}

impl Feed {
    fn new(context: Context, wanted: Wanted, merge: Merge, more: Option<More>) -> Self {
        let began = context.clock.now().0;
        let (opening, waiting) = (FuturesUnordered::new(), VecDeque::new());
        Self { context, wanted, merge, more, opening, waiting, began }
    }

    async fn run(&mut self, chunks: &mpsc::Sender<Result<Bytes, std::convert::Infallible>>) {
        let mut look = tokio::time::interval(LOOK_AGAIN);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let lines = tokio::select! {
                lines = self.merge.next(self.wanted.follow), if !self.merge.is_empty() => lines,
                Some((alloc, opened)) = self.opening.next() => {
                    self.opened(&alloc, opened);
                    continue;
                }
                _ = look.tick(), if self.wanted.follow => {
                    if self.is_over() {
                        return;
                    }
                    self.look_again();
                    continue;
                }
                // Nothing is left to read, and nothing is to come.
                else => return,
            };
            if let Some(lines) = lines
                && chunks.send(Ok(encode(&lines))).await.is_err()
            {
                return;
            }
        }
    }

    fn state(&self) -> Arc<ClusterState> {
        self.context.consensus.views().borrow().state.clone()
    }

    fn is_over(&self) -> bool {
        if !self.merge.is_empty() || !self.opening.is_empty() || !self.waiting.is_empty() {
            return false;
        }
        let Some(more) = &self.more else { return true };
        let state = self.state();
        let active = state.job(&more.id).is_some_and(|job| job.active());
        !active && state.allocs_of(&more.id).all(|alloc| more.known.contains(&alloc.id))
    }

    /// Opens what came since, and what broke off.
    fn look_again(&mut self) {
        let state = self.state();
        if let Some(more) = &mut self.more {
            self.waiting.extend(more.news(&state));
        }
        while self.merge.len() + self.opening.len() < API_LOG_SOURCES_MAX {
            let Some(alloc) = self.waiting.pop_front() else { break };
            // All that a new copy has printed is new to the reader.
            let wanted = Wanted { tail: None, ..self.wanted.clone() };
            let request = wanted.request(&alloc, Vec::new());
            self.open(alloc, request);
        }
        for (id, seen) in self.merge.take_lost() {
            let Some(alloc) = state.alloc(id).cloned() else {
                self.merge.end(id, "the cluster has forgotten it".to_owned());
                continue;
            };
            if alloc.status == AllocStatus::Lost {
                let why =
                    format!("node {} is lost; what it printed there can't be read", alloc.node);
                self.merge.end(id, why);
                continue;
            }
            let request = match seen {
                // Without a line of it there is only the time to go by.
                Some(after) if after.is_empty() && self.wanted.tail.is_some() => {
                    let since = self.wanted.since.max(self.began);
                    Wanted { tail: None, since, ..self.wanted.clone() }.request(&alloc, after)
                }
                Some(after) => Wanted { tail: None, ..self.wanted.clone() }.request(&alloc, after),
                // It was never open.
                None => self.wanted.request(&alloc, Vec::new()),
            };
            self.open(alloc, request);
        }
    }

    fn open(&mut self, alloc: Arc<Allocation>, request: SessionRequest) {
        let agents = self.context.agents.clone();
        self.opening.push(
            async move {
                let opened = agents.open_session(request).await;
                (alloc, opened)
            }
            .boxed(),
        );
    }

    fn opened(&mut self, alloc: &Allocation, opened: Result<Session, SessionError>) {
        match opened {
            Ok(session) => self.merge.put(alloc, session),
            Err(error) if error.code() == "unreachable" => self.merge.put_lost(alloc, &error),
            Err(error) => self.merge.give_up(alloc, error.to_string()),
        }
    }
}
