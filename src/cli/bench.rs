//! `orch bench`: benchmarks that operators can run.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::Cell;
use crate::bench::{Spread, schedule, start, store};
use crate::model::time::Millis;

/// Verbs of `orch bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch bench store --servers 3                      how many commands the store carries out
  orch bench schedule --nodes 5000                  how fast placements are decided
  orch bench start --image busybox:1                how fast containers start, beside docker run
Each figure is the median of the runs, with the smallest and largest behind it.")]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    verb: BenchVerb,
}

#[derive(Debug, Subcommand)]
enum BenchVerb {
    /// Propose commands to servers in this process, beside the disk's own fdatasync
    Store {
        /// Sizes of clusters
        #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
        servers: Vec<usize>,
        /// Requests on their way at the same time
        #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256, 1024])]
        outstanding: Vec<usize>,
        /// Bytes of each value
        #[arg(long, default_value_t = 512)]
        bytes: usize,
        /// Length of one run
        #[arg(long, default_value = "3s")]
        run: Millis,
        /// Times each measurement is taken
        #[arg(long, default_value_t = 5)]
        runs: u32,
        /// Where data directories are made, on the disk to measure; by default, for temporary files
        #[arg(long)]
        dir: Option<PathBuf>,
    },
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
        BenchVerb::Store { servers, outstanding, bytes, run, runs, dir } => {
            let dir = dir.unwrap_or_else(std::env::temp_dir);
            let (value_bytes, run) = (bytes, run.as_duration());
            let options = store::Options { dir, servers, outstanding, value_bytes, run, runs };
            let runtime = tokio::runtime::Runtime::new()
                .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
            let report = runtime
                .block_on(store::run(options))
                .map_err(|error| Failure::failed(error.to_string()))?;
            let headers = [
                "SERVERS",
                "OUTSTANDING",
                "COMMANDS/s",
                "HALF WITHIN us",
                "99% WITHIN us",
                "FDATASYNC us",
            ];
            context.output.rows(&report.rows, &headers, "no measurements", |row| {
                vec![
                    Cell::number(row.servers),
                    Cell::number(row.outstanding),
                    spread(&row.per_second).into(),
                    spread(&row.p50_us).into(),
                    spread(&row.p99_us).into(),
                    format!("{:.0}", row.fdatasync_us).into(),
                ]
            })?;
        }
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
