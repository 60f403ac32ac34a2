//! How fast an ensemble's tree comes here while it is in use: a copy beside the time that its
//! stream alone takes, and then how far behind the copy is while the ensemble is written to. The
//! ensemble is a real one, or is played by this process.

mod leader;
pub(super) mod nodes;
mod side;
mod writers;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use self::leader::Leader;
use self::side::{Applied, Sent, Side, read_alone};
use self::writers::Filled;
use super::facts::Facts;
use super::figures::{Row, distribution, figure};
use crate::consensus::{OpenError, StartError};
use crate::migrate::zookeeper::chunks::RowTooLarge;
use crate::migrate::zookeeper::link::{LinkError, LiveSource};
use crate::zookeeper::client::{ClientError, Ensemble, WireError};
use crate::zookeeper::observer::ObserverError;

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

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The file system or the network failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The server could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server could not take part.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The ensemble lets nobody learn.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The stream broke.
    #[error(transparent)]
    Observer(#[from] ObserverError),
    /// The ensemble refused something.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A writer's connection broke.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A value is too large.
    #[error(transparent)]
    TooLarge(#[from] RowTooLarge),
    /// A part of the program ended early.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    /// Something was not carried out, or is not valid.
    #[error("{0}")]
    Setup(String),
    /// What was waited for did not come.
    #[error("{0} took more than {seconds} s", seconds = PATIENCE.as_secs())]
    Slow(&'static str),
    /// The user has had enough.
    #[error("interrupted; the nodes that it had made are gone again")]
    Interrupted,
}

fn setup(error: impl std::fmt::Display) -> MigrateError {
    MigrateError::Setup(error.to_string())
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

async fn measure(
    options: &Options,
    source: &LiveSource,
    drive: impl AsyncFn() -> Result<Vec<Committed>, MigrateError>,
    say: &dyn Fn(&str),
) -> Result<Vec<Row>, MigrateError> {
    let (mut alone, mut copied) = (Vec::new(), Vec::new());
    let mut sent = Sent::default();
    let mut latest: Option<Side> = None;
    for run in 1..=options.runs.max(1) {
        say(&format!("reading the stream, then copying, {run} of {}", options.runs.max(1)));
        if let Some(before) = latest.take() {
            before.stop().await;
        }
        sent = read_alone(source).await?;
        alone.push(sent.seconds);
        let side = Side::start(&options.dir).await?;
        let began = Instant::now();
        side.copy(source).await?;
        copied.push(began.elapsed().as_secs_f64());
        latest = Some(side);
    }
    let side = latest.ok_or_else(|| setup("nothing was copied"))?;
    say(&format!("following for {} s", options.run.as_secs_f64()));
    let (last, lasts) = watch::channel(i64::MAX);
    let watch = side.watch(lasts);
    let committed = drive().await?;
    last.send_replace(committed.last().map_or(0, |last| last.zxid));
    let applied = tokio::time::timeout(PATIENCE, watch).await;
    let applied = applied.map_err(|_| MigrateError::Slow("the last transactions"))???;
    let status = side.status().ok_or_else(|| setup("the import is gone"))?;
    side.stop().await;

    let (reading, copying) =
        (distribution("reading the stream alone", "s", alone), distribution(COPY, "s", copied));
    let ratio = copying.value / reading.value;
    let seconds = match (committed.first(), committed.last()) {
        (Some(first), Some(last)) => last.at.saturating_duration_since(first.at).as_secs_f64(),
        _ => 0.0,
    };
    Ok(vec![
        figure("nodes in the stream", "", sent.rows as f64),
        figure("bytes of the stream", "MiB", sent.bytes as f64 / f64::from(1 << 20)),
        reading,
        copying,
        figure("copying by reading", "", ratio),
        figure("transactions followed", "", committed.len() as f64),
        figure("transactions followed in a second", "1/s", committed.len() as f64 / seconds),
        distribution("lag behind the source", "ms", lags(&committed, &applied)),
        figure("transactions proven by their digests", "", status.proven as f64),
        figure("digests that were others", "", status.mismatches as f64),
    ])
}

const COPY: &str = "copying, until it is durable";

/// How long after the source each transaction was here, in milliseconds. Both in their order.
fn lags(committed: &[Committed], applied: &[Applied]) -> Vec<f64> {
    let mut applied = applied.iter().peekable();
    let lag = |committed: &Committed| {
        while applied.next_if(|applied| applied.zxid < committed.zxid).is_some() {}
        let here = applied.peek()?.at;
        Some(here.saturating_duration_since(committed.at).as_secs_f64() * 1000.0)
    };
    committed.iter().filter_map(lag).collect()
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

    #[test]
    fn lag_is_the_time_until_a_view_has_it() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let committed = [(1, 0), (2, 10), (3, 40), (4, 50)];
        let committed = committed.map(|(zxid, millis)| Committed { zxid, at: at(millis) });
        let applied = [(0, 0), (2, 15), (3, 30)];
        let applied = applied.map(|(zxid, millis)| Applied { zxid, at: at(millis) });
        // The third was here before its writer was told; the fourth never came.
        assert_eq!(lags(&committed, &applied), [15.0, 5.0, 0.0]);
    }
}
