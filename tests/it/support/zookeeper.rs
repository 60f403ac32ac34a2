//! Real ZooKeeper servers, from Debian's package: a standalone one or an ensemble, each server on a
//! loopback address of its own, so that the standard ports are free. `scripts/test` installs it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::{LONG, LoopbackAddress, Process, SHORT, wait_until};

/// Where clients go.
pub const CLIENT_PORT: u16 = 2181;
/// Where learners go.
pub const QUORUM_PORT: u16 = 2888;
const ELECTION_PORT: u16 = 3888;
const JARS: [&str; 2] = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];
const TICK_MS: &str = "500";

/// What servers are started with.
#[derive(Debug, Clone)]
pub struct Options {
    properties: BTreeMap<String, String>,
    java: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Default for Options {
    /// A tick of half a second, all four-letter words, small log files, TTL nodes on, and no fsync:
    /// a killed process loses nothing by that.
    fn default() -> Self {
        let properties = [
            ("tickTime", TICK_MS),
            ("initLimit", "20"),
            ("syncLimit", "10"),
            ("4lw.commands.whitelist", "*"),
            ("admin.enableServer", "false"),
            ("extendedTypesEnabled", "true"),
            ("preAllocSize", "64"),
            ("forceSync", "no"),
            ("maxClientCnxns", "0"),
        ];
        Self {
            properties: properties.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            java: ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
                .map(str::to_owned)
                .into(),
            environment: Vec::new(),
        }
    }
}

impl Options {
    /// A line of `zoo.cfg`; unknown ones become system properties with `zookeeper.` before them.
    pub fn property(mut self, key: &str, value: &str) -> Self {
        self.properties.insert(key.to_owned(), value.to_owned());
        self
    }

    /// An argument of `java`, behind those that are there.
    pub fn java(mut self, argument: &str) -> Self {
        self.java.push(argument.to_owned());
        self
    }

    /// A variable of the environment.
    pub fn environment(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// One server: how it is started, and its process if it runs.
#[derive(Debug)]
struct Server {
    address: LoopbackAddress,
    /// Its `dataDir`; files are in `version-2` below it.
    data_dir: PathBuf,
    config: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

/// Servers, numbered from 0, with their data and logs. Everything ends when it is dropped; if the
/// test has failed, the end of each log is shown and the files stay.
#[derive(Debug)]
pub struct ZooKeeper {
    directory: Option<tempfile::TempDir>,
    options: Options,
    servers: Vec<Server>,
}

impl ZooKeeper {
    /// One server alone, which answers.
    pub fn standalone(options: Options) -> Self {
        let mut all = Self::prepared(1, options);
        all.start_all();
        all
    }

    /// That many servers, one of which leads.
    pub fn ensemble(servers: usize, options: Options) -> Self {
        let mut all = Self::prepared(servers, options);
        all.start_all();
        all
    }

    /// Servers that are not started yet, so that their data directories can be filled.
    pub fn prepared(servers: usize, options: Options) -> Self {
        for jar in JARS {
            assert!(
                Path::new(jar).exists(),
                "{jar} is missing: install Debian's package zookeeper, or run scripts/test"
            );
        }
        let directory = tempfile::Builder::new().prefix("orch-zk-").tempdir().unwrap();
        let addresses: Vec<_> = (0..servers).map(|_| LoopbackAddress::next()).collect();
        let servers = (0..servers)
            .map(|index| Self::write_config(directory.path(), &addresses, index, &options))
            .collect();
        Self { directory: Some(directory), options, servers }
    }

    fn write_config(
        directory: &Path,
        addresses: &[LoopbackAddress],
        index: usize,
        options: &Options,
    ) -> Server {
        let home = directory.join(format!("z{}", index + 1));
        let data_dir = home.join("data");
        fs::create_dir_all(&data_dir).unwrap();
        let mut lines: Vec<String> =
            options.properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
        lines.push(format!("dataDir={}", data_dir.display()));
        lines.push(format!("clientPort={CLIENT_PORT}"));
        lines.push(format!("clientPortAddress={}", addresses[index]));
        if addresses.len() > 1 {
            fs::write(data_dir.join("myid"), (index + 1).to_string()).unwrap();
            for (number, address) in (1..).zip(addresses) {
                lines.push(format!("server.{number}={address}:{QUORUM_PORT}:{ELECTION_PORT}"));
            }
        }
        let config = home.join("zoo.cfg");
        fs::write(&config, lines.join("\n") + "\n").unwrap();
        let log = home.join("log");
        Server { address: addresses[index], data_dir, config, log, process: None }
    }

    /// How many servers there are, running or not.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// Starts a server that does not run, without waiting for it.
    pub fn start(&mut self, index: usize) {
        let options = &self.options;
        let server = &mut self.servers[index];
        let mut command = Command::new("java");
        command
            .args(&options.java)
            .args(["-cp", &JARS.join(":")])
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(&server.config)
            .envs(options.environment.iter().map(|(key, value)| (key, value)));
        let name = format!("zookeeper {}", index + 1);
        server.process = Some(Process::start(&name, &mut command, &server.log));
    }

    /// Starts all that don't run, and waits until each serves.
    pub fn start_all(&mut self) {
        for index in 0..self.servers.len() {
            if !self.runs(index) {
                self.start(index);
            }
        }
        for index in 0..self.servers.len() {
            self.wait_until_serves(index);
        }
    }

    /// Whether its process runs.
    pub fn runs(&mut self, index: usize) -> bool {
        self.servers[index].process.as_mut().is_some_and(Process::runs)
    }

    /// Waits until a server answers clients: alone, leading or following.
    #[track_caller]
    pub fn wait_until_serves(&mut self, index: usize) {
        let what = format!("ZooKeeper {} to serve", index + 1);
        wait_until(&what, LONG, || {
            if !self.runs(index) {
                return Err("it has ended".to_owned());
            }
            self.mode(index).map(drop).ok_or_else(|| "it does not serve yet".to_owned())
        });
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        if let Some(mut process) = self.servers[index].process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self, index: usize) {
        if let Some(mut process) = self.servers[index].process.take() {
            process.signal(Signal::TERM);
            process.wait(SHORT);
        }
    }

    /// Where clients reach it.
    pub fn client_address(&self, index: usize) -> SocketAddr {
        self.servers[index].address.port(CLIENT_PORT)
    }

    /// Where learners reach it, if it leads.
    pub fn quorum_address(&self, index: usize) -> SocketAddr {
        self.servers[index].address.port(QUORUM_PORT)
    }

    /// `host:port,…` of all, as clients take it.
    pub fn connect_string(&self) -> String {
        let all: Vec<_> =
            (0..self.servers.len()).map(|index| self.client_address(index).to_string()).collect();
        all.join(",")
    }

    /// Its `dataDir`; the files are in `version-2` below it.
    pub fn data_dir(&self, index: usize) -> &Path {
        &self.servers[index].data_dir
    }

    /// What it has printed.
    pub fn log(&self, index: usize) -> String {
        fs::read_to_string(&self.servers[index].log).unwrap_or_default()
    }

    /// The answer to a four-letter word.
    pub fn four_letter(&self, index: usize, word: &str) -> std::io::Result<String> {
        let wait = Duration::from_secs(5);
        let mut stream = TcpStream::connect_timeout(&self.client_address(index), wait)?;
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(word.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// A line `name value` of `mntr`.
    pub fn mntr(&self, index: usize, name: &str) -> Option<String> {
        let answer = self.four_letter(index, "mntr").ok()?;
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))?;
        Some(line.trim().to_owned())
    }

    /// `standalone`, `leader`, `follower`, if it serves.
    pub fn mode(&self, index: usize) -> Option<String> {
        self.srvr(index, "Mode: ")
    }

    /// The last transaction that it has applied.
    pub fn zxid(&self, index: usize) -> Option<i64> {
        i64::from_str_radix(self.srvr(index, "Zxid: 0x")?.as_str(), 16).ok()
    }

    fn srvr(&self, index: usize, key: &str) -> Option<String> {
        let answer = self.four_letter(index, "srvr").ok()?;
        answer.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned)
    }

    /// Waits until one leads, and says which.
    #[track_caller]
    pub fn leader(&self) -> usize {
        wait_until("a leader of the ensemble", LONG, || {
            (0..self.servers.len())
                .find(|index| self.mode(*index).as_deref() == Some("leader"))
                .ok_or_else(|| "none leads".to_owned())
        })
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        for server in &mut self.servers {
            if let Some(process) = &mut server.process {
                process.kill();
                if std::thread::panicking() {
                    process.show_log();
                }
            }
        }
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("files stay in {}", directory.keep().display());
        }
    }
}
