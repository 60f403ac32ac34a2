//! How fast an ensemble's tree comes here while it is in use: a copy beside the time that its
//! stream alone takes, and then how far behind the copy is while the ensemble is written to. The
//! ensemble is a real one, or is played by this process.

mod error;
mod leader;
mod measure;
pub(super) mod nodes;
mod side;
mod writers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use self::error::MigrateError;
use self::leader::Leader;
use self::measure::measure;
use self::writers::Filled;
use super::facts::Facts;
use super::figures::Row;
use crate::migrate::zookeeper::link::LiveSource;
use crate::zookeeper::client::Ensemble;

/// For a copy, and for the last transactions to come.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Clients' ports of an ensemble; it needs learners' ports, so that a single server has to be
    /// one with `standaloneEnabled=false`. None: it is played.
    pub source: Option<Ensemble>,
    /// Nodes with data, at least one.
    pub nodes: usize,
    /// Bytes of each one's data.
    pub value_bytes: usize,
    /// Transactions a second while the copy follows.
    pub rate: u32,
    /// How long it follows.
    pub run: Duration,
    /// Times that reading and copying are measured, in turn.
    pub runs: u32,
    /// Where the servers' data directories are made; they are removed again.
    pub dir: PathBuf,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The machine.
    pub facts: Facts,
    /// Where the tree came from.
    pub source: String,
    /// The figures.
    pub rows: Vec<Row>,
}

/// A transaction, and since when the source has it.
#[derive(Debug, Clone, Copy)]
struct Committed {
    zxid: i64,
    at: Instant,
}

/// Takes the measurements; a real ensemble is filled before, and its nodes are gone afterwards,
/// also after SIGINT. `say` hears what is being done.
///
/// # Errors
/// See [`MigrateError`].
pub async fn run(options: &Options, say: &dyn Fn(&str)) -> Result<Report, MigrateError> {
    let facts = Facts::read(String::new());
    let Some(ensemble) = &options.source else {
        say("making a tree and its transactions up");
        let leader = Leader::start(options).await?;
        let source = LiveSource { quorum: vec![leader.addr.clone()], clients: None };
        let rows = measure(options, &source, async || Ok(leader.play().await), say).await?;
        return Ok(Report { facts, source: "played".to_owned(), rows });
    };
    say(&format!("making {} nodes", options.nodes));
    let filled = Filled::make(ensemble, options).await?;
    let source = LiveSource { quorum: Vec::new(), clients: Some(ensemble.clone()) };
    let outcome = tokio::select! {
        rows = measure(options, &source, async || filled.write(options).await, say) => rows,
        _ = tokio::signal::ctrl_c() => Err(MigrateError::Interrupted),
    };
    say("removing the nodes");
    // A measurement that failed is the more interesting error.
    let removed = filled.remove().await;
    let rows = outcome?;
    removed?;
    Ok(Report { facts, source: source.to_string(), rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn all_that_is_played_is_copied_and_proven() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            source: None,
            nodes: 2500,
            value_bytes: 100,
            rate: 1000,
            run: Duration::from_millis(500),
            runs: 1,
            dir: dir.path().to_owned(),
        };
        let report = run(&options, &|_| {}).await.unwrap();
        let value = |what: &str| report.rows.iter().find(|row| row.what == what).unwrap().value;
        // With the four of every server, the topmost, and one above each thousand.
        assert_eq!(value("nodes in the stream"), 2508.0);
        assert_eq!(value("transactions followed"), 500.0);
        assert_eq!(value("transactions proven by their digests"), 500.0);
        assert_eq!(value("digests that were others"), 0.0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
