//! `orch rebalance`: work moves to where it is better off.

use clap::Args;
use reqwest::Method;

use super::client::Call;
use super::context::Context;
use super::failure::{Exit, Outcome};
use super::output::note;
use super::words::copy_name;
use crate::api::view::rebalance::{RebalanceReply, RebalanceRequest};

/// Flags of `orch rebalance`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch rebalance --dry-run          what would move, and why
  orch rebalance --max-moves 3      move at most three copies

A copy moves only if it is healthy and its job is calm; its replacement is ready before it stops.
Copies with named volumes stay with their data. Nothing moves by itself unless a server was
started with --rebalance-every.")]
pub(super) struct RebalanceArgs {
    /// Only tell what would move
    #[arg(long)]
    dry_run: bool,
    /// The most copies that move
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_moves: u32,
}

pub(super) async fn run(args: RebalanceArgs, context: &Context) -> Outcome {
    let request = RebalanceRequest { dry_run: args.dry_run, max_moves: Some(args.max_moves) };
    let call = Call::new(Method::POST, ["rebalance"]).json(&request)?;
    let reply: RebalanceReply = context.client.json(call).await?;
    let headers = ["COPY", "ID", "FROM", "TO", "WHY"];
    let nothing = "nothing to move: placement is as good as it gets";
    context.output.rows(&reply.moves, &headers, nothing, |row| {
        vec![
            copy_name(&row.project, &row.job, row.index).into(),
            row.id.clone().into(),
            row.from.clone().into(),
            row.to.clone().into(),
            row.why.clone().into(),
        ]
    })?;
    if reply.dry_run && !reply.moves.is_empty() {
        note("nothing was moved: this was a dry run");
    }
    Ok(Exit::DONE)
}
