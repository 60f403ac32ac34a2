//! Output of allocations and jobs, as lines of JSON.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
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
use crate::model::allocation::Allocation;
use crate::model::job::JobSpec;
use crate::model::name::{AllocId, JobId, JobName, TaskName};
use crate::rpc::v1::session_request::Kind;
use crate::rpc::v1::{LogsRequest, SessionRequest};
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
}

impl Wanted {
    fn new(
        follow: bool,
        tail: Option<u32>,
        since: Option<&str>,
        task: Option<&str>,
    ) -> Result<Self, Problem> {
        if tail.is_some_and(|tail| tail > LOG_TAIL_LINES_MAX) {
            return Err(Problem::bad_request(format!(
                "?tail= is at most {LOG_TAIL_LINES_MAX}; leave it away for all there is"
            )));
        }
        let since: Option<Time> = since
            .map(str::parse)
            .transpose()
            .map_err(|error| Problem::bad_request(format!("?since=: {error}")))?;
        let task = task
            .map(str::parse)
            .transpose()
            .map_err(|error| Problem::invalid(format!("?task=: {error}")))?;
        Ok(Self { follow, tail, since: since.map_or(0, |since| since.0.0), task })
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

    fn request(&self, alloc: &Allocation) -> SessionRequest {
        SessionRequest {
            node: alloc.node.to_string(),
            alloc: alloc.id.0,
            task: self.task.as_ref().map(ToString::to_string).unwrap_or_default(),
            kind: Some(Kind::Logs(LogsRequest {
                follow: self.follow,
                tail: self.tail,
                since: self.since,
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
    let wanted =
        Wanted::new(query.follow, query.tail, query.since.as_deref(), query.task.as_deref())?;
    let slot = context.stream_slot()?;
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let alloc = view.state.alloc(id).ok_or_else(|| Problem::not_found("allocation", id))?;
    if let Some(job) = view.state.job(&alloc.job) {
        wanted.check_task(&alloc.job, job.spec_of(alloc.version))?;
    }
    let source = open(&context, &wanted, alloc).await?;
    Ok(stream(Feed { context, wanted, merge: Merge::new(vec![source]), more: None, slot }))
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
    let id = JobId { project: project(query.project.as_deref())?, name };
    let wanted =
        Wanted::new(query.follow, query.tail, query.since.as_deref(), query.task.as_deref())?;
    let slot = context.stream_slot()?;
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let job = view.state.job(&id).ok_or_else(|| Problem::not_found("job", &id))?;
    wanted.check_task(&id, job.spec())?;
    let allocs = copies(&view.state, &id, query.index);
    if allocs.is_empty() && !query.follow {
        let what = query.index.map_or_else(|| id.to_string(), |index| format!("{id}.{index}"));
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
    let opened = join_all(allocs.iter().map(|alloc| open(&context, &wanted, alloc))).await;
    let known: BTreeSet<AllocId> = allocs.iter().map(|alloc| alloc.id).collect();
    let failed = opened.iter().all(Result::is_err);
    let mut sources = Vec::new();
    for (alloc, outcome) in allocs.iter().zip(opened) {
        match outcome {
            Ok(source) => sources.push(source),
            Err(problem) if failed && !query.follow => return Err(problem),
            Err(problem) => sources.push(Source::broken(alloc, problem.detail)),
        }
    }
    let more = query.follow.then_some(More { id, index: query.index, known });
    Ok(stream(Feed { context, wanted, merge: Merge::new(sources), more, slot }))
}

/// The newest allocation of each copy, or of one.
fn copies(state: &ClusterState, id: &JobId, index: Option<u32>) -> Vec<Arc<Allocation>> {
    newest(state, id)
        .into_values()
        .filter(|alloc| index.is_none_or(|index| alloc.index == index))
        .filter_map(|alloc| state.alloc(alloc.id).cloned())
        .collect()
}

async fn open(context: &Context, wanted: &Wanted, alloc: &Allocation) -> Result<Source, Problem> {
    let session = context.agents.open_session(wanted.request(alloc)).await?;
    Ok(Source::new(alloc, session))
}

/// A followed job's copies that are being read already.
struct More {
    id: JobId,
    index: Option<u32>,
    known: BTreeSet<AllocId>,
}

/// Lines on their way to one reader.
struct Feed {
    context: Context,
    wanted: Wanted,
    merge: Merge,
    more: Option<More>,
    slot: StreamSlot,
}

fn stream(mut feed: Feed) -> Response {
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
        drop(feed.slot);
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
    async fn run(&mut self, chunks: &mpsc::Sender<Result<Bytes, std::convert::Infallible>>) {
        let mut look = tokio::time::interval(LOOK_AGAIN);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let lines = tokio::select! {
                lines = self.merge.next(self.wanted.follow) => lines,
                _ = look.tick(), if self.more.is_some() => {
                    self.look_for_more().await;
                    continue;
                }
            };
            match lines {
                Some(lines) => {
                    if chunks.send(Ok(encode(&lines))).await.is_err() {
                        return;
                    }
                }
                None if self.more.is_none() => return,
                // Copies may still come.
                None => {
                    if self.is_over() {
                        return;
                    }
                    look.tick().await;
                    self.look_for_more().await;
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let Some(more) = &self.more else { return true };
        let state = self.context.consensus.views().borrow().state.clone();
        let active = state.job(&more.id).is_some_and(|job| job.active());
        !active && copies(&state, &more.id, more.index).iter().all(|a| more.known.contains(&a.id))
    }

    async fn look_for_more(&mut self) {
        let Some(more) = &mut self.more else { return };
        let state = self.context.consensus.views().borrow().state.clone();
        let mut come = copies(&state, &more.id, more.index);
        come.retain(|alloc| !more.known.contains(&alloc.id));
        come.truncate(API_LOG_SOURCES_MAX.saturating_sub(self.merge.len()));
        // All that a new copy has printed is new to the reader.
        let wanted = Wanted { tail: None, ..self.wanted.clone() };
        for alloc in come {
            more.known.insert(alloc.id);
            match open(&self.context, &wanted, &alloc).await {
                Ok(source) => self.merge.add(source),
                Err(problem) => self.merge.add(Source::broken(&alloc, problem.detail)),
            }
        }
    }
}
