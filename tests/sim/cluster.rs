//! The servers of a simulation: whole `orch server`s, on simulated clocks, networks and disks.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use orch::config::ServerPart;
use orch::consensus::{self, Consensus, Tuning};
use orch::ground::Witness;
use orch::model::time::Millis;
use orch::node::{Doors, NodeError, Server};
use orch::observe::metrics::Metrics;
use orch::server;
use orch::state::State;
use orch::zookeeper;
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::invariants::Invariants;
use super::kernel::{HostId, Kernel};
use super::trace::Trace;

/// Ports of a server.
pub const RPC: u16 = 7401;
pub const API: u16 = 7400;
pub const ZK: u16 = 2181;

/// How soon a server that stopped by itself is started again.
const RESTART: Duration = Duration::from_secs(1);
/// How soon an agent that is not heard is taken for lost.
pub const NODE_TIMEOUT: Duration = Duration::from_secs(5);

/// One server, running or not.
pub struct ServerHost {
    /// Its host.
    pub host: HostId,
    /// Its disk.
    pub disk: Disk,
    /// Of its present life.
    life: Arc<Life>,
    /// How often it was started.
    pub starts: u64,
    /// Stopped by itself, it is started again then, as a system's supervisor would.
    again: Option<Duration>,
}

/// What is seen of a server's life from outside.
#[derive(Default)]
struct Life {
    consensus: OnceLock<Consensus>,
    /// Why it ended by itself.
    ended: Mutex<Option<String>>,
}

/// All servers, and what has been seen of them.
pub struct Cluster {
    /// The hosts.
    pub kernel: Kernel,
    /// The servers.
    pub servers: Vec<ServerHost>,
    /// What happened.
    pub trace: Trace,
    invariants: Arc<Mutex<Invariants>>,
}

/// `10.0.0.1` and so on.
pub fn server_ip(number: usize) -> [u8; 4] {
    [10, 0, 0, number as u8 + 1]
}

/// Where a server is reached.
pub fn server_addr(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((server_ip(number), port))
}

fn part(number: usize, join: Vec<String>) -> ServerPart {
    let (api_addr, rpc_addr) = (server_addr(number, API), server_addr(number, RPC));
    ServerPart {
        api_addr,
        rpc_addr,
        consensus: consensus::Config {
            // Nothing is kept there.
            data_dir: PathBuf::from("/nowhere"),
            name: format!("s{}", number + 1).parse().unwrap(),
            rpc_addr: rpc_addr.to_string(),
            api_addr: api_addr.to_string(),
            join,
            tuning: Tuning {
                // Small, so that snapshots and their transfer belong to every run.
                snapshot_entries: 400,
                keep_entries: 100,
                keep_bytes: 256 << 10,
                checkpoint_every: 256,
                ..Tuning::default()
            },
        },
        server: server::Config {
            node_timeout: Millis(NODE_TIMEOUT.as_millis() as u64),
            heartbeat: Millis(1000),
            full_pass: Millis::from_secs(5),
            ..server::Config::default()
        },
        zookeeper: Some(zookeeper::config::Config {
            max_connections_per_address: 0,
            ..zookeeper::config::Config::at(server_addr(number, ZK))
        }),
    }
}

async fn serve(
    disk: Disk,
    part: ServerPart,
    ground: orch::ground::Ground,
    life: Arc<Life>,
) -> Result<(), NodeError> {
    let metrics = Metrics::new()?;
    let doors = Doors::open(&part, &ground).await?;
    let stop = CancellationToken::new();
    let server = Server::start_on(disk.open(), doors, part, ground, metrics, &stop).await?;
    let _ = life.consensus.set(server.consensus().clone());
    let why = server.consensus().fatal().await;
    Err(NodeError::Fatal(why))
}

impl Cluster {
    /// So many servers, none of them running.
    pub fn new(servers: usize, trace: Trace) -> Self {
        let mut kernel = Kernel::default();
        let servers = (0..servers).map(|number| ServerHost {
            host: kernel.host(&format!("s{}", number + 1), server_ip(number)),
            disk: Disk::default(),
            life: Arc::default(),
            starts: 0,
            again: None,
        });
        let servers = servers.collect();
        Self { kernel, servers, trace, invariants: Arc::default() }
    }

    /// What must hold.
    pub fn invariants(&self) -> MutexGuard<'_, Invariants> {
        self.invariants.lock().unwrap()
    }

    /// Starts all servers for the first time, and waits until they are one cluster.
    pub fn found(&mut self) {
        for number in 0..self.servers.len() {
            self.start(number);
            self.until("the servers to be one cluster", Duration::from_secs(60), |cluster| {
                cluster.servers[number].life.consensus.get().is_some()
            });
        }
        let count = self.servers.len();
        self.until("all servers to be voters", Duration::from_secs(60), |cluster| {
            cluster.consensus(0).is_some_and(|consensus| consensus.server_addrs().len() == count)
        });
    }

    /// Starts a server on what its disk holds; an empty one joins the others.
    pub fn start(&mut self, number: usize) {
        let count = self.servers.len();
        let others = (0..count).filter(|other| *other != number);
        let joins = number > 0 || self.servers[number].starts > 0;
        let join = others.filter(|_| joins).map(|other| server_addr(other, RPC).to_string());
        let part = part(number, join.collect());
        let server = &mut self.servers[number];
        server.starts += 1;
        server.life = Arc::default();
        let (invariants, disk, life) =
            (self.invariants.clone(), server.disk.clone(), server.life.clone());
        let witness = Witness::new(move |index, state: &State| {
            invariants.lock().unwrap().applied(number, index, state);
        });
        let ground = self.kernel.ground(server.host, witness);
        self.trace.say(format_args!("s{} starts", number + 1));
        self.invariants.lock().unwrap().starts(number);
        self.kernel.start(server.host, async move {
            let ended = serve(disk, part, ground, life.clone()).await;
            *life.ended.lock().unwrap() = ended.err().map(|error| error.to_string());
        });
    }

    /// Ends a server as `kill -9` or the loss of power would.
    pub fn crash(&mut self, number: usize, power: bool) {
        let how = if power { "loses its power" } else { "is killed" };
        self.trace.say(format_args!("s{} {how}", number + 1));
        let server = &mut self.servers[number];
        self.kernel.end(server.host, power);
        server.disk.crash(power);
    }

    /// The door to a server's state, once it is a member.
    pub fn consensus(&self, number: usize) -> Option<&Consensus> {
        let server = &self.servers[number];
        server.life.consensus.get().filter(|_| self.kernel.is_up(server.host))
    }

    /// Servers that are up and think that they lead, with their terms.
    pub fn leaders(&self) -> BTreeMap<u64, usize> {
        let leads = |number: usize| {
            let consensus = self.consensus(number)?;
            let leadership = consensus.leadership().borrow().clone();
            let me = consensus.me().id;
            let leads = leadership.leader.as_ref().is_some_and(|leader| leader.id == me);
            leads.then_some((leadership.term, number))
        };
        (0..self.servers.len()).filter_map(leads).collect()
    }

    /// The newest leader.
    pub fn leader(&self) -> Option<usize> {
        self.leaders().into_values().next_back()
    }

    /// Gives everything a millisecond, and looks at what came of it.
    pub fn tick(&mut self) {
        self.kernel.tick();
        for number in 0..self.servers.len() {
            let ended = self.servers[number].life.ended.lock().unwrap().take();
            if let Some(why) = ended {
                self.trace.say(format_args!("s{} stopped itself: {why}", number + 1));
                self.invariants().stopped_itself(&why);
                self.crash(number, false);
                self.servers[number].again = Some(self.kernel.now + RESTART);
            }
            if self.servers[number].again.is_some_and(|at| at <= self.kernel.now) {
                self.servers[number].again = None;
                if !self.kernel.is_up(self.servers[number].host) {
                    self.start(number);
                }
            }
        }
        for number in 0..self.servers.len() {
            let Some(consensus) = self.consensus(number) else { continue };
            let leadership = consensus.leadership().borrow().clone();
            if let Some(leader) = leadership.leader {
                self.invariants().leads(leadership.term, leader.id);
            }
        }
    }

    /// Goes on until something holds.
    pub fn until(&mut self, what: &str, limit: Duration, holds: impl Fn(&mut Self) -> bool) {
        let deadline = self.kernel.now + limit;
        while !holds(self) {
            assert!(self.kernel.now < deadline, "in vain waited {limit:?} for {what}");
            self.tick();
        }
    }
}

impl Cluster {
    /// Goes on until all servers have applied the same, and says what: index and checksum.
    pub fn settle(&mut self, limit: Duration) -> (u64, u64) {
        let views = |cluster: &Self| -> Option<Vec<consensus::View>> {
            let view = |number| Some(cluster.consensus(number)?.views().borrow().clone());
            (0..cluster.servers.len()).map(view).collect()
        };
        let same = |views: &[consensus::View]| {
            views.iter().all(|view| view.applied_index == views[0].applied_index)
        };
        self.until("all servers to be at the same entry", limit, |cluster| {
            views(cluster).is_some_and(|views| same(&views))
        });
        let views = views(self).unwrap_or_default();
        let checksums: Vec<u64> = views.iter().map(|view| view.state.checksum()).collect();
        let index = views[0].applied_index;
        assert!(checksums.iter().all(|sum| *sum == checksums[0]), "states differ at entry {index}");
        (index, checksums[0])
    }

    /// What a variable is on the first server.
    pub fn variable(&self, path: &str) -> Option<(u64, Vec<u8>)> {
        let view = self.consensus(0)?.views().borrow().clone();
        let (project, path) = ("default".parse().unwrap(), path.to_owned().try_into().unwrap());
        let found = view.state.variable(&project, &path)?;
        Some((found.modified_index, found.value.clone()))
    }
}
