//! How a server bears many nodes: agents that only send heartbeats and report what they are told
//! to run, over real gRPC on the loopback. Some fall silent; how soon does the server notice, how
//! soon is their work elsewhere, and does it take anyone for lost who is not?

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{StreamExt, TryStreamExt};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

use super::figures::{Row, distribution, figure, resident_mib};
use crate::consensus::{self, Consensus, OpenError, StartError, Tuning};
use crate::ground::Ground;
use crate::limits::{AGENT_QUEUE_MAX, RPC_MESSAGE_BYTES_MAX};
use crate::model::allocation::{AllocReport, AllocStatus, Assignment, Health};
use crate::model::job::{JobKind, JobSpec, Placement, TaskRuntime, TaskSpec};
use crate::model::name::NodeName;
use crate::model::node::{NodeSpec, NodeState};
use crate::model::resources::{ResourceRequest, Resources};
use crate::model::time::Millis;
use crate::observe::metrics::Metrics;
use crate::rpc::v1::agents_client::AgentsClient;
use crate::rpc::v1::{self, from_agent, to_agent};
use crate::rpc::{pack, unpack};
use crate::server;
use crate::state::{AllocChange, Command, Event, Request};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the server's data directory is made; it is removed again.
    pub dir: PathBuf,
    /// Nodes.
    pub nodes: usize,
    /// How many of them fall silent.
    pub silent: usize,
    /// How long all is calm before that, for the figures at rest.
    pub calm: Duration,
    /// How often agents send a heartbeat.
    pub heartbeat: Millis,
    /// A node that is not heard for longer is lost.
    pub node_timeout: Millis,
}

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// The file system or the network failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The server could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The server could not take part.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Something was not carried out, or is not valid.
    #[error("{0}")]
    Setup(String),
    /// What was waited for did not come.
    #[error("{0} within {1} s")]
    Slow(&'static str, u64),
}

/// Agents that share a connection; a server takes no more than 200 streams on one.
const AGENTS_PER_CONNECTION: usize = 100;
/// Before an agent attaches again.
const AGAIN: Duration = Duration::from_millis(500);
/// Agents that attach at the same time.
const ATTACHING: usize = 64;
/// For all to attach, and for all that is silent to be lost and replaced.
const PATIENCE: Duration = Duration::from_secs(180);
/// In the name of the threads on which agents run.
const AGENTS: &str = "bench-agents";
const JOB: &str = "bench-nodes";

fn setup(error: impl std::fmt::Display) -> NodesError {
    NodesError::Setup(error.to_string())
}

/// Measures; takes the calm time, a few seconds more than the node timeout, and as long as it takes
/// for all to attach.
///
/// # Errors
/// See [`NodesError`].
pub fn run(options: &Options) -> Result<Vec<Row>, NodesError> {
    let runtime = |name: &str| Builder::new_multi_thread().thread_name(name).enable_all().build();
    let (server, agents) = (runtime("bench-server")?, runtime(AGENTS)?);
    let dir = options.dir.join("bench-nodes");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let rows = server.block_on(measure(options, &dir, &agents));
    agents.shutdown_background();
    server.shutdown_timeout(Duration::from_secs(5));
    std::fs::remove_dir_all(&dir)?;
    rows
}

async fn measure(
    options: &Options,
    dir: &std::path::Path,
    agents: &Runtime,
) -> Result<Vec<Row>, NodesError> {
    let bench = Bench::start(options, dir).await?;
    let mut witness = Witness::new(&bench.consensus);
    let memory = resident_mib();
    let begin = Instant::now();
    let silence = Silence::default();
    let fleet = agents.spawn(attach_all(options.clone(), bench.addr.clone(), silence.clone()));
    let connected = async {
        while !fleet.is_finished() || bench.handle.connected() < options.nodes {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let slow = NodesError::Slow("not all agents attached", PATIENCE.as_secs());
    tokio::time::timeout(PATIENCE, connected).await.map_err(|_| slow)?;
    let attached = begin.elapsed();
    let agents_of = fleet.await.map_err(setup)??;
    bench.place(options.silent).await?;
    witness
        .follow_until("the work did not start", |seen| seen.running >= 2 * options.silent)
        .await?;

    let (calm, cpu, heard) = (Instant::now(), server_cpu(), silence.heartbeats());
    let fell_silent = witness.watch_for(options.calm).await;
    let seconds = calm.elapsed().as_secs_f64();
    let cores = (server_cpu() - cpu) / seconds;
    let per_second = (silence.heartbeats() - heard) as f64 / seconds;
    fell_silent?;

    let silenced: Vec<NodeName> = agents_of.iter().take(options.silent).cloned().collect();
    // Whoever was taken for lost so far was not.
    let before = std::mem::take(&mut witness.seen.lost).len();
    silence.begin();
    let cpu = server_cpu();
    let begin = Instant::now();
    let wanted = options.silent;
    witness
        .follow_until("not all that fell silent were lost and replaced", |seen| {
            silenced.iter().filter(|node| seen.lost.contains_key(*node)).count() == wanted
                && seen.missing.is_empty()
        })
        .await?;
    let cores_losing = (server_cpu() - cpu) / begin.elapsed().as_secs_f64();
    let last = silence.last_heartbeats();
    let seen = witness.seen;
    let noticed = silenced.iter().filter_map(|node| {
        let since = last.get(node)?;
        Some(seen.lost.get(node)?.saturating_duration_since(*since).as_secs_f64())
    });
    let wrongly = seen.lost.keys().filter(|node| !silenced.contains(node)).count();
    let replaced: Vec<f64> = seen.replaced.iter().map(Duration::as_secs_f64).collect();
    let rows = vec![
        figure("nodes", "", options.nodes as f64),
        figure("until all had attached", "s", attached.as_secs_f64()),
        figure("heartbeats", "1/s", per_second),
        figure("server's CPU at rest", "cores", cores),
        figure("server's CPU while nodes are lost", "cores", cores_losing),
        figure("memory of server and agents together", "MiB", resident_mib() - memory),
        distribution("from the last heartbeat to lost", "s", noticed.collect()),
        distribution("from lost to running elsewhere", "s", replaced),
        figure("taken for lost that were not", "", (before + wrongly) as f64),
    ];
    bench.stop().await;
    Ok(rows)
}

/// The server under test.
struct Bench {
    consensus: Consensus,
    handle: server::ServerHandle,
    addr: String,
    stop: CancellationToken,
    door: JoinHandle<()>,
}

impl Bench {
    async fn start(options: &Options, dir: &std::path::Path) -> Result<Self, NodesError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?.to_string();
        let config = consensus::Config {
            data_dir: dir.to_owned(),
            name: "s1".parse().map_err(setup)?,
            rpc_addr: addr.clone(),
            api_addr: String::new(),
            join: Vec::new(),
            tuning: Tuning::default(),
        };
        let (ground, metrics) = (Ground::machine(), Metrics::new().map_err(setup)?);
        let clock = ground.clock.clone();
        let (consensus, services) = Consensus::open(config, ground, metrics.clone()).await?;
        let stop = CancellationToken::new();
        let config = server::Config {
            node_timeout: options.node_timeout,
            heartbeat: options.heartbeat,
            ..server::Config::default()
        };
        let (handle, agents) =
            server::start(consensus.clone(), config, clock, metrics, stop.clone());
        let door = tokio::spawn(async move {
            let server = Server::builder()
                .add_service(services.raft)
                .add_service(services.cluster)
                .add_service(agents);
            // It ends when the benchmark does.
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let _ = server.serve_with_incoming(incoming).await;
        });
        consensus.start().await?;
        let mut leadership = consensus.leadership();
        leadership.wait_for(|now| now.ready).await.map_err(setup)?;
        Ok(Self { consensus, handle, addr, stop, door })
    }

    /// Work for the nodes that will fall silent, and for as many that will not.
    async fn place(&self, silent: usize) -> Result<(), NodesError> {
        let task = TaskSpec {
            command: vec!["serve".to_owned()],
            resources: ResourceRequest {
                cpu_milli: Some(100),
                memory: Some(64 << 20),
                ..ResourceRequest::default()
            },
            ..TaskSpec::new(JOB.parse().map_err(setup)?, TaskRuntime::Process)
        };
        let replicas = u32::try_from(2 * silent).unwrap_or(u32::MAX);
        let kind = JobKind::Service { replicas };
        let spec = JobSpec {
            placement: Placement {
                require: vec!["attr.work == yes".parse().map_err(setup)?],
                ..Placement::default()
            },
            ..JobSpec::new(JOB.parse().map_err(setup)?, kind, vec![task])
        };
        let command = Command::SubmitJob { spec: Arc::new(spec), if_version: None };
        self.consensus.propose(Request::from(command)).await.map_err(setup)?;
        Ok(())
    }

    async fn stop(self) {
        self.stop.cancel();
        self.consensus.stop_at_once().await;
        self.door.abort();
    }
}

/// What the state said, and when it was seen.
#[derive(Default)]
struct Seen {
    lost: BTreeMap<NodeName, Instant>,
    /// Replicas that are lost and have no successor yet.
    missing: BTreeMap<u32, Instant>,
    replaced: Vec<Duration>,
    running: usize,
}

struct Witness {
    views: watch::Receiver<consensus::View>,
    cursor: u64,
    seen: Seen,
}

impl Witness {
    fn new(consensus: &Consensus) -> Self {
        let views = consensus.views();
        let cursor = views.borrow().state.last_event();
        Self { views, cursor, seen: Seen::default() }
    }

    fn look(&mut self) -> Result<(), NodesError> {
        let now = Instant::now();
        let state = self.views.borrow_and_update().state.clone();
        for record in state.events_after(self.cursor).map_err(setup)? {
            match &record.event {
                Event::NodeChanged { node, state: NodeState::Lost, .. } => {
                    self.seen.lost.entry(node.clone()).or_insert(now);
                }
                Event::AllocChanged { index, change: AllocChange::Status, status, .. } => {
                    match status {
                        AllocStatus::Lost => {
                            self.seen.missing.insert(*index, now);
                        }
                        AllocStatus::Running => {
                            self.seen.running += 1;
                            if let Some(since) = self.seen.missing.remove(index) {
                                self.seen.replaced.push(now.saturating_duration_since(since));
                            }
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        self.cursor = state.last_event();
        Ok(())
    }

    async fn follow_until(
        &mut self,
        what: &'static str,
        done: impl Fn(&Seen) -> bool,
    ) -> Result<(), NodesError> {
        let follow = async {
            loop {
                self.look()?;
                if done(&self.seen) {
                    return Ok(());
                }
                self.views.changed().await.map_err(setup)?;
            }
        };
        match tokio::time::timeout(PATIENCE, follow).await {
            Ok(done) => done,
            Err(_) => Err(NodesError::Slow(what, PATIENCE.as_secs())),
        }
    }

    async fn watch_for(&mut self, time: Duration) -> Result<(), NodesError> {
        tokio::time::sleep(time).await;
        self.look()
    }
}

/// What the agents share: the word to fall silent, and when each was last heard.
#[derive(Clone, Default)]
struct Silence {
    begun: CancellationToken,
    beats: Arc<std::sync::atomic::AtomicU64>,
    last: Arc<std::sync::Mutex<BTreeMap<NodeName, Instant>>>,
}

impl Silence {
    fn begin(&self) {
        self.begun.cancel();
    }

    fn heartbeats(&self) -> u64 {
        self.beats.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn last_heartbeats(&self) -> BTreeMap<NodeName, Instant> {
        self.last.lock().map(|last| last.clone()).unwrap_or_default()
    }
}

/// Attaches them all; those that will fall silent come first. Their names come back.
async fn attach_all(
    options: Options,
    addr: String,
    silence: Silence,
) -> Result<Vec<NodeName>, NodesError> {
    let mut channels = Vec::new();
    for _ in 0..options.nodes.div_ceil(AGENTS_PER_CONNECTION) {
        let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(setup)?;
        channels.push(endpoint.tcp_nodelay(true).connect().await.map_err(setup)?);
    }
    futures::stream::iter(0..options.nodes)
        .map(|number| {
            let channel = channels[number / AGENTS_PER_CONNECTION].clone();
            let (options, silence) = (options.clone(), silence.clone());
            async move {
                let agent = Agent::attach(number, &options, channel.clone()).await?;
                let name = agent.name.clone();
                let silence = (number < options.silent).then_some(silence.clone()).ok_or(silence);
                // Spread over the time between two heartbeats, as in life.
                let share = number as f64 / options.nodes.max(1) as f64;
                let first = options.heartbeat.as_duration().mul_f64(share);
                tokio::spawn(async move {
                    let mut agent = agent;
                    while agent.live(options.heartbeat.as_duration(), first, &silence).await {
                        // As a real one does whose stream has ended.
                        tokio::time::sleep(AGAIN).await;
                        match Agent::attach(number, &options, channel.clone()).await {
                            Ok(again) => agent = again,
                            Err(_) => return,
                        }
                    }
                });
                Ok(name)
            }
        })
        .buffered(ATTACHING)
        .try_collect()
        .await
}

/// An agent that runs nothing, and says that it does.
struct Agent {
    name: NodeName,
    to: mpsc::Sender<v1::FromAgent>,
    from: tonic::Streaming<v1::ToAgent>,
    sequence: u64,
}

impl Agent {
    async fn attach(
        number: usize,
        options: &Options,
        channel: Channel,
    ) -> Result<Self, NodesError> {
        let works = number < 2 * options.silent;
        let spec = NodeSpec {
            name: format!("node-{number}").parse().map_err(setup)?,
            agent_id: number as u64 + 1,
            address: "127.0.0.1".to_owned(),
            class: String::new(),
            attributes: works.then(|| ("work".to_owned(), "yes".to_owned())).into_iter().collect(),
            resources: Resources { cpu_milli: 4000, memory: 8 << 30, disk: 1 << 40, gpu: 0 },
            runtimes: BTreeSet::from(["process".to_owned()]),
            volume_roots: Vec::new(),
            port_range: (20_000, 31_999),
            version: String::new(),
        };
        let node = pack(&spec).map_err(setup)?.into();
        let (to, queue) = mpsc::channel(AGENT_QUEUE_MAX);
        let hello = from_agent::Message::Hello(v1::Hello { node, cluster_id: 0, term: 0 });
        to.send(v1::FromAgent { message: Some(hello) }).await.map_err(setup)?;
        let mut client =
            AgentsClient::new(channel).max_decoding_message_size(RPC_MESSAGE_BYTES_MAX);
        let from = client.attach(ReceiverStream::new(queue)).await.map_err(setup)?.into_inner();
        Ok(Self { name: spec.name, to, from, sequence: 0 })
    }

    /// Sends heartbeats until the stream ends; whether it is to attach again. One that is to fall
    /// silent (`Ok`) does so then, and keeps its stream open, as a host does that hangs.
    async fn live(
        &mut self,
        every: Duration,
        first: Duration,
        silence: &Result<Silence, Silence>,
    ) -> bool {
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + first, every);
        let (shared, falls) = match silence {
            Ok(shared) => (shared, true),
            Err(shared) => (shared, false),
        };
        let mut last = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shared.begun.cancelled(), if falls => {
                    if let Ok(mut heartbeats) = shared.last.lock() {
                        heartbeats.insert(self.name.clone(), last);
                    }
                    break;
                }
                _ = tick.tick() => {
                    self.sequence += 1;
                    let heartbeat = v1::Heartbeat {
                        sequence: self.sequence,
                        stats: Some(v1::NodeStats::default()),
                    };
                    if !self.say(from_agent::Message::Heartbeat(heartbeat)).await {
                        return true;
                    }
                    last = Instant::now();
                    shared.beats.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
                message = self.from.message() => {
                    let Ok(Some(message)) = message else { return true };
                    let told = match message.message {
                        Some(to_agent::Message::Sync(sync)) => sync.run,
                        Some(to_agent::Message::Orders(orders)) => orders.run,
                        _ => continue,
                    };
                    if !told.is_empty() {
                        last = Instant::now();
                        if !self.report(told.iter().map(|order| order.as_ref())).await {
                            return true;
                        }
                    }
                }
            }
        }
        // Holds its stream open until the server ends it.
        while let Ok(Some(_)) = self.from.message().await {}
        false
    }

    async fn say(&self, message: from_agent::Message) -> bool {
        self.to.send(v1::FromAgent { message: Some(message) }).await.is_ok()
    }

    async fn report(&mut self, orders: impl Iterator<Item = &[u8]>) -> bool {
        let mut reports = Vec::new();
        for order in orders {
            let Ok(order) = unpack::<Assignment>(order) else { return false };
            let report = AllocReport {
                id: order.id,
                generation: order.grant.generation,
                status: AllocStatus::Running,
                health: Health::Healthy,
                ready: true,
                tasks: BTreeMap::new(),
                message: String::new(),
            };
            let Ok(report) = pack(&report) else { return false };
            reports.push(report.into());
        }
        self.sequence += 1;
        let reports = v1::Reports { sequence: self.sequence, reports };
        self.say(from_agent::Message::Reports(reports)).await
    }
}

/// Seconds of CPU that all threads of this process but the agents' have used.
fn server_cpu() -> f64 {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0.0 };
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
        if read("comm")?.starts_with(AGENTS) {
            return None;
        }
        read("schedstat")?.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silent_are_lost_and_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: dir.path().to_owned(),
            nodes: 30,
            silent: 3,
            calm: Duration::from_millis(200),
            heartbeat: Millis(200),
            node_timeout: Millis(3000),
        };
        let rows = run(&options).unwrap();
        let value = |what: &str| rows.iter().find(|row| row.what == what).unwrap().value;
        assert_eq!(value("taken for lost that were not"), 0.0);
        assert!(value("from the last heartbeat to lost") >= 3.0);
        assert!(value("heartbeats") > 0.0);
    }
}
