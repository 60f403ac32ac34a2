//! `/v1/servers`: the members of the cluster.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::context::{Context, blocking};
use super::error::Problem;
use super::extract::{JsonBody, NoIdempotencyKey, NoParams, Params, Segment};
use super::view::Page;
use super::view::problem::ProblemDetails;
use super::view::server::{ChecksumReply, ServerRow, TransferReply, TransferRequest};
use crate::consensus::Consistency;
use crate::model::name::ServerName;

/// All members, each asked for its state just now.
#[utoipa::path(
    get, path = "/v1/servers", tag = "servers",
    responses((status = 200, body = Page<ServerRow>), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn list_servers(
    State(context): State<Context>,
    Params(NoParams {}): Params<NoParams>,
) -> Json<Page<ServerRow>> {
    let mut items: Vec<ServerRow> = context
        .consensus
        .servers()
        .await
        .into_iter()
        .map(|status| ServerRow {
            name: status.server.name.to_string(),
            id: format!("{:016x}", status.server.id),
            role: status.role.to_owned(),
            rpc_addr: status.server.rpc_addr,
            api_addr: status.server.api_addr,
            last_log_index: status.last_log_index,
            applied_index: status.applied_index,
            reachable: status.reachable,
            version: status.version,
            zk_addr: status.zk.plain,
            zk_tls_addr: status.zk.tls,
        })
        .collect();
    items.sort_by(|left, right| left.name.cmp(&right.name));
    Json(Page { items, next_cursor: None })
}

/// Takes a member out of the cluster. Takes no Idempotency-Key: membership is no part of the state
/// that remembers them. A member that is gone already is not found.
#[utoipa::path(
    delete, path = "/v1/servers/{name}", tag = "servers",
    params(("name" = String, Path, description = "The server's name")),
    responses((status = 204), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn remove_server(
    State(context): State<Context>,
    Segment(name): Segment<ServerName>,
    Params(NoParams {}): Params<NoParams>,
    NoIdempotencyKey: NoIdempotencyKey,
) -> Result<StatusCode, Problem> {
    known(&context, &name).await?;
    context.consensus.remove_server(name.as_str()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells a name that nobody has from a change that can't be made.
async fn known(context: &Context, name: &ServerName) -> Result<(), Problem> {
    let servers = context.consensus.servers().await;
    let found = servers.iter().any(|status| status.server.name == *name);
    found.then_some(()).ok_or_else(|| Problem::not_found("server", name))
}

/// Hands leadership over. Takes no Idempotency-Key: leadership is no part of the state that
/// remembers them.
#[utoipa::path(
    post, path = "/v1/servers/transfer", tag = "servers",
    request_body = TransferRequest,
    responses((status = 200, body = TransferReply), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn transfer_leadership(
    State(context): State<Context>,
    Params(NoParams {}): Params<NoParams>,
    NoIdempotencyKey: NoIdempotencyKey,
    JsonBody(ask): JsonBody<TransferRequest>,
) -> Result<Json<TransferReply>, Problem> {
    if let Some(to) = &ask.to {
        let to = to.parse().map_err(|error| Problem::invalid(format!("to: {error}")))?;
        known(&context, &to).await?;
    }
    let leader = context.consensus.transfer_leadership(ask.to.as_deref()).await?;
    Ok(Json(TransferReply { leader }))
}

/// What this server's own state comes to: equal on all servers at the same index.
#[utoipa::path(
    get, path = "/v1/servers/self/checksum", tag = "servers",
    responses((status = 200, body = ChecksumReply), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn read_checksum(
    State(context): State<Context>,
    Params(NoParams {}): Params<NoParams>,
) -> Result<Json<ChecksumReply>, Problem> {
    let server = context.consensus.me().name.to_string();
    let view = context.consensus.read(Consistency::Stale).await?;
    blocking(&context, move || {
        let checksum = format!("{:016x}", view.state.checksum());
        Json(ChecksumReply { server, applied_index: view.applied_index, checksum })
    })
    .await
}
