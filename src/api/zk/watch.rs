//! `/v1/zk/watch`: changes of nodes, as they happen.
//!
//! As with events, a stream holds no queue: it reads on in the tree's own record of changes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::view::{checked, hex};
use crate::api::context::{Context, StreamSlot};
use crate::api::error::Problem;
use crate::api::extract::Params;
use crate::api::view::problem::ProblemDetails;
use crate::api::view::query::{ConsistencyChoice, WatchZk};
use crate::api::view::zk::ZkChange;
use crate::consensus::View;
use crate::jute::path;
use crate::limits::{EVENT_QUEUE_MAX, STREAM_KEEP_ALIVE_MS, ZK_CHANGES_KEPT};
use crate::state::znodes::{Tree, ZnodeChangeKind};

/// A quiet stream says this often that it lives.
const KEEP_ALIVE: Duration = Duration::from_millis(STREAM_KEEP_ALIVE_MS);

/// Changes of a node, or with `?recursive=true` of those below it as well, as server-sent events.
/// `?since=` (or the header Last-Event-ID) goes on behind a position; one that is no longer kept
/// is answered with 410.
#[utoipa::path(
    get, path = "/v1/zk/watch", tag = "zookeeper", params(WatchZk),
    responses((status = 200, body = ZkChange, content_type = "text/event-stream"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(crate) async fn watch_zk(
    State(context): State<Context>,
    Params(query): Params<WatchZk>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = checked(query.path)?;
    let resumed = match headers.get("last-event-id") {
        None => query.since,
        Some(id) => {
            let position = id.to_str().ok().and_then(|text| text.trim().parse().ok());
            Some(position.ok_or_else(|| Problem::bad_request("Last-Event-ID must be a position"))?)
        }
    };
    let slot = context.stream_slot()?;
    // What was acknowledged before this request is not told as new.
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let tree = view.state.zk();
    let seen = resumed.unwrap_or_else(|| tree.change_count());
    if tree.changes_since(seen).is_none() {
        return Err(gone(tree, seen));
    }
    let reader = Reader {
        views: context.consensus.views(),
        seen,
        path,
        recursive: query.recursive,
        stop: context.stop.clone(),
        found: VecDeque::new(),
        _slot: slot,
    };
    Ok(Sse::new(as_sse(reader)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn gone(tree: &Tree, seen: u64) -> Problem {
    let now = tree.change_count();
    let why = if seen > now {
        format!("position {seen} has not come yet: the last one is {now}")
    } else {
        format!(
            "the changes behind position {seen} are no longer kept (the last {ZK_CHANGES_KEPT} \
             are, and none from before all nodes were replaced); read the nodes anew and go on \
             from position {now}"
        )
    };
    Problem::new(StatusCode::GONE, "events_gone", why)
}

/// Where one reader of changes is.
struct Reader {
    views: watch::Receiver<View>,
    /// How many changes it has seen.
    seen: u64,
    path: String,
    recursive: bool,
    stop: CancellationToken,
    found: VecDeque<ZkChange>,
    _slot: StreamSlot,
}

impl Reader {
    async fn next(&mut self) -> Result<ZkChange, Problem> {
        loop {
            if let Some(change) = self.found.pop_front() {
                return Ok(change);
            }
            let seen = self.seen;
            let stopping =
                || Problem::unavailable("stopping", "this server is stopping; resume on another");
            let view = tokio::select! {
                () = self.stop.cancelled() => return Err(stopping()),
                found = self.views.wait_for(|view| view.state.zk().change_count() > seen) => {
                    found.map_err(|_| stopping())?.clone()
                }
            };
            let state = Arc::clone(&view.state);
            let tree = state.zk();
            let changes = tree.changes_since(seen).ok_or_else(|| gone(tree, seen))?;
            for change in changes.take(EVENT_QUEUE_MAX) {
                self.seen += 1;
                let wanted = match self.recursive {
                    true => path::is_within(&change.path, &self.path),
                    false => *change.path == *self.path,
                };
                if wanted {
                    self.found.push_back(ZkChange {
                        position: self.seen,
                        change: word(change.kind).to_owned(),
                        path: change.path.to_string(),
                        zxid: hex(change.zxid),
                    });
                }
            }
        }
    }
}

fn word(kind: ZnodeChangeKind) -> &'static str {
    match kind {
        ZnodeChangeKind::Created => "created",
        ZnodeChangeKind::Deleted => "deleted",
        ZnodeChangeKind::Data => "data",
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Rows have only texts and numbers: they always encode.
    serde_json::to_string(value).unwrap_or_default()
}

fn as_sse(reader: Reader) -> impl Stream<Item = Result<sse::Event, std::convert::Infallible>> {
    futures::stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(change) => {
                let event = sse::Event::default()
                    .id(change.position.to_string())
                    .event("change")
                    .data(json(&change));
                Some((Ok(event), Some(reader)))
            }
            Err(problem) => {
                let data = json(&problem.details());
                Some((Ok(sse::Event::default().event("error").data(data)), None))
            }
        }
    })
}
