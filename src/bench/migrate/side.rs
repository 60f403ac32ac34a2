//! What stands on this side: a server with its log on the disk that follows the source, and a
//! reader that only takes what the source sends.

use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::setup;
use super::{MigrateError, PATIENCE};
use crate::consensus::{self, Consensus, Tuning, View};
use crate::ground::Ground;
use crate::migrate::zookeeper::link::LiveSource;
use crate::observe::metrics::Metrics;
use crate::state::znodes::{ZkImportPhase, ZkImportStatus, ZkImportStep};
use crate::state::{Command, Request};
use crate::zookeeper::observer::Event;

/// A number that is neither the ensemble's nor one that a migration takes.
const READER_ID: i64 = 248;
const NAME: &str = "bench";

/// What a reader was sent before it was up to date.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sent {
    pub(super) rows: usize,
    pub(super) bytes: usize,
    pub(super) seconds: f64,
}

/// Reads all that a new learner is sent, and does nothing with it.
pub(super) async fn read_alone(source: &LiveSource) -> Result<Sent, MigrateError> {
    let began = Instant::now();
    let mut sent = Sent::default();
    let mut observer = source.join(READER_ID, 0).await?;
    loop {
        match observer.next().await? {
            Event::Rows(rows) => {
                sent.rows += rows.len();
                sent.bytes += rows.bytes();
            }
            Event::NewLeader { .. } => break,
            _ => {}
        }
    }
    sent.seconds = began.elapsed().as_secs_f64();
    Ok(sent)
}

/// The newest transaction that the copy had, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied {
    pub(super) zxid: i64,
    pub(super) at: Instant,
}

/// A server.
pub(super) struct Side {
    consensus: Consensus,
    stop: CancellationToken,
    follower: JoinHandle<()>,
    _dir: TempDir,
}

impl Side {
    /// Starts one on an empty directory in `dir`.
    pub(super) async fn start(dir: &Path) -> Result<Self, MigrateError> {
        let dir = tempfile::tempdir_in(dir)?;
        let config = consensus::Config {
            data_dir: dir.path().to_owned(),
            name: "s1".parse().map_err(setup)?,
            // It has no peers.
            rpc_addr: "127.0.0.1:0".to_owned(),
            api_addr: String::new(),
            join: Vec::new(),
            tuning: Tuning::default(),
        };
        let metrics = Metrics::new().map_err(setup)?;
        let (consensus, _) = Consensus::open(config, Ground::machine(), metrics).await?;
        consensus.start().await?;
        consensus.leadership().wait_for(|now| now.ready).await.map_err(setup)?;
        let stop = CancellationToken::new();
        let follower =
            tokio::spawn(crate::migrate::zookeeper::run(consensus.clone(), stop.clone()));
        Ok(Self { consensus, stop, follower, _dir: dir })
    }

    /// Copies the source, until all of it is durable and further transactions are proven.
    pub(super) async fn copy(&self, source: &LiveSource) -> Result<(), MigrateError> {
        let source = source.to_string();
        let step = ZkImportStep::Start { source, live: true, again: false };
        let command = Command::ImportZk { name: NAME.to_owned(), step: Box::new(step) };
        self.consensus.propose(Request::from(command)).await.map_err(setup)?;
        let mut views = self.consensus.views();
        let over = |view: &View| {
            let phase = status(view).map(|status| status.phase);
            matches!(phase, Some(ZkImportPhase::Following | ZkImportPhase::Stopped))
        };
        let copied = tokio::time::timeout(PATIENCE, views.wait_for(over)).await;
        let view = copied.map_err(|_| MigrateError::Slow("the copy"))?.map_err(setup)?.clone();
        match status(&view) {
            Some(status) if status.phase == ZkImportPhase::Stopped => {
                Err(MigrateError::Setup(status.reason.clone()))
            }
            _ => Ok(()),
        }
    }

    /// How the import is now.
    pub(super) fn status(&self) -> Option<ZkImportStatus> {
        status(&self.consensus.views().borrow()).cloned()
    }

    /// Takes note of how far the copy is, from now until it has the transaction that `last` names.
    pub(super) fn watch(
        &self,
        mut last: watch::Receiver<i64>,
    ) -> JoinHandle<Result<Vec<Applied>, MigrateError>> {
        let mut views = self.consensus.views();
        tokio::spawn(async move {
            let mut applied: Vec<Applied> = Vec::new();
            loop {
                let zxid = zxid(&views.borrow_and_update());
                if applied.last().is_none_or(|before| before.zxid != zxid) {
                    applied.push(Applied { zxid, at: Instant::now() });
                }
                if zxid >= *last.borrow_and_update() {
                    return Ok(applied);
                }
                tokio::select! {
                    changed = views.changed() => changed.map_err(setup)?,
                    changed = last.changed() => changed.map_err(setup)?,
                }
            }
        })
    }

    pub(super) async fn stop(self) {
        self.stop.cancel();
        // It ends by the token; a panic was told of.
        let _ = self.follower.await;
        self.consensus.stop_at_once().await;
    }
}

fn status(view: &View) -> Option<&ZkImportStatus> {
    view.state.zk_import(NAME).map(|import| &import.status)
}

fn zxid(view: &View) -> i64 {
    view.state.zk_import(NAME).map_or(0, |import| import.tree.zxid())
}
