//! How much a server of ZooKeeper's protocol carries: orch's endpoint, ZooKeeper itself, or
//! anything else that speaks it; several in turn, run by run, so that a busy machine treats them
//! alike. `load` is one run, `tree` what it works on, `gap` how long writes pause.

mod error;
mod gap;
mod load;
mod report;
mod tree;

use std::time::Duration;

use super::facts::Facts;
use crate::zookeeper::client::{Ensemble, four_letter};

pub use error::ZkError;
pub use gap::{GapReport, GapRow, gap};
pub use load::Workload;
use report::Runs;
pub use report::{Ratio, Report, Row, ServerFacts};
use tree::Tree;

/// For a server to say what it is.
const FACTS_WAIT: Duration = Duration::from_secs(5);

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The servers, in turn. The first is compared with the last.
    pub targets: Vec<Target>,
    /// Connections, spread over the servers of a target.
    pub connections: usize,
    /// Requests on their way on each.
    pub outstanding: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Length of one run.
    pub run: Duration,
    /// Times each measurement is taken.
    pub runs: u32,
    /// What is measured.
    pub workloads: Vec<Workload>,
}

/// Servers that hold the same tree.
#[derive(Debug, Clone)]
pub struct Target {
    /// What the rows call it.
    pub label: String,
    /// Where it is.
    pub ensemble: Ensemble,
}

/// Takes the measurements; takes about runs × run × workloads × targets. The nodes that it makes
/// are gone afterwards, also after SIGINT. `say` hears what is being measured.
///
/// # Errors
/// See [`ZkError`].
pub async fn run(options: &Options, say: &dyn Fn(&str)) -> Result<Report, ZkError> {
    let facts = Facts::read(String::new());
    let mut servers = Vec::new();
    let mut trees = Vec::new();
    for target in &options.targets {
        servers.push(server_facts(target).await);
    }
    let outcome = tokio::select! {
        rows = rows(options, &mut trees, say) => rows,
        _ = tokio::signal::ctrl_c() => Err(ZkError::Interrupted),
    };
    for tree in trees {
        // A measurement that failed is the more interesting error.
        match (&outcome, tree.remove().await) {
            (Ok(_), removed) => removed?,
            (Err(_), _) => {}
        }
    }
    let rows = outcome?;
    Ok(Report { facts, servers, ratios: report::ratios(&rows), rows })
}

async fn rows(
    options: &Options,
    trees: &mut Vec<Tree>,
    say: &dyn Fn(&str),
) -> Result<Vec<Row>, ZkError> {
    for target in &options.targets {
        trees.push(Tree::make(target, options.connections, options.value_bytes).await?);
    }
    let mut rows = Vec::new();
    for workload in &options.workloads {
        let mut runs = vec![Runs::default(); trees.len()];
        for number in 0..options.runs {
            for (tree, runs) in trees.iter_mut().zip(&mut runs) {
                let (at, of) = (number + 1, options.runs);
                say(&format!("{workload}, {}, run {at} of {of}", tree.target.label));
                runs.add(load::run(tree, options, *workload).await?);
                tree.tidy().await?;
            }
        }
        for (tree, runs) in trees.iter().zip(runs) {
            rows.push(runs.row(&tree.target.label, *workload, options));
        }
    }
    Ok(rows)
}

async fn server_facts(target: &Target) -> ServerFacts {
    let mut modes = Vec::new();
    let mut version = None;
    for server in &target.ensemble.servers {
        let answer = four_letter(server, "srvr", FACTS_WAIT).await.unwrap_or_default();
        let line = |key: &str| answer.lines().find_map(|line| line.strip_prefix(key));
        version = version.or_else(|| line("Zookeeper version: ").map(str::to_owned));
        modes.push(line("Mode: ").unwrap_or("unknown").to_owned());
    }
    let addr = target.ensemble.servers.join(",");
    ServerFacts { label: target.label.clone(), addr, version, modes }
}
