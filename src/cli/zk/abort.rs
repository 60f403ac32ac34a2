//! `orch zk migrate abort`: a migration is given up. The endpoint stays closed to the ensemble's
//! clients: some may have it among their servers, and would lose their sessions to an empty tree.

use clap::Args;

use super::feed::Feed;
use super::migrate::{confirm, read};
use crate::api::view::zk::{ZkStep, ZkSummary};
use crate::cli::client::Call;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::words::count;

/// Flags of `orch zk migrate abort`.
#[derive(Debug, Args)]
pub(super) struct AbortArgs {
    /// Name of the migration
    #[arg(value_name = "NAME")]
    name: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "an operator gave it up")]
    reason: String,
    /// Open the endpoint to clients, to the nodes that are here; of a migration that was given up
    /// before, too
    #[arg(long)]
    open: bool,
    /// Don't ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(args: AbortArgs, context: &Context) -> Result<(), Failure> {
    let AbortArgs { name, reason, open, yes } = args;
    let feed = Feed::new(&name, context);
    let row = read(&feed).await?;
    if row.phase == "rolled_back" {
        confirm(
            yes,
            &format!(
                "This throws away what is kept of the clients that went back ({}): see first that \
                 the ensemble has it, and serves them.",
                count(row.nodes, "node", "nodes")
            ),
        )?;
    }
    if open {
        let here: ZkSummary = context.client.json(Call::get(["zk", "summary"])).await?;
        confirm(
            yes,
            &format!(
                "This opens the endpoint to ZooKeeper's clients, who find {} here, and none of the \
                 sessions that they have: a client that comes loses its own, with its ephemeral \
                 nodes and locks. See first that no client of the ensemble has these servers among \
                 its own.",
                count(here.nodes, "node", "nodes")
            ),
        )?;
    }
    let row = feed.step(&ZkStep::Abort { reason, generation: None, open }).await?;
    context.output.value(&row, || match row.keeps_closed {
        true => format!(
            "the migration {name} is given up; the endpoint here stays closed to clients\n\
             another migration's cutover opens it, or orch zk migrate abort {name} --open"
        ),
        false => format!("the migration {name} is given up"),
    })
}
