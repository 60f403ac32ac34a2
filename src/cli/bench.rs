//! `orch bench`: benchmarks that operators can run.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::context::Context;
use super::failure::{Exit, Failure, Outcome};
use super::output::{Cell, note};
use crate::bench::figures::Row;
use crate::bench::{Spread, migrate, nodes, schedule, services, start, store, tree, zk};
use crate::model::time::Millis;
use crate::zookeeper::client::Ensemble;

/// Verbs of `orch bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  orch bench store --servers 3                      how many commands the store carries out
  orch bench schedule --nodes 5000                  how fast placements are decided
  orch bench nodes --nodes 5000                     how soon lost nodes are noticed among many
  orch bench start --image busybox:1                how fast containers start, beside docker run
  orch bench services --image busybox:1             kills, updates, drains, beside Docker Swarm
  orch bench zk 127.0.0.1:2181 127.0.0.1:2182       one ZooKeeper-protocol server beside another
  orch bench migrate 127.0.0.1:2181                 an ensemble copied and followed while in use
  orch bench tree                                   memory of a million of ZooKeeper's nodes
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
    /// Attach many agents to a server in this process, and let some fall silent
    Nodes {
        /// Agents
        #[arg(long, default_value_t = 5000)]
        nodes: usize,
        /// How many of them fall silent; as many others have work as well
        #[arg(long, default_value_t = 100)]
        silent: usize,
        /// How long all is calm before that
        #[arg(long, default_value = "20s")]
        calm: Millis,
        /// How often agents send a heartbeat
        #[arg(long, default_value = "2s")]
        heartbeat: Millis,
        /// A node that is not heard for longer is lost
        #[arg(long, default_value = "10s")]
        node_timeout: Millis,
        /// Where the server's data directory is made; by default, for temporary files
        #[arg(long)]
        dir: Option<PathBuf>,
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
    /// Look after services through a server, and beside it with Docker Swarm on the same engine
    ///
    /// Swarm is switched on for the time of the measurement unless it is on. A drain needs two
    /// agents without other work; both may use the same engine, with different --name,
    /// --data-dir and --bind-address.
    Services {
        /// An image that the engine has, with sleep, true and false, as busybox
        #[arg(long)]
        image: String,
        /// Replicas started at once
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1000))]
        replicas: u32,
        /// Times each measurement is taken
        #[arg(long, default_value_t = 5)]
        runs: u32,
        /// Measure only these
        #[arg(long, value_delimiter = ',', value_enum)]
        only: Vec<PartArg>,
    },
    /// Drive servers of ZooKeeper's protocol: orch's, ZooKeeper itself, or any other
    ///
    /// Several are measured in turn, run by run, and the first is compared with the last. The
    /// nodes that it makes are below one of its own and gone at the end.
    Zk {
        /// HOST:PORT of a server, or of several of one ensemble with commas between them
        #[arg(required = true, value_name = "ADDR")]
        targets: Vec<Ensemble>,
        /// What the rows call them, in the same order; by default, their addresses
        #[arg(long, value_delimiter = ',')]
        label: Vec<String>,
        /// Connections, spread over the servers of an ensemble
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=4096))]
        connections: u16,
        /// Requests on their way on each connection
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=4096))]
        outstanding: u16,
        /// Bytes of each value
        #[arg(long, default_value_t = 512,
            value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        value_bytes: u32,
        /// Length of one run
        #[arg(long, default_value = "3s")]
        run: Millis,
        /// Times each measurement is taken
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// Measure only these
        #[arg(long, value_delimiter = ',', value_enum, conflicts_with = "gap")]
        only: Vec<WorkloadArg>,
        /// Instead, write one after another on each connection for the length of one run, while
        /// you end the leader: how long was no write acknowledged?
        #[arg(long)]
        gap: bool,
    },
    /// Copy an ensemble of ZooKeeper, and follow it while it is written to
    ///
    /// Copies are measured beside the time that the ensemble's stream alone takes, to a server in
    /// this process with its log on the disk. The nodes that it makes at the ensemble are below
    /// one of its own and gone at the end.
    Migrate {
        /// Clients' ports of an ensemble with learners' ports; without one, this process plays it
        #[arg(value_name = "ADDR", value_parser = whole)]
        source: Option<Ensemble>,
        /// Nodes with data
        #[arg(long, default_value_t = 1_000_000,
            value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        nodes: u32,
        /// Bytes of each value
        #[arg(long, default_value_t = 100,
            value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        value_bytes: u32,
        /// Transactions a second while the copy follows
        #[arg(long, default_value_t = 20_000,
            value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rate: u32,
        /// How long it follows
        #[arg(long, default_value = "10s")]
        run: Millis,
        /// Times that reading and copying are measured
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// Where servers' data directories are made; by default, for temporary files
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Build ZooKeeper's tree in memory: what a node takes beside its path and data
    Tree {
        /// Nodes with data
        #[arg(long, default_value_t = 1_000_000,
            value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        nodes: u32,
        /// Bytes of each value
        #[arg(long, default_value_t = 100,
            value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        value_bytes: u32,
    },
}

/// An ensemble without a path behind it.
fn whole(text: &str) -> Result<Ensemble, String> {
    let ensemble: Ensemble = text.parse().map_err(|error| format!("{error}"))?;
    match ensemble.chroot.is_empty() {
        true => Ok(ensemble),
        false => Err("an ensemble is copied whole; leave the path away".to_owned()),
    }
}

/// What `orch bench zk` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WorkloadArg {
    Create,
    Set,
    Get,
    Mixed,
    CreateAlone,
    SetAlone,
    GetAlone,
}

impl From<WorkloadArg> for zk::Workload {
    fn from(from: WorkloadArg) -> Self {
        match from {
            WorkloadArg::Create => Self::Create,
            WorkloadArg::Set => Self::Set,
            WorkloadArg::Get => Self::Get,
            WorkloadArg::Mixed => Self::Mixed,
            WorkloadArg::CreateAlone => Self::CreateAlone,
            WorkloadArg::SetAlone => Self::SetAlone,
            WorkloadArg::GetAlone => Self::GetAlone,
        }
    }
}

/// What `orch bench services` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PartArg {
    Kill,
    KillChecked,
    Start,
    StartChecked,
    Update,
    UpdateStopFirst,
    Drain,
    Rollback,
}

impl From<PartArg> for services::Part {
    fn from(from: PartArg) -> Self {
        match from {
            PartArg::Kill => Self::Kill,
            PartArg::KillChecked => Self::KillChecked,
            PartArg::Start => Self::Start,
            PartArg::StartChecked => Self::StartChecked,
            PartArg::Update => Self::Update,
            PartArg::UpdateStopFirst => Self::UpdateStopFirst,
            PartArg::Drain => Self::Drain,
            PartArg::Rollback => Self::Rollback,
        }
    }
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
        BenchVerb::Nodes { nodes, silent, calm, heartbeat, node_timeout, dir } => {
            if 2 * silent > nodes || silent == 0 {
                return Err(Failure::usage(
                    "--silent must be at least 1, and at most half of --nodes",
                ));
            }
            let dir = dir.unwrap_or_else(std::env::temp_dir);
            let calm = calm.as_duration();
            let options = nodes::Options { dir, nodes, silent, calm, heartbeat, node_timeout };
            let rows = nodes::run(&options).map_err(|error| Failure::failed(error.to_string()))?;
            figures(&rows, context)?;
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
        BenchVerb::Services { image, replicas, runs, only } => {
            let only = only.into_iter().map(services::Part::from).collect();
            let options = services::Options { addr: addr.to_owned(), image, replicas, runs, only };
            let runtime = tokio::runtime::Runtime::new()
                .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
            let report = runtime
                .block_on(services::run(&options, &note))
                .map_err(|error| Failure::failed(error.to_string()))?;
            context.output.value(&report, || {
                let table = context.output.table(&SERVICES, report.rows.iter().map(services_row));
                format!("{}\n{table}", report.facts.line())
            })?;
        }
        BenchVerb::Zk {
            targets,
            label,
            connections,
            outstanding,
            value_bytes,
            run,
            runs,
            only,
            gap,
        } => {
            let workloads = match only.is_empty() {
                true => zk::Workload::ALL.to_vec(),
                false => only.into_iter().map(zk::Workload::from).collect(),
            };
            let options = zk::Options {
                targets: labelled(targets, label)?,
                connections: connections.into(),
                outstanding: outstanding.into(),
                value_bytes: value_bytes as usize,
                run: run.as_duration(),
                runs,
                workloads,
            };
            let runtime = tokio::runtime::Runtime::new()
                .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
            if gap {
                let report = runtime
                    .block_on(zk::gap(&options, &note))
                    .map_err(|error| Failure::failed(error.to_string()))?;
                context.output.value(&report, || {
                    let rows = report.rows.iter().map(gap_row);
                    let table = context.output.table(&GAPS, rows);
                    format!("{}\n{table}", report.facts.line())
                })?;
            } else {
                let report = runtime
                    .block_on(zk::run(&options, &note))
                    .map_err(|error| Failure::failed(error.to_string()))?;
                context.output.value(&report, || zk_text(&report, context))?;
            }
        }
        BenchVerb::Migrate { source, nodes, value_bytes, rate, run, runs, dir } => {
            let options = migrate::Options {
                source,
                nodes: nodes as usize,
                value_bytes: value_bytes as usize,
                rate,
                run: run.as_duration(),
                runs,
                dir: dir.unwrap_or_else(std::env::temp_dir),
            };
            let runtime = tokio::runtime::Runtime::new()
                .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?;
            let report = runtime
                .block_on(migrate::run(&options, &note))
                .map_err(|error| Failure::failed(error.to_string()))?;
            context.output.value(&report, || {
                let table = context.output.table(&FIGURES, report.rows.iter().map(figure_row));
                format!("{}\nsource: {}\n{table}", report.facts.line(), report.source)
            })?;
        }
        BenchVerb::Tree { nodes, value_bytes } => {
            let (nodes, value_bytes) = (nodes as usize, value_bytes as usize);
            let rows = tree::run(tree::Options { nodes, value_bytes }, &context.clock)
                .map_err(|error| Failure::failed(error.to_string()))?;
            figures(&rows, context)?;
        }
    }
    Ok(Exit::DONE)
}

const FIGURES: [&str; 5] = ["WHAT", "VALUE", "UNIT", "99% WITHIN", "MAX"];

fn figures(rows: &[Row], context: &Context) -> Result<(), Failure> {
    context.output.rows(rows, &FIGURES, "no measurements", figure_row)
}

fn figure_row(row: &Row) -> Vec<Cell> {
    let number = |value: f64| match value.fract() == 0.0 {
        true => format!("{value:.0}"),
        false => format!("{value:.2}"),
    };
    let more = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    vec![
        row.what.into(),
        number(row.value).into(),
        row.unit.into(),
        more(row.p99).into(),
        more(row.max).into(),
    ]
}

/// With their addresses where there is no label.
fn labelled(targets: Vec<Ensemble>, labels: Vec<String>) -> Result<Vec<zk::Target>, Failure> {
    if labels.len() > targets.len() {
        return Err(Failure::usage(format!(
            "--label names {} targets, but {} are given",
            labels.len(),
            targets.len()
        )));
    }
    let labels = labels.into_iter().map(Some).chain(std::iter::repeat(None));
    let targets = targets.into_iter().zip(labels).map(|(ensemble, label)| {
        let label = label.unwrap_or_else(|| ensemble.servers.join(","));
        zk::Target { label, ensemble }
    });
    Ok(targets.collect())
}

const ZK: [&str; 7] = [
    "WORKLOAD",
    "TARGET",
    "OUTSTANDING",
    "PER SECOND",
    "HALF WITHIN us",
    "99% WITHIN us",
    "RATIO (PER SECOND, HALF, 99%)",
];

fn zk_text(report: &zk::Report, context: &Context) -> String {
    let first = report.rows.first().map(|row| row.target.as_str());
    let rows = report.rows.iter().map(|row| {
        let ratio = report.ratios.iter().find(|ratio| ratio.workload == row.workload);
        let ratio = ratio.filter(|_| first == Some(row.target.as_str()));
        vec![
            row.workload.to_string().into(),
            row.target.clone().into(),
            format!("{} x {}", row.connections, row.outstanding).into(),
            spread(&row.per_second).into(),
            spread(&row.p50_us).into(),
            spread(&row.p99_us).into(),
            ratio
                .map_or_else(
                    || "-".to_owned(),
                    |ratio| format!("{:.2}, {:.2}, {:.2}", ratio.per_second, ratio.p50, ratio.p99),
                )
                .into(),
        ]
    });
    let table = context.output.table(&ZK, rows);
    let servers = report.servers.iter().map(|server| {
        let version = server.version.as_deref().unwrap_or("version unknown");
        format!("{}: {}, {version}, {}\n", server.label, server.addr, server.modes.join(" "))
    });
    format!("{}\n{}{table}", report.facts.line(), servers.collect::<String>())
}

const GAPS: [&str; 8] = [
    "TARGET",
    "WRITERS",
    "WRITES",
    "FAILED",
    "RECONNECTS",
    "EXPIRED",
    "LONGEST PAUSE ms",
    "OF ONE WRITER ms",
];

fn gap_row(row: &zk::GapRow) -> Vec<Cell> {
    vec![
        row.target.clone().into(),
        Cell::number(row.writers),
        Cell::number(row.writes),
        Cell::number(row.failed),
        Cell::number(row.reconnects),
        Cell::number(row.expired),
        format!("{:.0}", row.gap_ms).into(),
        format!("{:.0}", row.writer_gap_ms).into(),
    ]
}

const SERVICES: [&str; 6] = ["WHAT", "SWARM ms", "ORCH ms", "RATIO", "FEWEST HEALTHY", "NOTE"];

fn services_row(row: &services::Row) -> Vec<Cell> {
    let dash = || "-".to_owned();
    let least = |least: Option<u32>| least.map_or_else(dash, |least| least.to_string());
    let fewest = match (row.swarm_least, row.orch_least) {
        (None, None) => dash(),
        (swarm, orch) => format!("{}, {}", least(swarm), least(orch)),
    };
    vec![
        row.what.clone().into(),
        row.swarm_ms.as_ref().map_or_else(dash, spread).into(),
        row.orch_ms.as_ref().map_or_else(dash, spread).into(),
        row.ratio.map_or_else(dash, |ratio| format!("{ratio:.2}")).into(),
        fewest.into(),
        row.note.clone().into(),
    ]
}

fn spread(spread: &Spread) -> String {
    format!("{:.1} ({:.1} to {:.1})", spread.median, spread.min, spread.max)
}
