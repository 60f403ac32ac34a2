//! What should run: a job, its tasks, and the rules about where and how.
//!
//! These are the checked, complete forms. What a user writes is read by `job_file`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::constraint::{Constraint, Subject};
use super::name::{JobId, JobName, PortName, ProjectName, TaskName};
use super::resources::{ResourceRequest, Resources};
use super::time::Millis;

/// A job as it was submitted: one version of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The owning project.
    #[serde(default)]
    pub project: ProjectName,
    /// The job's name in it.
    pub name: JobName,
    /// Service, batch or system, and how many.
    pub kind: JobKind,
    /// 1 (lowest) to 100; what is placed first when room is short.
    #[serde(default = "JobSpec::priority_default")]
    pub priority: u8,
    /// Free-form marks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// At least one; they run together on one node.
    pub tasks: Vec<TaskSpec>,
    /// Which nodes.
    #[serde(default)]
    pub placement: Placement,
    /// What happens when a task ends.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How a new version replaces the old one.
    #[serde(default)]
    pub update: UpdatePolicy,
}

impl JobSpec {
    /// The priority of a job that names none.
    pub const fn priority_default() -> u8 {
        50
    }

    /// The cluster-wide id.
    pub fn id(&self) -> JobId {
        JobId { project: self.project.clone(), name: self.name.clone() }
    }

    /// What one allocation reserves: the sum over the tasks.
    pub fn reserved(&self) -> Resources {
        self.tasks
            .iter()
            .fold(Resources::default(), |sum, task| sum.plus(task.resources.reserved()))
    }

    /// The ports of all tasks, in the order written.
    pub fn ports(&self) -> impl Iterator<Item = &PortSpec> {
        self.tasks.iter().flat_map(|task| &task.ports)
    }

    /// Whether what runs would be the same: all but how many, labels of the job, priority,
    /// and the rules that only matter for replacements.
    pub fn runs_the_same_as(&self, other: &JobSpec) -> bool {
        self.tasks == other.tasks
            && self.restart == other.restart
            && self.placement.require == other.placement.require
            && std::mem::discriminant(&self.kind) == std::mem::discriminant(&other.kind)
    }
}

/// The shape of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Keeps that many replicas up.
    Service {
        /// Wanted copies.
        replicas: u32,
    },
    /// Runs once to completion.
    Batch {
        /// Ends a run that takes longer; counted from the first start of its tasks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<Millis>,
    },
    /// One copy on every node that fits.
    System,
}

impl JobKind {
    /// The word users know it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Service { .. } => "service",
            Self::Batch { .. } => "batch",
            Self::System => "system",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One container or process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name in the job; the job's own name if it is the only one.
    pub name: TaskName,
    /// What runs it.
    pub runtime: TaskRuntime,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The command's words: after the entry point in a container, the program itself in a process.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Ports, each under a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortSpec>,
    /// What it needs and may use.
    #[serde(default)]
    pub resources: ResourceRequest,
    /// What is mounted into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeMount>,
    /// User, as `name`, `uid` or `uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Directory it starts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Signal that asks it to end, as `SIGTERM`; the runtime's own default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Time from that signal to the kill.
    #[serde(default = "TaskSpec::stop_grace_default")]
    pub stop_grace: Millis,
    /// Linux capabilities added to the runtime's default set, without `CAP_`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Linux capabilities taken away; `ALL` takes all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    /// The root file system can't be written.
    #[serde(default)]
    pub read_only: bool,
    /// How health is found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
    /// Free-form marks, set on the container too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl TaskSpec {
    /// Ten seconds, as Docker's.
    pub const fn stop_grace_default() -> Millis {
        Millis::from_secs(10)
    }
}

/// What runs a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskRuntime {
    /// A container of an image.
    Docker {
        /// Reference with tag or digest.
        image: String,
        /// When the image is pulled.
        #[serde(default)]
        pull: PullPolicy,
        /// Credentials for its registry; without, the node's own are used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        registry: Option<RegistryAuth>,
    },
    /// A process of the host.
    Process,
}

impl TaskRuntime {
    /// The runtime's name, as nodes list it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Docker { .. } => "docker",
            Self::Process => "process",
        }
    }
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// If the node has no such image.
    #[default]
    Missing,
    /// Before every start.
    Always,
    /// Never: the node must have it.
    Never,
}

/// A user of a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryAuth {
    /// User name.
    pub username: String,
    /// Password or token; never shown again.
    pub password: String,
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegistryAuth({}, …)", self.username)
    }
}

/// A port that a task listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// Its name, once in a job.
    pub name: PortName,
    /// Port inside the container; absent: the same number as on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<u16>,
    /// Fixed port on the host; absent: chosen from the node's range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<u16>,
    /// Transport.
    #[serde(default)]
    pub protocol: Protocol,
}

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Something mounted into a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// What is mounted.
    pub source: VolumeSource,
    /// Absolute path inside the task.
    pub target: String,
    /// Can't be written.
    #[serde(default)]
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeSource {
    /// A directory or file of the host, under one of the node's allowed roots.
    Path(String),
    /// A named volume of the node.
    Named(String),
    /// Memory.
    Tmpfs,
}

/// Which nodes a job may, should and would rather use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Placement {
    /// Each must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<Constraint>,
    /// Each draws (or with a weight below zero repels).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefer: Vec<Preference>,
    /// Replicas are spread evenly over the values of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<Subject>,
    /// The most replicas on one node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_per_node: Option<u32>,
}

/// A rule with a weight from -100 to 100.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// The rule.
    pub rule: Constraint,
    /// How much it counts.
    pub weight: i8,
}

/// What happens when a task ends that should not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    /// Restarts on the node before the allocation has failed and is placed anew.
    pub attempts: u32,
    /// Time over which they are counted.
    pub within: Millis,
    /// Wait before the second restart; the first has none. Doubles each time.
    pub delay_min: Millis,
    /// The longest wait.
    pub delay_max: Millis,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            within: Millis::from_secs(300),
            delay_min: Millis::from_secs(1),
            delay_max: Millis::from_secs(30),
        }
    }
}

/// How a new version replaces the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdatePolicy {
    /// Replicas replaced at the same time.
    pub max_parallel: u32,
    /// How long a new replica must be healthy before the next one is replaced.
    pub min_healthy: Millis,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self { max_parallel: 1, min_healthy: Millis(0) }
    }
}

/// How an agent finds out whether a task is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From the end of one check to the start of the next.
    #[serde(default = "HealthCheck::interval_default")]
    pub interval: Millis,
    /// A check that takes longer has failed.
    #[serde(default = "HealthCheck::timeout_default")]
    pub timeout: Millis,
    /// Failures in a row that make it unhealthy.
    #[serde(default = "HealthCheck::retries_default")]
    pub retries: u32,
    /// Failures this soon after the start don't count.
    #[serde(default)]
    pub start_period: Millis,
}

impl HealthCheck {
    /// Five seconds.
    pub const fn interval_default() -> Millis {
        Millis::from_secs(5)
    }

    /// Two seconds.
    pub const fn timeout_default() -> Millis {
        Millis::from_secs(2)
    }

    /// Three.
    pub const fn retries_default() -> u32 {
        3
    }
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// GET; a status from 200 to 399 is healthy.
    Http {
        /// Path with query.
        path: String,
        /// Port by name.
        port: PortName,
    },
    /// The port takes a connection.
    Tcp {
        /// Port by name.
        port: PortName,
    },
    /// A command in the task ends with 0.
    Command {
        /// Its words.
        command: Vec<String>,
    },
}
