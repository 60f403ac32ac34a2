//! `POST /v1/rebalance`: work moves to where it is better off.

use axum::extract::State;

use super::context::{Context, Indexed, blocking};
use super::error::Problem;
use super::extract::{IdempotencyKey, JsonBody, NoParams, Params};
use super::view::problem::ProblemDetails;
use super::view::query::{ConsistencyChoice, WriteHeaders};
use super::view::rebalance::{MoveRow, RebalanceReply, RebalanceRequest};
use crate::limits::REBALANCE_MOVES_MAX;
use crate::planner::rebalance::{Proposal, propose};
use crate::state::Command;

/// Moves when the caller names no number.
const MOVES: u32 = 10;

/// Moves healthy copies of services towards better packing or spread, each with its replacement
/// first. Copies with named volumes, and jobs in a deployment, stay where they are.
#[utoipa::path(
    post, path = "/v1/rebalance", tag = "nodes", params(WriteHeaders),
    request_body = RebalanceRequest,
    responses((status = 200, body = RebalanceReply), (status = "4XX", body = ProblemDetails, content_type = "application/problem+json")),
)]
pub(super) async fn rebalance(
    State(context): State<Context>,
    Params(NoParams {}): Params<NoParams>,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(ask): JsonBody<RebalanceRequest>,
) -> Result<Indexed<RebalanceReply>, Problem> {
    let most = ask.max_moves.unwrap_or(MOVES);
    if most > REBALANCE_MOVES_MAX {
        return Err(Problem::invalid(format!(
            "max_moves is {most}; the most at once is {REBALANCE_MOVES_MAX}"
        )));
    }
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let (now, mut index) = (context.clock.now(), view.applied_index);
    let proposals = blocking(&context, move || propose(&view.state, now, most)).await?;
    if !ask.dry_run && !proposals.is_empty() {
        let moves = proposals.iter().map(Into::into).collect();
        index = context.propose(key, Command::MoveAllocs { moves }).await?.index;
    }
    let moves = proposals.into_iter().map(row).collect();
    Ok(Indexed(index, RebalanceReply { dry_run: ask.dry_run, moves }))
}

fn row(proposal: Proposal) -> MoveRow {
    MoveRow {
        project: proposal.job.project.to_string(),
        job: proposal.job.name.to_string(),
        index: proposal.index,
        id: proposal.alloc.to_string(),
        from: proposal.from.to_string(),
        to: proposal.to.to_string(),
        why: proposal.why,
    }
}
