//! What all handlers share.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::agents::Agents;
use super::error::Problem;
use super::view::query::ConsistencyChoice;
use crate::clock::SharedClock;
use crate::consensus::{Committed, Consensus, Consistency, View};
use crate::limits::API_STREAMS_MAX;
use crate::model::name::ProjectName;
use crate::observe::metrics::Metrics;
use crate::state::{Command, Request};

/// What all handlers share. A clone is the same.
#[derive(Debug, Clone)]
pub struct Context {
    /// The door to the state.
    pub consensus: Consensus,
    /// The door to agents.
    pub agents: Arc<dyn Agents>,
    /// Counted into, and shown at `/metrics`.
    pub metrics: Metrics,
    /// Time of day, for plans.
    pub clock: SharedClock,
    /// Ends streams when the server stops.
    pub stop: CancellationToken,
    streams: Arc<Semaphore>,
}

impl Context {
    /// The parts together.
    pub fn new(
        consensus: Consensus,
        agents: Arc<dyn Agents>,
        metrics: Metrics,
        clock: SharedClock,
    ) -> Self {
        let streams = Arc::new(Semaphore::new(API_STREAMS_MAX));
        Self { consensus, agents, metrics, clock, stop: CancellationToken::new(), streams }
    }

    /// A picture of the state, as fresh as the caller asks for.
    pub(super) async fn view(&self, consistency: ConsistencyChoice) -> Result<View, Problem> {
        let consistency = match consistency {
            ConsistencyChoice::Linearizable => Consistency::Linearizable,
            ConsistencyChoice::Stale => Consistency::Stale,
        };
        Ok(self.consensus.read(consistency).await?)
    }

    /// Has a command carried out.
    pub(super) async fn propose(
        &self,
        idempotency_key: Option<String>,
        command: Command,
    ) -> Result<Committed, Problem> {
        Ok(self.consensus.propose(Request { idempotency_key, command }).await?)
    }

    /// A place among the streams that may be open at once.
    pub(super) fn stream_slot(&self) -> Result<StreamSlot, Problem> {
        let Ok(permit) = self.streams.clone().try_acquire_owned() else {
            return Err(Problem::unavailable(
                "too_many_streams",
                format!(
                    "{API_STREAMS_MAX} streams are open on this server, the most it serves; try \
                     another server"
                ),
            ));
        };
        self.metrics.api_event_streams.inc();
        Ok(StreamSlot { metrics: self.metrics.clone(), _permit: permit })
    }
}

/// Held while a stream is open.
#[derive(Debug)]
pub(super) struct StreamSlot {
    metrics: Metrics,
    _permit: OwnedSemaphorePermit,
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.metrics.api_event_streams.dec();
    }
}

/// `?project=`, or the default one.
pub(super) fn project(text: Option<&str>) -> Result<ProjectName, Problem> {
    match text {
        None => Ok(ProjectName::default()),
        Some(text) => {
            text.parse().map_err(|error| Problem::invalid(format!("?project={text}: {error}")))
        }
    }
}

/// Says how fresh an answer is: the index of the last log entry in the state it was read from.
pub(super) const INDEX_HEADER: HeaderName = HeaderName::from_static("orch-index");

/// An answer with the header `Orch-Index`.
#[derive(Debug)]
pub(super) struct Indexed<T>(pub(super) u64, pub(super) T);

impl<T: Serialize> IntoResponse for Indexed<T> {
    fn into_response(self) -> Response {
        ([(INDEX_HEADER, HeaderValue::from(self.0))], Json(self.1)).into_response()
    }
}

/// Runs what takes long on a thread of its own, so that it holds up no other request.
pub(super) async fn blocking<T: Send + 'static>(
    context: &Context,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let offload = context.consensus.ground().offload;
    offload
        .run(work)
        .await
        .map_err(|_| Problem::internal("the request failed within the server; see its log"))
}
