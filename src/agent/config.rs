//! What an agent is told when it starts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use crate::model::name::NodeName;
use crate::model::resources::Resources;

/// An agent's settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name in the cluster.
    pub name: NodeName,
    /// Where it keeps its identity, its assignments and the sandboxes of processes.
    pub data_dir: PathBuf,
    /// gRPC addresses of servers, as `host:port`; those learnt later are kept in the data
    /// directory and tried as well.
    pub servers: Vec<String>,
    /// What it may run work with.
    pub runtime: RuntimeChoice,
    /// The operator's class; may be empty.
    pub class: String,
    /// The operator's attributes; they win over detected ones of the same name.
    pub attributes: BTreeMap<String, String>,
    /// Host name or address under which published ports are reached from outside.
    pub address: String,
    /// Where ports are published.
    pub bind_address: IpAddr,
    /// Directories under which host paths may be mounted.
    pub volume_roots: Vec<PathBuf>,
    /// First and last port that is given out.
    pub port_range: (u16, u16),
    /// Amounts that are offered instead of the detected ones.
    pub resources: ResourceOverrides,
    /// Kept back from what is offered, for the host itself.
    pub reserved: Resources,
    /// The engine's socket; the usual place if absent.
    pub docker_socket: Option<String>,
    /// The orch binary, which looks after processes; this one if absent.
    pub program: Option<PathBuf>,
    /// Ends and removes everything it started when it stops, and says goodbye: for throw-away
    /// clusters. Otherwise work goes on without the agent.
    pub stop_work_on_exit: bool,
}

impl Config {
    /// Settings that suit one machine by itself.
    pub fn new(name: NodeName, data_dir: PathBuf, servers: Vec<String>) -> Self {
        Self {
            name,
            data_dir,
            servers,
            runtime: RuntimeChoice::Auto,
            class: String::new(),
            attributes: BTreeMap::new(),
            address: "127.0.0.1".to_owned(),
            bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            volume_roots: Vec::new(),
            port_range: (20_000, 31_999),
            resources: ResourceOverrides::default(),
            reserved: Resources::default(),
            docker_socket: None,
            program: None,
            stop_work_on_exit: false,
        }
    }
}

/// What an agent may run work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuntimeChoice {
    /// Processes always, containers whenever the engine answers.
    #[default]
    Auto,
    /// Containers alone; without an engine the agent does not start.
    Docker,
    /// Processes alone.
    Process,
}

impl std::str::FromStr for RuntimeChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "docker" => Ok(Self::Docker),
            "process" => Ok(Self::Process),
            _ => Err(format!("{text:?} is no runtime; write auto, docker or process")),
        }
    }
}

/// Amounts that are offered instead of the detected ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResourceOverrides {
    /// Thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes.
    pub disk: Option<u64>,
    /// Whole devices.
    pub gpu: Option<u32>,
}

/// Why an agent can't run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another process has the data directory.
    #[error(
        "the agent's data directory {0} is in use by another process; stop that agent, or give \
         this one another --data-dir"
    )]
    InUse(PathBuf),
    /// The data directory can't be used.
    #[error("the agent's data directory: {what} {path}: {source}")]
    DataDir {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file in it makes no sense.
    #[error(
        "{path} is damaged: {why}; if this node's work may be lost, remove the data directory and \
         start again"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The engine was asked for and does not answer.
    #[error(
        "the Docker engine does not answer: {0}; start it (systemctl start docker), name its \
         socket with --docker-socket, or use --runtime process"
    )]
    NoEngine(String),
    /// A setting that can't be.
    #[error("{0}")]
    Config(String),
}
