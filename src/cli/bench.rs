//! `orch bench`: benchmarks that operators can run.

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::Cell;
use crate::bench::{Spread, schedule, start};

/// Verbs of `orch bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch bench schedule --nodes 5000                  how fast placements are decided
  orch bench start --image busybox:1                how fast containers start, beside docker run
Each figure is the median of the runs, with the smallest and largest behind it.")]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    verb: BenchVerb,
}

#[derive(Debug, Subcommand)]
enum BenchVerb {
    /// Decide placements on a fleet in memory; needs no server
    Schedule {
        /// Nodes of the fleet
        #[arg(long, default_value_t = 1000)]
        nodes: u32,
        /// Copies to place
        #[arg(long, default_value_t = 10_000)]
        allocations: u32,
        /// Times each measurement is taken
        #[arg(long, default_value_t = 5)]
        runs: u32,
    },
    /// Start containers through a server, and beside it with docker alone
    Start {
        /// An image that the engine has, with sh, sleep and httpd, as busybox
        #[arg(long)]
        image: String,
        /// Containers started at once
        #[arg(long, default_value_t = 40)]
        containers: u32,
        /// docker run commands at the same time
        #[arg(long, default_value_t = 4)]
        parallel: usize,
        /// Times each measurement is taken
        #[arg(long, default_value_t = 5)]
        runs: u32,
    },
}

/// Synchronous: each benchmark has a runtime of its own, or none.
pub(super) fn run(args: BenchArgs, addr: &str, context: &Context) -> Outcome {
    match args.verb {
        BenchVerb::Schedule { nodes, allocations, runs } => {
            let options = schedule::Options { nodes, allocations, runs };
            let rows = schedule::run(options, &context.clock)
                .map_err(|error| Failure::failed(error.to_string()))?;
            let headers = ["WHAT", "PLACEMENTS", "DECIDE ms", "APPLY ms"];
            context.output.rows(&rows, &headers, "no measurements", |row| {
                vec![
                    row.what.into(),
                    Cell::number(row.placements),
                    spread(&row.decide_ms).into(),
                    spread(&row.apply_ms).into(),
                ]
            })?;
        }
        BenchVerb::Start { image, containers, parallel, runs } => {
            let addr = addr.to_owned();
            let options = start::Options { addr, image, containers, parallel, runs };
            let runtime = tokio::runtime::Runtime::new()
                .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
            let rows = runtime
                .block_on(start::run(&options))
                .map_err(|error| Failure::failed(error.to_string()))?;
            let headers = ["WHAT", "DOCKER ms", "ORCH ms", "RATIO"];
            context.output.rows(&rows, &headers, "no measurements", |row| {
                vec![
                    row.what.clone().into(),
                    spread(&row.docker_ms).into(),
                    spread(&row.orch_ms).into(),
                    format!("{:.2}", row.ratio).into(),
                ]
            })?;
        }
    }
    Ok(Exit::DONE)
}

fn spread(spread: &Spread) -> String {
    format!("{:.1} ({:.1} to {:.1})", spread.median, spread.min, spread.max)
}
