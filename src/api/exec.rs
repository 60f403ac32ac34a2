//! `GET /v1/allocations/{id}/exec`: a command in a running task, over a WebSocket.
//!
//! Each binary message begins with a byte that names its channel: see `exec_channel`.

use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;

use super::context::Context;
use super::error::Problem;
use super::extract::{Segment, check_known, names, pairs};
use super::socket::{self, Upgrade};
use super::view::allocation::ExecExit;
use super::view::problem::ProblemDetails;
use super::view::query::{ConsistencyChoice, Exec};
use crate::limits::COMMAND_WORDS_MAX;
use crate::model::allocation::Allocation;
use crate::model::name::{AllocId, TaskName};
use crate::rpc::v1::session_request::Kind;
use crate::rpc::v1::{ExecRequest, SessionRequest};
use crate::state::State as ClusterState;

/// The query, in which `command` may stand many times.
#[derive(Debug)]
pub(super) struct ExecParams(Exec);

impl<S: Send + Sync> FromRequestParts<S> for ExecParams {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let known = names::<Exec>();
        let mut exec = Exec::default();
        for (key, value) in pairs(parts)? {
            check_known(&key, &known)?;
            let wrong = || Problem::bad_request(format!("?{key}={value} can't be read"));
            match key.as_str() {
                "command" => exec.command.push(value),
                "task" => exec.task = Some(value),
                "tty" => exec.tty = value.parse().map_err(|_| wrong())?,
                "stdin" => exec.stdin = value.parse().map_err(|_| wrong())?,
                "columns" => exec.columns = Some(value.parse().map_err(|_| wrong())?),
                _ => exec.rows = Some(value.parse().map_err(|_| wrong())?),
            }
        }
        let words = exec.command.len();
        if !(1..=COMMAND_WORDS_MAX).contains(&words) {
            return Err(Problem::bad_request(format!(
                "a command has 1 to {COMMAND_WORDS_MAX} words, each as ?command=; there are {words}"
            )));
        }
        Ok(Self(exec))
    }
}

/// Runs a command in a running task. The connection becomes a WebSocket with binary messages;
/// the first byte of each is its channel: 0 standard input (empty: its end), 1 standard output,
/// 2 standard error, 3 ExecControl as JSON, 4 ExecExit as JSON, the last.
#[utoipa::path(
    get, path = "/v1/allocations/{id}/exec", tag = "allocations",
    params(("id" = String, Path, description = "As a17"), Exec),
    responses((status = 101, body = ExecExit, description = "A WebSocket"), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn exec(
    State(context): State<Context>,
    Segment(id): Segment<AllocId>,
    ExecParams(query): ExecParams,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let upgrade = socket::wanted(upgrade)?;
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let alloc = view.state.alloc(id).ok_or_else(|| Problem::not_found("allocation", id))?;
    if alloc.ended() {
        let word = alloc.status.word();
        let detail = format!("allocation {id} is {word}; a command needs a running one");
        return Err(Problem::new(StatusCode::CONFLICT, "conflict", detail));
    }
    let task = task_of(&view.state, alloc, query.task.as_deref())?;
    let slot = context.stream_slot()?;
    let request = SessionRequest {
        node: alloc.node.to_string(),
        alloc: id.0,
        task,
        kind: Some(Kind::Exec(ExecRequest {
            command: query.command,
            stdin: query.stdin,
            tty: query.tty,
            columns: query.columns.unwrap_or(80),
            rows: query.rows.unwrap_or(24),
        })),
    };
    let session = context.agents.open_session(request).await?;
    Ok(socket::serve(&context, upgrade, session, slot))
}

/// The name of the task that is meant: the first, unless one is named.
pub(super) fn task_of(
    state: &ClusterState,
    alloc: &Allocation,
    named: Option<&str>,
) -> Result<String, Problem> {
    let spec = state.job(&alloc.job).map(|job| job.spec_of(alloc.version));
    let Some(text) = named else {
        let first = spec.and_then(|spec| spec.tasks.first());
        return Ok(first.map(|task| task.name.to_string()).unwrap_or_default());
    };
    let name: TaskName =
        text.parse().map_err(|error| Problem::invalid(format!("?task=: {error}")))?;
    let known = spec.is_none_or(|spec| spec.tasks.iter().any(|task| task.name == name));
    if known {
        Ok(name.to_string())
    } else {
        Err(Problem::not_found("task in that allocation:", name))
    }
}
