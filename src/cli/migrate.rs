//! `orch migrate`: brings another system's work over.

mod marathon;
mod report;

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::Outcome;

/// Verbs of `orch migrate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch migrate marathon http://marathon:8080 --dry-run    what would become of its apps
  orch migrate marathon backup.tar --adopt                bring them over where they run")]
pub(super) struct MigrateArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// Make jobs of Marathon's apps and pods
    Marathon(marathon::MarathonArgs),
}

pub(super) async fn run(args: MigrateArgs, context: &Context) -> Outcome {
    match args.from {
        From::Marathon(args) => marathon::run(args, context).await,
    }
}
