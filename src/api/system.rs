//! What tools ask: the document, metrics, health; and a page for people who open the port.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};

use super::context::{Context, blocking};
use super::error::Problem;
use super::extract::{NoParams, Params};
use super::router;
use super::view::problem::ProblemDetails;
use super::view::query::ConsistencyChoice;
use crate::model::allocation::AllocStatus;
use crate::model::job::JobKind;
use crate::model::node::NodeState;
use crate::planner::scheduler::explain;
use crate::state::State as ClusterState;

/// Made once: it takes a moment.
static DOCUMENT: LazyLock<serde_json::Value> =
    LazyLock::new(|| serde_json::to_value(router::openapi()).unwrap_or_default());

/// Whoever asks whether the server is ready has no time to wait until it is.
const READY_WAIT: Duration = Duration::from_secs(2);

/// Jobs without a place whose reasons are asked for at each scrape; more would make a scrape dear.
const EXPLAINED_MAX: usize = 100;

/// The description of all routes, as OpenAPI.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "system", responses((status = 200, body = Object)))]
pub(super) async fn read_openapi() -> Json<&'static serde_json::Value> {
    Json(&DOCUMENT)
}

/// Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "system",
    responses((status = 200, body = String, content_type = "text/plain"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_metrics(
    State(context): State<Context>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Response, Problem> {
    let shared = context.clone();
    let text = blocking(&shared, move || {
        let state = context.consensus.views().borrow().state.clone();
        refresh(&context, &state);
        context.metrics.render()
    })
    .await?
    .map_err(|error| Problem::internal(format!("the metrics can't be shown: {error}")))?;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// What is counted in the state is counted when it is asked for.
fn refresh(context: &Context, state: &ClusterState) {
    let mut by_status: BTreeMap<&str, i64> = [
        AllocStatus::Pending,
        AllocStatus::Starting,
        AllocStatus::Running,
        AllocStatus::Stopped,
        AllocStatus::Complete,
        AllocStatus::Failed,
        AllocStatus::Lost,
    ]
    .map(|status| (status.word(), 0))
    .into();
    for alloc in state.allocs() {
        *by_status.entry(alloc.status.word()).or_default() += 1;
    }
    for (status, count) in by_status {
        context.metrics.allocations.with_label_values(&[status]).set(count);
    }
    let mut by_state: BTreeMap<&str, i64> =
        [NodeState::Ready, NodeState::Lost, NodeState::Left].map(|state| (state.word(), 0)).into();
    for node in state.nodes() {
        *by_state.entry(node.state.word()).or_default() += 1;
    }
    for (state, count) in by_state {
        context.metrics.nodes.with_label_values(&[state]).set(count);
    }
    context.metrics.scheduler_pending.reset();
    for (reason, count) in pending(state) {
        context.metrics.scheduler_pending.with_label_values(&[reason]).set(count);
    }
}

/// Copies that are not placed, by what most nodes say to them.
fn pending(state: &ClusterState) -> BTreeMap<&'static str, i64> {
    let mut pending = BTreeMap::new();
    let waiting = state.jobs().filter_map(|(id, job)| {
        if !job.active() || job.spec().kind == JobKind::System {
            return None;
        }
        let live = state.allocs_of(id).filter(|alloc| !alloc.ended()).count() as u32;
        Some((job, job.replicas().saturating_sub(live))).filter(|(_, missing)| *missing > 0)
    });
    for (i, (job, missing)) in waiting.enumerate() {
        let reason = if i < EXPLAINED_MAX {
            let explanation = explain(state, job.spec());
            match explanation.refusals.main() {
                _ if !explanation.fits.is_empty() => "waiting",
                Some(refusal) => refusal.label(),
                None => "no_nodes",
            }
        } else {
            "not_asked"
        };
        *pending.entry(reason).or_default() += i64::from(missing);
    }
    pending
}

/// The process lives.
#[utoipa::path(get, path = "/healthz", tag = "system", responses((status = 200, body = String)))]
pub(super) async fn read_health() -> &'static str {
    "ok\n"
}

/// The server knows a leader and has caught up with it.
#[utoipa::path(
    get, path = "/readyz", tag = "system",
    responses((status = 200, body = String), (status = 503, body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_readiness(
    State(context): State<Context>,
) -> Result<&'static str, Problem> {
    // A linearizable read is answered only by a server that has caught up with its leader.
    let read = context.view(ConsistencyChoice::Linearizable);
    match tokio::time::timeout(READY_WAIT, read).await {
        Ok(read) => read.map(|_| "ready\n"),
        Err(_) => Err(Problem::unavailable(
            "no_leader",
            format!("no leader answered within {} s", READY_WAIT.as_secs()),
        )),
    }
}

/// A page with pointers.
#[utoipa::path(get, path = "/", tag = "system", responses((status = 200, body = String, content_type = "text/html")))]
pub(super) async fn read_home(State(context): State<Context>) -> Html<String> {
    let server = context.consensus.me().name;
    let version = env!("CARGO_PKG_VERSION");
    Html(format!(
        "<!doctype html><meta charset=utf-8><title>orch</title>\
         <h1>orch {version}, server {server}</h1><ul>\
         <li><a href=/v1/jobs>/v1/jobs</a>, <a href=/v1/allocations>/v1/allocations</a>, \
         <a href=/v1/nodes>/v1/nodes</a>, <a href=/v1/servers>/v1/servers</a>\
         <li><a href=/v1/openapi.json>/v1/openapi.json</a>: every route\
         <li><a href='/v1/events?follow=false'>/v1/events</a>: what happens\
         <li><a href=/metrics>/metrics</a>, <a href=/healthz>/healthz</a>, <a href=/readyz>/readyz</a>\
         </ul><p>From a shell: <code>orch status</code>\n"
    ))
}
