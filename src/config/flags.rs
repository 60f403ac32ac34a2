//! The settings themselves, as flags with their environment variables.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::zk_flags::ZkFlags;
use crate::agent;
use crate::consensus;
use crate::model::name::{NodeName, ServerName};
use crate::model::resources::{Bytes, Resources};
use crate::model::time::Millis;
use crate::server;
use crate::zookeeper;

/// Settings that don't fit together or are missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// TLS is not there yet, and nobody said that this is fine.
    #[error(
        "refusing to start without --insecure: connections are not encrypted and anyone who \
         reaches the ports is obeyed. Keep them on a trusted network and say --insecure (or \
         ORCH_INSECURE=true), or use `orch dev`, which listens on loopback alone"
    )]
    Insecure,
    /// An address that others can't use.
    #[error(
        "--{advertise} is needed: --{listen} is {addr}, which tells others no address to connect to"
    )]
    Advertise {
        /// The flag that is missing.
        advertise: &'static str,
        /// The flag it would be taken from.
        listen: &'static str,
        /// What that says.
        addr: SocketAddr,
    },
    /// Encrypted connections without what they need.
    #[error("--zk-tls-addr needs --zk-tls-cert and --zk-tls-key, files in PEM")]
    ZkTls,
    /// The host's name makes no name for a node or server.
    #[error("--name is needed: the host's name {0:?} is no valid name")]
    Name(String),
    /// `orch dev` beyond loopback.
    #[error(
        "orch dev listens on loopback alone, and --{flag} is {addr}; use `orch server --agent` for \
         anything else"
    )]
    Loopback {
        /// The flag.
        flag: &'static str,
        /// What it says.
        addr: SocketAddr,
    },
}

/// `orch server`.
#[derive(Debug, Clone, Args)]
pub struct ServerFlags {
    /// Settings file (TOML); flags and the environment win over it
    #[arg(long, env = "ORCH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this server, once in a cluster [default: the host's name]
    #[arg(long, env = "ORCH_NAME", value_name = "NAME")]
    pub name: Option<ServerName>,
    /// Directory for the log and snapshots; empty: a new server
    #[arg(long, env = "ORCH_DATA_DIR", value_name = "DIR", default_value = "/var/lib/orch/server")]
    pub data_dir: PathBuf,
    /// Where REST, WebSocket and metrics listen
    #[arg(long, env = "ORCH_API_ADDR", value_name = "IP:PORT", default_value = "0.0.0.0:7400")]
    pub api_addr: SocketAddr,
    /// Where servers and agents connect (gRPC)
    #[arg(long, env = "ORCH_RPC_ADDR", value_name = "IP:PORT", default_value = "0.0.0.0:7401")]
    pub rpc_addr: SocketAddr,
    /// Address under which others reach --api-addr [default: --api-addr, or the host's name]
    #[arg(long, env = "ORCH_ADVERTISE_API", value_name = "HOST:PORT")]
    pub advertise_api: Option<String>,
    /// Address under which others reach --rpc-addr [default: --rpc-addr, or the host's name]
    #[arg(long, env = "ORCH_ADVERTISE_RPC", value_name = "HOST:PORT")]
    pub advertise_rpc: Option<String>,
    /// gRPC address of any server of the cluster to join; without it an empty directory starts a
    /// cluster of one
    #[arg(long, env = "ORCH_JOIN", value_name = "HOST:PORT", value_delimiter = ',')]
    pub join: Vec<String>,
    /// A node whose agent is not heard for this long is lost and its work is replaced
    #[arg(long, env = "ORCH_NODE_TIMEOUT", value_name = "TIME", default_value = "10s")]
    pub node_timeout: Millis,
    /// Move work towards better packing or spread this often, a few copies each time; 0s: only
    /// when asked to with orch rebalance
    #[arg(long, env = "ORCH_REBALANCE_EVERY", value_name = "TIME", default_value = "0s")]
    pub rebalance_every: Millis,
    /// Start without TLS: anyone who reaches the ports is obeyed
    #[arg(long, env = "ORCH_INSECURE", num_args = 0..=1, default_missing_value = "true",
          default_value = "false", require_equals = true, value_name = "BOOL")]
    pub insecure: bool,
    /// Run an agent in the same process
    #[arg(long, env = "ORCH_AGENT", num_args = 0..=1, default_missing_value = "true",
          default_value = "false", require_equals = true, value_name = "BOOL")]
    pub agent: bool,
    /// What ZooKeeper's clients find.
    #[command(flatten)]
    pub zk: ZkFlags,
    /// The agent's settings; they count with --agent.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// `orch agent`.
#[derive(Debug, Clone, Args)]
pub struct AgentFlags {
    /// Settings file (TOML); flags and the environment win over it
    #[arg(long, env = "ORCH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Name of this node, once in a cluster [default: the host's name]
    #[arg(long, env = "ORCH_NAME", value_name = "NAME")]
    pub name: Option<NodeName>,
    /// Directory for the agent's identity and the files of processes
    #[arg(long, env = "ORCH_DATA_DIR", value_name = "DIR", default_value = "/var/lib/orch/agent")]
    pub data_dir: PathBuf,
    /// gRPC address of a server; several, with commas or repeated
    #[arg(
        long,
        env = "ORCH_JOIN",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        required = true
    )]
    pub join: Vec<String>,
    /// Start without TLS
    #[arg(long, env = "ORCH_INSECURE", num_args = 0..=1, default_missing_value = "true",
          default_value = "false", require_equals = true, value_name = "BOOL")]
    pub insecure: bool,
    /// What the node offers.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// `orch dev`.
#[derive(Debug, Clone, Args)]
pub struct DevFlags {
    /// Settings file (TOML); flags and the environment win over it
    #[arg(long, env = "ORCH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keep data (and leave work running at the end); without it both go at the end
    #[arg(long, env = "ORCH_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where REST, WebSocket and metrics listen; loopback alone
    #[arg(long, env = "ORCH_API_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:7400")]
    pub api_addr: SocketAddr,
    /// Where servers and agents connect (gRPC); loopback alone
    #[arg(long, env = "ORCH_RPC_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:7401")]
    pub rpc_addr: SocketAddr,
    /// What ZooKeeper's clients find.
    #[command(flatten)]
    pub zk: ZkFlags,
    /// What the node offers.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// What a node offers: of `orch agent`, `orch server --agent` and `orch dev`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What the node offers")]
pub struct NodeFlags {
    /// What runs work: containers, processes of the host, or whatever is there
    #[arg(long, env = "ORCH_RUNTIME", value_name = "auto|docker|process", default_value = "auto")]
    pub runtime: agent::RuntimeChoice,
    /// The node's class
    #[arg(long, env = "ORCH_CLASS", value_name = "CLASS", default_value = "")]
    pub class: String,
    /// An attribute of the node; repeat for more
    #[arg(long, env = "ORCH_ATTR", value_name = "KEY=VALUE", value_delimiter = ',',
          value_parser = key_value)]
    pub attr: Vec<(String, String)>,
    /// Address under which published ports are reached [default: the host's name; loopback in dev]
    #[arg(long, env = "ORCH_ADDRESS", value_name = "HOST")]
    pub address: Option<String>,
    /// Address on which ports are published [default: 0.0.0.0; loopback in dev]
    #[arg(long, env = "ORCH_BIND_ADDRESS", value_name = "IP")]
    pub bind_address: Option<IpAddr>,
    /// Directory under which jobs may mount host paths; repeat for more
    #[arg(long, env = "ORCH_VOLUME_ROOT", value_name = "DIR", value_delimiter = ',')]
    pub volume_root: Vec<PathBuf>,
    /// First and last host port that is given to jobs
    #[arg(long, env = "ORCH_PORT_RANGE", value_name = "FIRST-LAST", default_value = "20000-31999",
          value_parser = port_range)]
    pub port_range: (u16, u16),
    /// Cores to offer [default: all]
    #[arg(long, env = "ORCH_CPU", value_name = "CORES", value_parser = cores)]
    pub cpu: Option<u64>,
    /// Memory to offer, as 8Gi [default: all]
    #[arg(long, env = "ORCH_MEMORY", value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Disk to offer, as 100Gi [default: all that is free]
    #[arg(long, env = "ORCH_DISK", value_name = "SIZE")]
    pub disk: Option<Bytes>,
    /// GPUs to offer [default: all that are found]
    #[arg(long, env = "ORCH_GPUS", value_name = "N")]
    pub gpus: Option<u32>,
    /// Memory to keep back for the host itself
    #[arg(long, env = "ORCH_RESERVE_MEMORY", value_name = "SIZE", default_value = "0")]
    pub reserve_memory: Bytes,
    /// Cores to keep back for the host itself
    #[arg(long, env = "ORCH_RESERVE_CPU", value_name = "CORES", default_value = "0",
          value_parser = cores)]
    pub reserve_cpu: u64,
    /// The engine's socket [default: /var/run/docker.sock, or DOCKER_HOST]
    #[arg(long, env = "ORCH_DOCKER_SOCKET", value_name = "PATH")]
    pub docker_socket: Option<String>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE, as zone=a".to_owned()),
    }
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let ends = text
        .split_once('-')
        .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
    match ends {
        Some((first, last)) if 0 < first && first <= last => Ok((first, last)),
        _ => Err("write FIRST-LAST, as 20000-31999".to_owned()),
    }
}

/// Cores as people write them, in thousandths.
fn cores(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(cores) if (0.0..1_000_000.0).contains(&cores) => Ok((cores * 1000.0).round() as u64),
        _ => Err("write a number of cores, as 4 or 1.5".to_owned()),
    }
}

/// The host's name up to its first dot.
pub(crate) fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().to_lowercase();
    name.split('.').next().unwrap_or_default().to_owned()
}

fn own_name<N: std::str::FromStr>(given: Option<N>) -> Result<N, SettingsError> {
    match given {
        Some(name) => Ok(name),
        None => host_name().parse().map_err(|_| SettingsError::Name(host_name())),
    }
}

fn advertised(
    given: Option<&String>,
    listen: SocketAddr,
    flags: (&'static str, &'static str),
) -> Result<String, SettingsError> {
    if let Some(given) = given {
        return Ok(given.clone());
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen.to_string());
    }
    match host_name().as_str() {
        "" | "localhost" => {
            let (advertise, listen_flag) = flags;
            Err(SettingsError::Advertise { advertise, listen: listen_flag, addr: listen })
        }
        host => Ok(format!("{host}:{}", listen.port())),
    }
}

impl NodeFlags {
    fn config(
        &self,
        name: NodeName,
        data_dir: PathBuf,
        servers: Vec<String>,
        loopback: bool,
    ) -> agent::Config {
        let (ip, host) = match loopback {
            true => (IpAddr::from([127, 0, 0, 1]), "127.0.0.1".to_owned()),
            false => (IpAddr::from([0, 0, 0, 0]), host_name()),
        };
        let bind_address = self.bind_address.unwrap_or(ip);
        let address = match &self.address {
            Some(address) => address.clone(),
            None if bind_address.is_unspecified() => host,
            None => bind_address.to_string(),
        };
        agent::Config {
            name,
            data_dir,
            servers,
            runtime: self.runtime,
            class: self.class.clone(),
            attributes: self.attr.iter().cloned().collect::<BTreeMap<_, _>>(),
            address,
            bind_address,
            volume_roots: self.volume_root.clone(),
            port_range: self.port_range,
            resources: agent::ResourceOverrides {
                cpu_milli: self.cpu,
                memory: self.memory.map(|bytes| bytes.0),
                disk: self.disk.map(|bytes| bytes.0),
                gpu: self.gpus,
            },
            reserved: Resources {
                cpu_milli: self.reserve_cpu,
                memory: self.reserve_memory.0,
                ..Resources::default()
            },
            docker_socket: self.docker_socket.clone(),
            program: None,
            stop_work_on_exit: false,
        }
    }
}

/// All that one process runs.
#[derive(Debug, Clone)]
pub struct Process {
    /// A server.
    pub server: Option<ServerPart>,
    /// An agent.
    pub agent: Option<agent::Config>,
}

/// What a server is made of.
#[derive(Debug, Clone)]
pub struct ServerPart {
    /// Where REST listens.
    pub api_addr: SocketAddr,
    /// Where gRPC listens.
    pub rpc_addr: SocketAddr,
    /// The log, and who else keeps it.
    pub consensus: consensus::Config,
    /// Agents and planners.
    pub server: server::Config,
    /// The endpoint for ZooKeeper's clients, if there is to be one.
    pub zookeeper: Option<zookeeper::config::Config>,
}

impl ServerFlags {
    /// What to start.
    ///
    /// # Errors
    /// If settings are missing or don't fit together.
    pub fn process(&self) -> Result<Process, SettingsError> {
        if !self.insecure {
            return Err(SettingsError::Insecure);
        }
        let name: ServerName = own_name(self.name.clone())?;
        let flags = ("advertise-rpc", "rpc-addr");
        let rpc = advertised(self.advertise_rpc.as_ref(), self.rpc_addr, flags)?;
        let flags = ("advertise-api", "api-addr");
        let api = advertised(self.advertise_api.as_ref(), self.api_addr, flags)?;
        let agent = match self.agent {
            false => None,
            true => {
                let node = own_name(name.as_str().parse().ok())?;
                let servers = vec![local(self.rpc_addr)];
                Some(self.node.config(node, self.data_dir.join("agent"), servers, false))
            }
        };
        let consensus = consensus::Config {
            data_dir: self.data_dir.clone(),
            name,
            rpc_addr: rpc,
            api_addr: api,
            join: self.join.clone(),
            tuning: Default::default(),
        };
        let server = server::Config {
            node_timeout: self.node_timeout,
            heartbeat: heartbeat(self.node_timeout),
            rebalance_every: self.rebalance_every,
            ..Default::default()
        };
        let (api_addr, rpc_addr) = (self.api_addr, self.rpc_addr);
        let zookeeper = self.zk.config()?;
        let server = ServerPart { api_addr, rpc_addr, consensus, server, zookeeper };
        Ok(Process { server: Some(server), agent })
    }
}

/// Several heartbeats fall into the time after which a silent node is lost.
fn heartbeat(node_timeout: Millis) -> Millis {
    let usual = server::Config::default().heartbeat;
    Millis((node_timeout.0 / 5).clamp(HEARTBEAT_MIN.0, usual.0))
}

/// The shortest time between two heartbeats.
const HEARTBEAT_MIN: Millis = Millis(100);

/// An address of this machine's own at which `listen` is reached from this process.
fn local(listen: SocketAddr) -> String {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => format!("127.0.0.1:{}", listen.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => format!("[::1]:{}", listen.port()),
        _ => listen.to_string(),
    }
}

impl AgentFlags {
    /// What to start.
    ///
    /// # Errors
    /// If settings are missing or don't fit together.
    pub fn process(&self) -> Result<Process, SettingsError> {
        if !self.insecure {
            return Err(SettingsError::Insecure);
        }
        let name = own_name(self.name.clone())?;
        let agent = self.node.config(name, self.data_dir.clone(), self.join.clone(), false);
        Ok(Process { server: None, agent: Some(agent) })
    }
}

impl DevFlags {
    /// What to start, with data below `data_dir`.
    ///
    /// # Errors
    /// If an address is not a loopback one.
    pub fn process(&self, data_dir: PathBuf) -> Result<Process, SettingsError> {
        let addrs = [
            ("api-addr", Some(self.api_addr)),
            ("rpc-addr", Some(self.rpc_addr)),
            ("zk-addr", self.zk.zk_addr),
            ("zk-tls-addr", self.zk.zk_tls_addr),
        ];
        for (flag, addr) in addrs {
            let Some(addr) = addr else { continue };
            if !addr.ip().is_loopback() {
                return Err(SettingsError::Loopback { flag, addr });
            }
        }
        let name: ServerName = own_name("dev".parse().ok())?;
        let node: NodeName = own_name("dev".parse().ok())?;
        let (api, rpc) = (self.api_addr.to_string(), self.rpc_addr.to_string());
        let consensus = consensus::Config {
            data_dir: data_dir.join("server"),
            name,
            rpc_addr: rpc.clone(),
            api_addr: api,
            join: Vec::new(),
            tuning: Default::default(),
        };
        let mut agent = self.node.config(node, data_dir.join("agent"), vec![rpc], true);
        agent.stop_work_on_exit = self.data_dir.is_none();
        let (api_addr, rpc_addr) = (self.api_addr, self.rpc_addr);
        let (server, zookeeper) = (Default::default(), self.zk.config()?);
        let server = ServerPart { api_addr, rpc_addr, consensus, server, zookeeper };
        Ok(Process { server: Some(server), agent: Some(agent) })
    }
}
