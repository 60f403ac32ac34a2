//! Servers that everything can happen to: each a process in a network namespace of its own, joined
//! by one bridge; with a preloaded library below, if asked for, and a small disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::preload::{Preload, tell};
use crate::support::{
    LONG, Namespace, Output, Process, SHORT, SmallDisk, kill_processes_under, wait_until,
};

const API_PORT: u16 = 7400;
const RPC_PORT: u16 = 7401;
const ZK_PORT: u16 = 2181;
/// Where clients are.
const HUB: &str = "10.0.0.254";
/// A full disk has room for so many bytes more.
const FULL: u64 = 32 << 10;

/// What servers are made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup {
    /// How many.
    pub count: usize,
    /// With the preloaded library.
    pub preload: bool,
    /// Disks that say that they have synced and have not.
    pub lies: bool,
    /// The size of each one's disk, as `200m`.
    pub disk: Option<&'static str>,
}

/// Servers and their network. Everything ends when it is dropped; if the test has failed, the end
/// of each log is shown and the files stay.
#[derive(Debug)]
pub struct Servers {
    setup: Setup,
    members: Vec<Member>,
    agents: Vec<Process>,
    runtime: Option<tokio::runtime::Runtime>,
    http: reqwest::Client,
    hub: Namespace,
    preload: Option<Preload>,
    directory: Option<tempfile::TempDir>,
}

#[derive(Debug)]
struct Member {
    name: String,
    namespace: Namespace,
    process: Option<Process>,
    stopped: bool,
    /// What the disk and the clock are like, for the next start.
    delay: Duration,
    clock: i64,
    log: PathBuf,
    data: PathBuf,
    control: PathBuf,
    disk: Option<SmallDisk>,
}

/// Where the clients of the servers connect.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Of each server: its name, REST, ZooKeeper.
    pub servers: Arc<Vec<(String, String, String)>>,
    /// Whose threads live where the servers can be reached.
    pub runtime: tokio::runtime::Handle,
}

fn address(at: usize) -> String {
    format!("10.0.0.{}", at + 1)
}

impl Servers {
    /// Servers `s1` to `sN`, all of them voters.
    pub fn start(setup: Setup) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::Builder::new().prefix("orch-it-").tempdir().unwrap();
        let hub = Namespace::new("hub");
        hub.ip(&["link", "add", "bridge", "type", "bridge"]);
        hub.ip(&["address", "add", &format!("{HUB}/24"), "dev", "bridge"]);
        hub.ip(&["link", "set", "bridge", "up"]);
        let preload = setup.preload.then(|| Preload::build(directory.path()));
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(Duration::from_secs(5))
            .build()
            .unwrap();
        let runtime = Some(hub.runtime());
        let mut servers = Self {
            setup,
            members: Vec::new(),
            agents: Vec::new(),
            runtime,
            http,
            hub,
            preload,
            directory: Some(directory),
        };
        for at in 0..setup.count {
            let member = servers.member(at);
            servers.members.push(member);
            servers.start_one(at);
            servers.wait_ready(at);
        }
        servers.wait_for_voters();
        servers
    }

    fn member(&self, at: usize) -> Member {
        let name = format!("s{}", at + 1);
        let namespace = Namespace::new(&name);
        let end = format!("to-{name}");
        let peer = ["peer", "name", "wire", "netns", namespace.name()];
        self.hub.ip(&[&["link", "add", end.as_str(), "type", "veth"], &peer[..]].concat());
        self.hub.ip(&["link", "set", &end, "master", "bridge", "up"]);
        namespace.ip(&["address", "add", &format!("{}/24", address(at)), "dev", "wire"]);
        namespace.ip(&["link", "set", "wire", "up"]);
        let path = self.path();
        let top = path.join(&name);
        let disk = self.setup.disk.map(|size| SmallDisk::mount(&top, size));
        std::fs::create_dir_all(&top).unwrap();
        Member {
            log: path.join(format!("{name}.log")),
            data: top.join("data"),
            control: path.join(format!("{name}.control")),
            namespace,
            name,
            process: None,
            stopped: false,
            delay: Duration::ZERO,
            clock: 0,
            disk,
        }
    }

    /// The directory with everybody's data and logs.
    pub fn path(&self) -> &Path {
        self.directory.as_ref().unwrap().path()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// A server's name.
    pub fn name(&self, at: usize) -> &str {
        &self.members[at].name
    }

    /// A server's data directory.
    pub fn data(&self, at: usize) -> &Path {
        &self.members[at].data
    }

    /// A server's process id, if it runs.
    pub fn id(&self, at: usize) -> Option<u32> {
        self.members[at].process.as_ref().map(Process::id)
    }

    /// For clients.
    pub fn doors(&self) -> Doors {
        let door = |at: usize| {
            let (name, host) = (self.members[at].name.clone(), address(at));
            (name, format!("{host}:{API_PORT}"), format!("{host}:{ZK_PORT}"))
        };
        let servers = Arc::new((0..self.count()).map(door).collect());
        Doors { servers, runtime: self.runtime.as_ref().unwrap().handle().clone() }
    }

    fn start_one(&mut self, at: usize) {
        let (rpc, api) =
            (format!("{}:{RPC_PORT}", address(at)), format!("{}:{API_PORT}", address(at)));
        let (zk, join) =
            (format!("{}:{ZK_PORT}", address(at)), format!("{}:{RPC_PORT}", address(0)));
        let member = &mut self.members[at];
        let data = member.data.display().to_string();
        let mut arguments = vec!["server", "--insecure", "--name", &member.name];
        arguments.extend(["--data-dir", &data, "--rpc-addr", &rpc, "--api-addr", &api]);
        arguments.extend(["--zk-addr", &zk, "--zk-tick", "500ms", "--zk-max-connections", "0"]);
        arguments.extend(["--node-timeout", "3s"]);
        if at > 0 {
            arguments.extend(["--join", &join]);
        }
        let mut command = member.namespace.orch(&arguments);
        if let Some(preload) = &self.preload {
            command.envs(preload.environment("orch", &member.data, &member.control));
            command.env("FAULTS_DELAY", member.delay.as_micros().to_string());
            command.env("FAULTS_CLOCK", member.clock.to_string());
            if self.setup.lies {
                command.env("FAULTS_LIES", "1");
            }
        }
        member.process = Some(Process::start(&member.name, &mut command, &member.log));
        member.stopped = false;
    }

    /// Starts a node's agent where the clients are.
    pub fn agent(&mut self, name: &str, more: &[&str]) {
        let data = self.path().join(name).display().to_string();
        let mut arguments = vec!["agent", "--insecure", "--name", name, "--data-dir", &data];
        arguments.extend(["--runtime", "process", "--address", HUB, "--bind-address", HUB]);
        let joins: Vec<_> =
            (0..self.count()).map(|at| format!("{}:{RPC_PORT}", address(at))).collect();
        for join in &joins {
            arguments.extend(["--join", join]);
        }
        arguments.extend(more);
        let log = self.path().join(format!("{name}.log"));
        let mut command = self.hub.orch(&arguments);
        self.agents.push(Process::start(name, &mut command, &log));
    }

    /// `kill -9` of an agent; what it runs runs on.
    pub fn kill_agent(&mut self, at: usize) {
        self.agents[at].kill();
    }

    /// Process ids of the agents, in the order of their starts.
    pub fn agent_ids(&self) -> Vec<u32> {
        self.agents.iter().map(Process::id).collect()
    }

    /// The command line against one server.
    pub fn orch(&self, at: usize, arguments: &[&str]) -> Output {
        let mut command = self.hub.orch(arguments);
        command.env("ORCH_ADDR", format!("http://{}:{API_PORT}", address(at)));
        Output::of(arguments, command.output().unwrap())
    }

    /// One exchange with a server's API: status and body.
    pub fn http(&self, method: &str, at: usize, path: &str) -> Result<(u16, Vec<u8>), String> {
        let url = format!("http://{}:{API_PORT}{path}", address(at));
        let request = self.http.request(method.parse().unwrap(), url);
        let exchange = async move {
            let response = request.send().await.map_err(|error| format!("{error:?}"))?;
            let status = response.status().as_u16();
            let body = response.bytes().await.map_err(|error| format!("{error:?}"))?;
            Ok((status, body.to_vec()))
        };
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(runtime.spawn(exchange)).unwrap()
    }

    /// `GET` of JSON.
    pub fn json(&self, at: usize, path: &str) -> Result<Value, String> {
        let (status, body) = self.http("GET", at, path)?;
        if status != 200 {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }

    /// Waits until a server says that it is ready.
    #[track_caller]
    pub fn wait_ready(&mut self, at: usize) {
        let name = self.members[at].name.clone();
        wait_until(&format!("{name} to be ready"), LONG, || {
            let process = self.members[at].process.as_mut().expect("it was started");
            assert!(process.runs(), "{name} has ended:\n{}", process.log());
            match self.http("GET", at, "/readyz")? {
                (200, _) => Ok(()),
                (_, body) => Err(String::from_utf8_lossy(&body).into_owned()),
            }
        });
    }

    /// Waits until all are voters that can be reached, with one leader.
    #[track_caller]
    pub fn wait_for_voters(&self) {
        let count = self.count();
        wait_until(&format!("{count} voters"), LONG, || {
            let rows = self.json(0, "/v1/servers")?;
            let rows = rows["items"].as_array().ok_or("no rows")?;
            let voters = rows
                .iter()
                .filter(|row| row["role"] != "learner" && row["reachable"] == true)
                .count();
            let leaders = rows.iter().filter(|row| row["role"] == "leader").count();
            if voters == count && leaders == 1 { Ok(()) } else { Err(format!("{rows:?}")) }
        });
    }

    /// Who leads, as far as any server knows.
    pub fn leader(&self) -> Option<usize> {
        (0..self.count()).filter(|at| self.runs(*at)).find_map(|at| {
            let rows = self.json(at, "/v1/servers").ok()?;
            let row = rows["items"].as_array()?.iter().find(|row| row["role"] == "leader")?;
            self.members.iter().position(|member| row["name"] == member.name.as_str())
        })
    }

    /// Hands leadership to a server.
    pub fn lead(&self, at: usize) -> Result<(), String> {
        let done = self.orch(at, &["server", "transfer", "--to", &self.members[at].name]);
        if done.code == 0 { Ok(()) } else { Err(done.to_string()) }
    }

    /// Waits until all have applied the same, and compares their checksums.
    #[track_caller]
    pub fn assert_same_everywhere(&self) {
        wait_until("equal checksums at an equal index", LONG, || {
            let mut seen = Vec::new();
            for at in 0..self.count() {
                let reply = self.json(at, "/v1/servers/self/checksum")?;
                seen.push((reply["applied_index"].clone(), reply["checksum"].clone()));
            }
            if seen.windows(2).any(|pair| pair[0].0 != pair[1].0) {
                return Err(format!("{seen:?}"));
            }
            assert!(seen.windows(2).all(|pair| pair[0].1 == pair[1].1), "states differ: {seen:?}");
            Ok(())
        });
    }

    /// Whether a server's process is there and not stopped.
    pub fn runs(&self, at: usize) -> bool {
        self.members[at].process.is_some() && !self.members[at].stopped
    }

    /// `kill -9`.
    pub fn kill(&mut self, at: usize) {
        if let Some(mut process) = self.members[at].process.take() {
            process.kill();
        }
    }

    /// Starts a server that does not run.
    pub fn start_again(&mut self, at: usize) {
        if self.members[at].process.is_none() {
            self.start_one(at);
        }
    }

    /// Stops the process's time, or lets it go on.
    pub fn pause(&mut self, at: usize, stopped: bool) {
        let member = &mut self.members[at];
        if let Some(process) = &member.process {
            process.signal(if stopped { Signal::STOP } else { Signal::CONT });
            member.stopped = stopped;
        }
    }

    /// What `from` sends no longer comes to `to`.
    pub fn cut(&self, from: usize, to: usize) {
        let rule = ["-w", "-A", "INPUT", "-s", &address(from), "-j", "DROP"];
        self.members[to].namespace.call("iptables", &rule);
    }

    /// What clients send no longer comes to a server.
    pub fn cut_clients(&self, to: usize) {
        let rule = ["-w", "-A", "INPUT", "-s", HUB, "-j", "DROP"];
        self.members[to].namespace.call("iptables", &rule);
    }

    /// Everything comes to everybody again.
    pub fn heal(&self) {
        for member in &self.members {
            member.namespace.call("iptables", &["-w", "-F", "INPUT"]);
        }
    }

    /// Cuts the power of a server: what was not synced is lost, or partly there.
    #[track_caller]
    pub fn lose_power(&mut self, at: usize, seed: u64) {
        self.cut_power(&[at], seed);
    }

    /// Cuts the power of several at once.
    #[track_caller]
    pub fn cut_power(&mut self, all: &[usize], seed: u64) {
        assert!(self.preload.is_some(), "this takes the preloaded library");
        for at in all {
            if self.members[*at].process.is_some() {
                tell(&self.members[*at].control, &format!("lose {}", seed ^ *at as u64));
            }
        }
        for at in all {
            if let Some(mut process) = self.members[*at].process.take() {
                process.wait(SHORT);
            }
        }
    }

    /// Every sync of a server takes so long from now on.
    pub fn slow_disk(&mut self, at: usize, delay: Duration) {
        let member = &mut self.members[at];
        member.delay = delay;
        if member.process.is_some() {
            tell(&member.control, &format!("delay {}", delay.as_micros()));
        }
    }

    /// A server's time of day is so many seconds ahead from now on.
    pub fn shift_clock(&mut self, at: usize, seconds: i64) {
        let member = &mut self.members[at];
        member.clock = seconds;
        if member.process.is_some() {
            tell(&member.control, &format!("clock {seconds}"));
        }
    }

    /// A server's disk is full from now on, or has room again.
    pub fn fill_disk(&self, at: usize, full: bool) {
        let member = &self.members[at];
        let disk = member.disk.as_ref().expect("a small disk");
        if full {
            let stat = rustix::fs::statvfs(member.data.parent().unwrap()).unwrap();
            let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
            disk.resize(&(used + FULL).to_string());
        } else {
            disk.resize(self.setup.disk.expect("a size"));
        }
    }

    /// Whether a server's process has ended by itself.
    pub fn has_ended(&mut self, at: usize) -> bool {
        self.members[at].process.as_mut().is_some_and(|process| !process.runs())
    }

    /// All that a server has printed.
    pub fn log(&self, at: usize) -> String {
        std::fs::read_to_string(&self.members[at].log).unwrap_or_default()
    }

    /// Undoes whatever is undone by waiting for it: everybody runs, hears everybody and has room;
    /// waits until all are there.
    #[track_caller]
    pub fn calm(&mut self) {
        self.heal();
        for at in 0..self.count() {
            if self.setup.disk.is_some() {
                self.fill_disk(at, false);
            }
            if self.has_ended(at) {
                self.kill(at);
            }
            self.pause(at, false);
            if self.preload.is_some() {
                self.slow_disk(at, Duration::ZERO);
                self.shift_clock(at, 0);
            }
            self.start_again(at);
        }
        for at in 0..self.count() {
            self.wait_ready(at);
        }
        self.wait_for_voters();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let failed = std::thread::panicking();
        let processes = self.members.iter_mut().filter_map(|member| member.process.take());
        for mut process in processes.chain(self.agents.drain(..)) {
            process.kill();
            if failed {
                process.show_log();
            }
        }
        for member in &mut self.members {
            member.disk = None;
        }
        let Some(directory) = self.directory.take() else { return };
        // Work outlives its agent by design; here it must not.
        kill_processes_under(directory.path());
        if failed {
            eprintln!("files are kept in {}", directory.keep().display());
        }
    }
}
