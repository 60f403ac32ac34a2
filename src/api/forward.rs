//! `GET /v1/allocations/{id}/forward`: a connection to a port of an allocation, over a WebSocket.

use axum::extract::State;
use axum::response::Response;

use super::context::Context;
use super::error::Problem;
use super::extract::{Params, Segment};
use super::socket::{self, Upgrade};
use super::view::allocation::ExecExit;
use super::view::problem::ProblemDetails;
use super::view::query::{ConsistencyChoice, Forward};
use crate::model::name::{AllocId, PortName};
use crate::rpc::v1::session_frame::Frame;
use crate::rpc::v1::session_request::Kind;
use crate::rpc::v1::{ForwardRequest, SessionRequest};

/// Connects to a port. The connection becomes a WebSocket with binary messages; the first byte
/// of each is its channel: 0 to the port, 1 from it, empty at the end of either; 4 ExecExit as
/// JSON, the last.
#[utoipa::path(
    get, path = "/v1/allocations/{id}/forward", tag = "allocations",
    params(("id" = String, Path, description = "As a17"), Forward),
    responses((status = 101, body = ExecExit, description = "A WebSocket"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn forward(
    State(context): State<Context>,
    Segment(id): Segment<AllocId>,
    Params(query): Params<Forward>,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let (port, name) = match query.port.parse::<u16>() {
        Ok(number @ 1..) => (u32::from(number), String::new()),
        _ if query.port.bytes().all(|byte| byte.is_ascii_digit()) => {
            return Err(Problem::bad_request("?port= is a number from 1 to 65535, or a name"));
        }
        _ => {
            let name: PortName = query
                .port
                .parse()
                .map_err(|error| Problem::bad_request(format!("?port={}: {error}", query.port)))?;
            (0, name.to_string())
        }
    };
    let upgrade = socket::wanted(upgrade)?;
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let alloc = view.state.alloc(id).ok_or_else(|| Problem::not_found("allocation", id))?;
    let task = match &query.task {
        Some(task) => super::exec::task_of(&view.state, alloc, Some(task))?,
        None => String::new(),
    };
    let slot = context.stream_slot()?;
    let request = SessionRequest {
        node: alloc.node.to_string(),
        alloc: id.0,
        task,
        kind: Some(Kind::Forward(ForwardRequest { port, name })),
    };
    let mut session = context.agents.open_session(request).await?;
    match session.from.recv().await.and_then(|frame| frame.frame) {
        Some(Frame::Opened(_)) => Ok(socket::serve(&context, upgrade, session, slot)),
        Some(Frame::Error(error)) => Err(Problem::of_agent(&error.code, error.message)),
        _ => Err(Problem::of_agent("failed", "the agent did not say that it is connected".into())),
    }
}
