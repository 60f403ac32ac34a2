//! `/v1/nodes`.

use axum::extract::State;
use axum::http::StatusCode;

use super::context::{Context, Indexed, blocking};
use super::error::Problem;
use super::extract::{IdempotencyKey, JsonBody, NoParams, Params, Segment};
use super::from_state::node;
use super::page;
use super::view::Page;
use super::view::node::{DrainRequest, EligibilityRequest, NodeRow, NodeStatus};
use super::view::problem::ProblemDetails;
use super::view::query::{ConsistencyChoice, List, Read, WriteHeaders};
use crate::model::name::NodeName;
use crate::model::time::Millis;
use crate::state::Command;

/// Nodes, by name.
#[utoipa::path(
    get, path = "/v1/nodes", tag = "nodes", params(List),
    responses((status = 200, body = Page<NodeRow>), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn list_nodes(
    State(context): State<Context>,
    Params(query): Params<List>,
) -> Result<Indexed<Page<NodeRow>>, Problem> {
    let ask: page::Ask<NodeName> = page::ask(query.limit, query.cursor.as_deref())?;
    let view = context.view(query.consistency).await?;
    let usage = context.agents.usage(None).await.unwrap_or_default();
    let now = context.clock.now();
    blocking(&context, move || {
        let rows = view
            .state
            .nodes()
            .filter(|known| ask.after.as_ref().is_none_or(|after| known.name > *after))
            .map(|known| (known.name.clone(), node::heard(&view.state, known, &usage, now)));
        Indexed(view.applied_index, page::page(ask.limit, rows))
    })
    .await
}

/// Everything about a node.
#[utoipa::path(
    get, path = "/v1/nodes/{name}", tag = "nodes",
    params(("name" = String, Path, description = "The node's name"), Read),
    responses((status = 200, body = NodeStatus), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_node(
    State(context): State<Context>,
    Segment(name): Segment<NodeName>,
    Params(query): Params<Read>,
) -> Result<Indexed<NodeStatus>, Problem> {
    let view = context.view(query.consistency).await?;
    let known = view.state.node(&name).ok_or_else(|| Problem::not_found("node", &name))?;
    let usage = context.agents.usage(Some(&name)).await.unwrap_or_default();
    let now = context.clock.now();
    Ok(Indexed(view.applied_index, node::status(&view.state, known, &usage, now)))
}

/// Lets new work on a node, or keeps it away.
#[utoipa::path(
    post, path = "/v1/nodes/{name}/eligibility", tag = "nodes",
    params(("name" = String, Path, description = "The node's name"), WriteHeaders),
    request_body = EligibilityRequest,
    responses((status = 200, body = NodeRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn set_eligibility(
    State(context): State<Context>,
    Segment(node): Segment<NodeName>,
    Params(NoParams {}): Params<NoParams>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(ask): JsonBody<EligibilityRequest>,
) -> Result<Indexed<NodeRow>, Problem> {
    let command = Command::SetEligibility { node: node.clone(), eligible: ask.eligible };
    context.propose(key, command).await?;
    after_change(&context, &node).await
}

/// Moves work away from a node, and keeps new work away.
#[utoipa::path(
    post, path = "/v1/nodes/{name}/drain", tag = "nodes",
    params(("name" = String, Path, description = "The node's name"), WriteHeaders),
    request_body = DrainRequest,
    responses((status = 200, body = NodeRow), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn drain_node(
    State(context): State<Context>,
    Segment(node): Segment<NodeName>,
    Params(NoParams {}): Params<NoParams>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(ask): JsonBody<DrainRequest>,
) -> Result<Indexed<NodeRow>, Problem> {
    let deadline = ask.deadline.as_deref().map(str::parse::<Millis>).transpose();
    let deadline = deadline.map_err(|error| Problem::invalid(format!("deadline: {error}")))?;
    let command = Command::DrainNode { node: node.clone(), deadline };
    context.propose(key, command).await?;
    after_change(&context, &node).await
}

async fn after_change(context: &Context, name: &NodeName) -> Result<Indexed<NodeRow>, Problem> {
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let known = view.state.node(name).ok_or_else(|| Problem::not_found("node", name))?;
    Ok(Indexed(view.applied_index, node::row(&view.state, known)))
}

/// Forgets a node that is not connected.
#[utoipa::path(
    delete, path = "/v1/nodes/{name}", tag = "nodes",
    params(("name" = String, Path, description = "The node's name"), WriteHeaders),
    responses((status = 204), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn remove_node(
    State(context): State<Context>,
    Segment(node): Segment<NodeName>,
    Params(NoParams {}): Params<NoParams>,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<StatusCode, Problem> {
    context.propose(key, Command::RemoveNode { node }).await?;
    Ok(StatusCode::NO_CONTENT)
}
