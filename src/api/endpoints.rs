//! `/v1/jobs/{name}/endpoints`: where a job's replicas take traffic, once or as it changes.
//!
//! A stream holds no queue: it sends the whole list whenever its reader takes one and it is
//! another than the last. A reader that is slow skips lists, and never misses the last.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::{Context, Indexed, StreamSlot, project};
use super::error::Problem;
use super::extract::{Params, Segment};
use super::from_state::endpoint;
use super::view::endpoint::{Endpoint, Endpoints};
use super::view::problem::ProblemDetails;
use super::view::query::ReadEndpoints;
use crate::consensus::{Leadership, View};
use crate::limits::{ENDPOINTS_GATHER_MS, ENDPOINTS_LEADERLESS_MS, STREAM_KEEP_ALIVE_MS};
use crate::model::name::{JobId, JobName, PortName};
use crate::state::{Event, State as ClusterState};

/// The addresses of the replicas that take traffic, for each named port: those that are ready and
/// meant to run, on nodes that are heard. A replica leaves the list its job's `shutdown_delay`
/// before it is told to stop.
///
/// With `follow=true`, server-sent events `endpoints`: the whole list at once, and again whenever
/// it changes. There is nothing to resume: whoever connects again, to any server, gets the list
/// as it is. A stream that can't go on ends with an event `error` that has problem details.
#[utoipa::path(
    get, path = "/v1/jobs/{name}/endpoints", tag = "jobs",
    params(("name" = String, Path, description = "The job's name"), ReadEndpoints),
    responses(
        (status = 200, body = Endpoints, content_type = "application/json"),
        (status = 200, body = Endpoints, content_type = "text/event-stream"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn read_endpoints(
    State(context): State<Context>,
    Segment(name): Segment<JobName>,
    Params(query): Params<ReadEndpoints>,
) -> Result<Response, Problem> {
    let id = JobId { project: project(query.project.as_deref())?, name };
    let port = query.port.as_deref().map(str::parse::<PortName>).transpose();
    let port = port.map_err(|error| Problem::invalid(format!("?port=: {error}")))?;
    let slot = query.follow.then(|| context.stream_slot()).transpose()?;
    // From before the first list is read, so that no later one goes unnoticed.
    let views = context.consensus.views();
    let view = context.view(query.consistency).await?;
    if let Some(port) = &port {
        check_port(&view.state, &id, port)?;
    }
    let first = list(&view, &id, port.as_ref())?;
    let Some(slot) = slot else {
        return Ok(Indexed(view.applied_index, first).into_response());
    };
    let follower = Follower {
        views,
        leadership: context.consensus.leadership(),
        stop: context.stop.clone(),
        id,
        port,
        seen_event: view.state.last_event(),
        seen_index: view.applied_index,
        sent: first.endpoints.clone(),
        first: Some(first),
        _slot: slot,
    };
    let keep_alive = KeepAlive::new().interval(Duration::from_millis(STREAM_KEEP_ALIVE_MS));
    Ok(Sse::new(as_sse(follower)).keep_alive(keep_alive).into_response())
}

/// A port that the job has not would be waited for in vain.
fn check_port(state: &ClusterState, id: &JobId, port: &PortName) -> Result<(), Problem> {
    let job = state.job(id).ok_or_else(|| Problem::not_found("job", id))?;
    let known = endpoint::ports(state, id, job);
    if known.contains(port) {
        return Ok(());
    }
    let known: Vec<&str> = known.iter().map(PortName::as_str).collect();
    let has = if known.is_empty() { "no ports".to_owned() } else { known.join(", ") };
    let detail = format!("job {id} has no port {port}; it has {has}");
    Err(Problem::new(StatusCode::NOT_FOUND, "not_found", detail))
}

fn list(view: &View, id: &JobId, port: Option<&PortName>) -> Result<Endpoints, Problem> {
    let job = view.state.job(id).ok_or_else(|| Problem::not_found("job", id))?;
    Ok(endpoint::list(&view.state, view.applied_index, id, job, port))
}

/// Where one reader is.
struct Follower {
    views: watch::Receiver<View>,
    leadership: watch::Receiver<Leadership>,
    stop: CancellationToken,
    id: JobId,
    port: Option<PortName>,
    /// The last event that was looked at.
    seen_event: u64,
    seen_index: u64,
    sent: Vec<Endpoint>,
    first: Option<Endpoints>,
    _slot: StreamSlot,
}

impl Follower {
    async fn next(&mut self) -> Result<Endpoints, Problem> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        loop {
            let view = self.newer().await?;
            let events = view.state.events_after(self.seen_event);
            // Of events that are no longer kept, some may have been about this job.
            let concerns = events.map_or(true, |events| {
                events.iter().any(|record| concerns(&record.event, &self.id))
            });
            self.seen_index = view.applied_index;
            self.seen_event = view.state.last_event();
            if !concerns {
                continue;
            }
            let now = list(&view, &self.id, self.port.as_ref())?;
            if now.endpoints != self.sent {
                self.sent.clone_from(&now.endpoints);
                return Ok(now);
            }
        }
    }

    /// The state after the one that was looked at last; changes that come together are one.
    async fn newer(&mut self) -> Result<View, Problem> {
        let stopping =
            || Problem::unavailable("stopping", "this server is stopping; go on at another");
        let seen = self.seen_index;
        tokio::select! {
            () = self.stop.cancelled() => return Err(stopping()),
            () = leaderless(self.leadership.clone()) => {
                return Err(Problem::unavailable(
                    "no_leader",
                    "this server knows of no leader, so that what it has may be old; \
                     go on at another",
                ));
            }
            found = self.views.wait_for(|view| view.applied_index > seen) => {
                found.map_err(|_| stopping())?;
            }
        }
        tokio::time::sleep(Duration::from_millis(ENDPOINTS_GATHER_MS)).await;
        Ok(self.views.borrow_and_update().clone())
    }
}

/// Whether an event may change a job's endpoints.
fn concerns(event: &Event, id: &JobId) -> bool {
    match event {
        Event::Restored | Event::NodeChanged { .. } => true,
        Event::JobChanged { job, .. }
        | Event::AllocChanged { job, .. }
        | Event::DeploymentChanged { job, .. } => job == id,
        Event::VariableChanged { .. } => false,
    }
}

/// Ends when no leader has been known for a while.
async fn leaderless(mut leadership: watch::Receiver<Leadership>) {
    let patience = Duration::from_millis(ENDPOINTS_LEADERLESS_MS);
    loop {
        if leadership.wait_for(|now| now.leader.is_none()).await.is_err() {
            // It ends with the server, which is told apart.
            return std::future::pending().await;
        }
        let back = leadership.wait_for(|now| now.leader.is_some());
        match tokio::time::timeout(patience, back).await.map(|found| found.is_ok()) {
            Ok(true) => {}
            Ok(false) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Rows have only texts and numbers: they always encode.
    serde_json::to_string(value).unwrap_or_default()
}

fn as_sse(follower: Follower) -> impl Stream<Item = Result<sse::Event, Infallible>> {
    futures::stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        let event = sse::Event::default();
        match follower.next().await {
            Ok(list) => {
                let event = event.event("endpoints").id(list.index.to_string()).data(json(&list));
                Some((Ok(event), Some(follower)))
            }
            Err(problem) => Some((Ok(event.event("error").data(json(&problem.details()))), None)),
        }
    })
}
