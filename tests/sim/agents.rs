//! Nodes: real agents on machines that are simulated, a user who asks for work, what befalls the
//! nodes, and what must have become of it all in the end.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use orch::agent::{self, Config, ResourceOverrides, Runtimes};
use orch::ground::Witness;
use orch::model::allocation::AllocStatus;
use orch::model::name::NodeName;
use orch::state::State;
use tokio_util::sync::CancellationToken;

use super::chance::{below, between};
use super::cluster::{Cluster, RPC, server_addr, server_ip};
use super::kernel::HostId;
use super::machine::Machine;
use super::rollouts::{Missing, converged};
use super::user::{self, Desk, Wish};

/// How many nodes.
pub const HOSTS: u64 = 4;
/// Between two looks at what really runs.
const LOOK: Duration = Duration::from_millis(5);
/// Between two looks whether everything is as it was asked for.
const ASK: Duration = Duration::from_millis(500);
/// Until it must be.
const CALM: Duration = Duration::from_secs(300);

/// What must have happened at least once in any larger number of seeds.
pub const EXPECTED: [&str; 12] = [
    "agent cut off",
    "agent killed",
    "agent paused",
    "deployments",
    "leaders lost in a deployment",
    "looks at replicas side by side",
    "machine lost",
    "stops: drained",
    "stops: rebalanced",
    "stops: reverted",
    "stops: scaled down",
    "stops: updated",
];

/// A node by its number.
pub fn host_name(host: u64) -> NodeName {
    format!("n{}", host + 1).parse().unwrap()
}

struct Node {
    host: HostId,
    machine: Machine,
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Later {
    Start(usize),
    Resume(usize),
    Join(usize),
}

/// All nodes, and their user.
pub struct Fleet {
    nodes: Vec<Node>,
    user: HostId,
    desk: Desk,
    next: Duration,
    next_look: Duration,
    later: Vec<(Duration, Later)>,
    done: BTreeMap<&'static str, u64>,
    /// Who led when that was last looked at.
    leader: Option<usize>,
    /// Agents keep their files there.
    _dir: tempfile::TempDir,
}

fn directory() -> tempfile::TempDir {
    // In memory: agents make every file durable, and a simulation has many.
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

impl Fleet {
    /// Starts all agents and the user.
    pub fn start(cluster: &mut Cluster) -> Self {
        let dir = directory();
        let node = |number: u64| Node {
            host: cluster.kernel.host(host_name(number).as_str(), [10, 0, 1, number as u8 + 1]),
            machine: Machine::default(),
            dir: dir.path().join(host_name(number).as_str()),
        };
        let nodes: Vec<Node> = (0..HOSTS).map(node).collect();
        let user = cluster.kernel.host("user", [10, 0, 4, 1]);
        let now = cluster.kernel.now;
        let fleet = Self {
            nodes,
            user,
            desk: Desk::default(),
            next: now,
            next_look: now,
            later: Vec::new(),
            done: BTreeMap::new(),
            leader: None,
            _dir: dir,
        };
        for number in 0..fleet.nodes.len() {
            fleet.begin(cluster, number);
        }
        let net = cluster.kernel.ground(user, Witness::default()).net;
        let user = user::user(net, cluster.servers.len(), fleet.desk.clone());
        cluster.kernel.start(fleet.user, user);
        fleet
    }

    fn begin(&self, cluster: &mut Cluster, number: usize) {
        let node = &self.nodes[number];
        let ip: IpAddr = cluster.kernel.ip(node.host);
        let servers = (0..cluster.servers.len()).map(|server| server_addr(server, RPC).to_string());
        let config = Config {
            // Nothing of the real machine may be seen: one seed decides everything.
            attributes: ["os", "arch", "kernel", "hostname", "cpus"]
                .map(|key| (key.to_owned(), "simulated".to_owned()))
                .into(),
            runtime: agent::RuntimeChoice::Docker,
            address: ip.to_string(),
            port_range: (20_000, 20_100),
            resources: ResourceOverrides {
                cpu_milli: Some(4000),
                memory: Some(8 << 30),
                disk: Some(100 << 30),
                gpu: Some(0),
            },
            ..Config::new(host_name(number as u64), node.dir.clone(), servers.collect())
        };
        let ground = cluster.kernel.ground(node.host, Witness::default());
        let runtimes = Runtimes::elsewhere(vec![node.machine.runtime(ground.clock.clone())]);
        cluster.trace.say(format_args!("n{} starts", number + 1));
        let stop = CancellationToken::new();
        cluster.kernel.start(node.host, async move {
            let ended = agent::run_with(config, ground, stop, runtimes).await;
            panic!("an agent ended by itself: {ended:?}");
        });
    }

    /// Does what is due, and looks at what runs.
    pub fn act(&mut self, cluster: &mut Cluster) {
        let now = cluster.kernel.now;
        let (due, later) = self.later.drain(..).partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Duration, Later)> = due;
        for (_, what) in due {
            self.undo(cluster, what);
        }
        if now >= self.next {
            self.next = now + between(1000, 8000);
            self.strike(cluster);
        }
        self.watch_leader(cluster);
        self.look(cluster);
    }

    /// No replica runs twice.
    fn look(&mut self, cluster: &Cluster) {
        if cluster.kernel.now < self.next_look {
            return;
        }
        self.next_look = cluster.kernel.now + LOOK;
        let mut running = Vec::new();
        for node in &self.nodes {
            let name = cluster.kernel.name(node.host);
            for (key, task) in node.machine.running() {
                running.push((name.to_owned(), key.alloc, task));
            }
        }
        let beside = cluster.invariants().runs(&running);
        *self.done.entry("looks at replicas side by side").or_default() += beside;
    }

    /// A leader that goes while a deployment is under way leaves the rest of it to another.
    fn watch_leader(&mut self, cluster: &Cluster) {
        if let Some(leader) = self.leader
            && !cluster.kernel.is_up(cluster.servers[leader].host)
        {
            let busy = |state: &State| state.deployments().any(|known| known.active());
            if cluster.invariants().jobs().state().is_some_and(busy) {
                *self.done.entry("leaders lost in a deployment").or_default() += 1;
            }
        }
        self.leader = cluster.leader();
    }

    fn did(&mut self, cluster: &Cluster, what: &'static str, number: usize) {
        *self.done.entry(what).or_default() += 1;
        cluster.trace.say(format_args!("-- {what}: n{}", number + 1));
    }

    fn strike(&mut self, cluster: &mut Cluster) {
        let victim = below(HOSTS) as usize;
        let host = self.nodes[victim].host;
        let now = cluster.kernel.now;
        let is_up = cluster.kernel.is_up(host) && !cluster.kernel.is_paused(host);
        match below(10) {
            0..4 if is_up => {
                self.did(cluster, "agent killed", victim);
                cluster.kernel.end(host, false);
                self.later.push((now + between(0, 9000), Later::Start(victim)));
            }
            4 if is_up => {
                let disk = below(2) == 0;
                self.did(cluster, if disk { "machine lost" } else { "machine off" }, victim);
                cluster.kernel.end(host, true);
                self.nodes[victim].machine.lose(disk);
                self.later.push((now + between(500, 12_000), Later::Start(victim)));
            }
            5 | 6 if is_up => {
                self.did(cluster, "agent paused", victim);
                cluster.kernel.pause(host, true);
                self.later.push((now + between(100, 9000), Later::Resume(victim)));
            }
            7 => {
                self.did(cluster, "agent's connections lost", victim);
                for server in 0..cluster.servers.len() {
                    let ip = server_ip(server).into();
                    cluster.kernel.wires.forget(cluster.kernel.ip(host), ip);
                }
            }
            _ => {
                self.did(cluster, "agent cut off", victim);
                self.cut(cluster, victim, true);
                self.later.push((now + between(200, 12_000), Later::Join(victim)));
            }
        }
    }

    fn cut(&self, cluster: &Cluster, number: usize, cut: bool) {
        let ip = cluster.kernel.ip(self.nodes[number].host);
        for server in 0..cluster.servers.len() {
            let server = server_ip(server).into();
            cluster.kernel.wires.change(ip, server, |way| way.cut = cut);
            cluster.kernel.wires.change(server, ip, |way| way.cut = cut);
        }
    }

    fn undo(&self, cluster: &mut Cluster, what: Later) {
        match what {
            Later::Start(number) => {
                if !cluster.kernel.is_up(self.nodes[number].host) {
                    self.begin(cluster, number);
                }
            }
            Later::Resume(number) => {
                let host = self.nodes[number].host;
                if cluster.kernel.is_paused(host) {
                    cluster.trace.say(format_args!("n{} goes on", number + 1));
                    cluster.kernel.pause(host, false);
                }
            }
            Later::Join(number) => self.cut(cluster, number, false),
        }
    }

    /// Undoes everything, and ends when everything is as it was asked for.
    pub fn rest(&mut self, cluster: &mut Cluster) {
        for (_, what) in std::mem::take(&mut self.later) {
            self.undo(cluster, what);
        }
        self.desk.calm_down();
        self.nodes.iter().for_each(|node| node.machine.calm_down());
        for host in 0..HOSTS {
            self.ask(cluster, user::eligible(host));
        }
        let deadline = cluster.kernel.now + CALM;
        let mut next = cluster.kernel.now;
        loop {
            cluster.tick();
            self.look(cluster);
            if cluster.kernel.now < next {
                continue;
            }
            next = cluster.kernel.now + ASK;
            let state = cluster.invariants().jobs().state().cloned();
            let why = match state.as_ref().map(|state| self.settled(state)) {
                None => "there is no state".to_owned(),
                Some(Ok(())) => return,
                Some(Err(Missing::Waits(why))) => why,
                Some(Err(Missing::Help(wish))) => {
                    // It takes a while until it shows.
                    next += Duration::from_secs(3);
                    let why = format!("it needs {wish:?}");
                    self.ask(cluster, wish);
                    why
                }
            };
            assert!(
                cluster.kernel.now < deadline,
                "in {CALM:?} it has not come to what was asked: {why}"
            );
        }
    }

    /// The state is as it was asked for, and so are the machines.
    fn settled(&self, state: &State) -> Result<(), Missing> {
        converged(state)?;
        for (number, node) in self.nodes.iter().enumerate() {
            let name = host_name(number as u64);
            let mut is: Vec<_> =
                node.machine.running().into_iter().map(|(key, _)| key.alloc).collect();
            let meant = state.allocs_on(&name).filter(|alloc| alloc.status == AllocStatus::Running);
            let mut meant: Vec<_> = meant.map(|alloc| alloc.id).collect();
            is.sort();
            meant.sort();
            if is != meant {
                return Err(Missing::Waits(format!(
                    "{name} runs {is:?}, and should run {meant:?}"
                )));
            }
        }
        Ok(())
    }

    fn ask(&self, cluster: &Cluster, wish: Wish) {
        let net = cluster.kernel.ground(self.user, Witness::default()).net;
        let task = user::ask(net, cluster.servers.len(), wish, self.desk.clone());
        cluster.kernel.run_on(self.user, task);
    }

    /// Ends all agents; what happened.
    pub fn end(self, cluster: &mut Cluster) -> BTreeMap<&'static str, u64> {
        cluster.kernel.end(self.user, false);
        for node in &self.nodes {
            cluster.kernel.end(node.host, false);
        }
        let mut counts = self.done;
        let invariants = cluster.invariants();
        counts.extend(invariants.jobs().stops.clone());
        let state = invariants.jobs().state();
        let deployments = state.and_then(|state| state.deployments().map(|of| of.id.0).max());
        counts.insert("deployments", deployments.unwrap_or_default());
        counts.insert("wishes granted", self.desk.granted());
        let failed = self.nodes.iter().map(|node| node.machine.failed()).sum();
        counts.insert("tasks that failed", failed);
        counts
    }
}
