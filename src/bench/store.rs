//! How many commands the store carries out, and how fast: servers in this process, on real
//! directories, over gRPC on the loopback, beside the disk's own `fdatasync`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::Spread;
use crate::consensus::{Config, Consensus, OpenError, ProposeError, StartError, Tuning};
use crate::ground::Ground;
use crate::model::variable::{VariablePath, VariablePathError};
use crate::observe::metrics::Metrics;
use crate::state::{Command, Request};

/// Different paths that are written.
const PATHS: usize = 10_000;
/// Syncs measured for the disk's own figure.
const SYNCS: usize = 200;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where data directories are made; they are removed again.
    pub dir: PathBuf,
    /// Sizes of clusters.
    pub servers: Vec<usize>,
    /// Requests on their way at the same time.
    pub outstanding: Vec<usize>,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Length of one run.
    pub run: Duration,
    /// Runs of each combination.
    pub runs: u32,
}

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Microseconds of one `fdatasync` after a small write, measured before each row.
    pub fdatasync_us: Spread,
    /// One for each size of cluster and number of requests.
    pub rows: Vec<Row>,
}

/// One combination; medians of its runs.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Size of the cluster.
    pub servers: usize,
    /// Requests on their way at the same time.
    pub outstanding: usize,
    /// Commands carried out in a second.
    pub per_second: Spread,
    /// Microseconds from proposal to answer: half took less.
    pub p50_us: Spread,
    /// Microseconds from proposal to answer: 99 of 100 took less.
    pub p99_us: Spread,
    /// Microseconds of one `fdatasync` at that time.
    pub fdatasync_us: f64,
}

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system or the network failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A server could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A server could not take part.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A command was not carried out.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// A path that is none.
    #[error(transparent)]
    Path(#[from] VariablePathError),
    /// A name or a metric that is none.
    #[error("{0}")]
    Setup(String),
}

/// Measures; takes about runs × run × combinations.
///
/// # Errors
/// See [`StoreError`].
pub async fn run(options: Options) -> Result<Report, StoreError> {
    std::fs::create_dir_all(&options.dir)?;
    let mut rows = Vec::new();
    let mut syncs = Vec::new();
    for servers in &options.servers {
        let dir = options.dir.join(format!("bench-store-{servers}"));
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let cluster = Cluster::start(&dir, *servers).await?;
        for outstanding in &options.outstanding {
            let sync = fdatasync(&options.dir)?;
            syncs.push(sync);
            rows.push(measure(&cluster.servers[0], &options, *servers, *outstanding, sync).await?);
        }
        cluster.stop().await;
        std::fs::remove_dir_all(&dir)?;
    }
    Ok(Report { fdatasync_us: Spread::of(syncs), rows })
}

/// Microseconds of a small write made durable: half took less.
fn fdatasync(dir: &Path) -> io::Result<f64> {
    let path = dir.join("bench-store-sync");
    let mut file = File::create(&path)?;
    let block = [0x5a; 4096];
    let mut took = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(started.elapsed().as_secs_f64() * 1e6);
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(Spread::of(took).median)
}

async fn measure(
    leader: &Consensus,
    options: &Options,
    servers: usize,
    outstanding: usize,
    fdatasync_us: f64,
) -> Result<Row, StoreError> {
    let paths: Result<Vec<_>, _> =
        (0..PATHS).map(|i| VariablePath::try_from(format!("bench/{i}"))).collect();
    let paths = Arc::new(paths?);
    let (mut per_second, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.runs {
        let mut clients = JoinSet::new();
        let started = Instant::now();
        let until = started + options.run;
        for client in 0..outstanding {
            let (leader, paths) = (leader.clone(), paths.clone());
            let value_bytes = options.value_bytes;
            clients.spawn(client_loop(leader, paths, client, value_bytes, until));
        }
        let mut took = Vec::new();
        while let Some(client) = clients.join_next().await {
            let client = client.map_err(|error| StoreError::Setup(error.to_string()))?;
            took.extend(client?);
        }
        let seconds = started.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |share: usize| took.get(took.len() * share / 100).copied().unwrap_or_default();
        per_second.push(took.len() as f64 / seconds);
        p50.push(f64::from(at(50)));
        p99.push(f64::from(at(99)));
    }
    Ok(Row {
        servers,
        outstanding,
        per_second: Spread::of(per_second),
        p50_us: Spread::of(p50),
        p99_us: Spread::of(p99),
        fdatasync_us,
    })
}

/// One request after another; microseconds of each.
async fn client_loop(
    leader: Consensus,
    paths: Arc<Vec<VariablePath>>,
    client: usize,
    value_bytes: usize,
    until: Instant,
) -> Result<Vec<u32>, StoreError> {
    let project: crate::model::name::ProjectName =
        "bench".parse().map_err(|error| StoreError::Setup(format!("{error}")))?;
    let mut took = Vec::new();
    for i in client.. {
        let started = Instant::now();
        if started >= until {
            break;
        }
        let command = Command::PutVariable {
            project: project.clone(),
            // A step that has no factor in common with the number of paths.
            path: paths[(i * 7919) % paths.len()].clone(),
            value: vec![0x5a; value_bytes],
            if_index: None,
        };
        leader.propose(Request::from(command)).await?;
        took.push(u32::try_from(started.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(took)
}

/// Servers in this process; the first one leads.
struct Cluster {
    servers: Vec<Consensus>,
    doors: Vec<JoinHandle<()>>,
}

impl Cluster {
    async fn start(dir: &Path, count: usize) -> Result<Self, StoreError> {
        let mut cluster = Self { servers: Vec::new(), doors: Vec::new() };
        let mut join = Vec::new();
        for number in 1..=count {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let addr = listener.local_addr()?.to_string();
            let name = format!("s{number}");
            let setup = |error: &dyn std::fmt::Display| StoreError::Setup(error.to_string());
            let config = Config {
                data_dir: dir.join(&name),
                name: name.parse().map_err(|error| setup(&error))?,
                rpc_addr: addr.clone(),
                api_addr: String::new(),
                join: join.clone(),
                tuning: Tuning::default(),
            };
            let metrics = Metrics::new().map_err(|error| setup(&error))?;
            let (consensus, services) = Consensus::open(config, Ground::machine(), metrics).await?;
            cluster.doors.push(tokio::spawn(async move {
                let server =
                    Server::builder().add_service(services.raft).add_service(services.cluster);
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                // It ends when the cluster does.
                let _ = server.serve_with_incoming(incoming).await;
            }));
            consensus.start().await?;
            cluster.servers.push(consensus);
            join = vec![addr];
        }
        Ok(cluster)
    }

    async fn stop(self) {
        for server in self.servers.iter().rev() {
            server.stop_at_once().await;
        }
        for door in self.doors {
            door.abort();
        }
    }
}
