//! What should run: a job, its tasks, and the rules about where and how.
//!
//! These are the checked, complete forms. What a user writes is read by `job_file`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::constraint::{Constraint, Subject};
pub use super::health::{HealthCheck, Probe};
use super::name::{JobId, JobName, PortName, ProjectName, TaskName};
pub use super::policy::{
    DisconnectPolicy, Promotion, ReschedulePolicy, RestartPolicy, UpdateOrder, UpdatePolicy,
    UpdateStrategy,
};
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
    /// What happens on the node when a task ends.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// What happens when the node has given up on it.
    #[serde(default)]
    pub reschedule: ReschedulePolicy,
    /// How a new version replaces the old one.
    #[serde(default)]
    pub update: UpdatePolicy,
    /// What happens while its node and the servers don't hear each other.
    #[serde(default)]
    pub disconnect: DisconnectPolicy,
    /// From leaving the endpoints to the stop signal, so that callers have time to notice.
    #[serde(default = "JobSpec::shutdown_delay_default")]
    pub shutdown_delay: Millis,
    /// Who else decides how many replicas there are, as an autoscaler: a submission leaves the
    /// number alone then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas_owner: Option<String>,
}

impl JobSpec {
    /// A job with everything but its name, shape and tasks left at the defaults.
    pub fn new(name: JobName, kind: JobKind, tasks: Vec<TaskSpec>) -> Self {
        Self {
            project: ProjectName::default(),
            name,
            kind,
            priority: Self::priority_default(),
            labels: BTreeMap::new(),
            tasks,
            placement: Placement::default(),
            restart: RestartPolicy::default(),
            reschedule: ReschedulePolicy::default(),
            update: UpdatePolicy::default(),
            disconnect: DisconnectPolicy::default(),
            shutdown_delay: Self::shutdown_delay_default(),
            replicas_owner: None,
        }
    }

    /// Two seconds.
    pub const fn shutdown_delay_default() -> Millis {
        Millis::from_secs(2)
    }

    /// Whether its data is in named volumes, which stay on their node.
    pub fn has_local_data(&self) -> bool {
        let mut mounts = self.tasks.iter().flat_map(|task| &task.volumes);
        mounts.any(|mount| matches!(mount.source, VolumeSource::Named(_)))
    }

    /// Whether a replica's successor starts before the replica stops. Unless the user says: yes,
    /// but for what can't be there twice, a fixed host port or data on the node.
    pub fn order(&self) -> UpdateOrder {
        let unique = self.has_local_data()
            || self.ports().any(|port| port.host.is_some())
            || self.kind == JobKind::System;
        match self.update.order {
            Some(order) => order,
            None if unique => UpdateOrder::StopFirst,
            None => UpdateOrder::StartFirst,
        }
    }

    /// The priority of a job that names none.
    pub const fn priority_default() -> u8 {
        50
    }

    /// How long a replica must be ready before it counts, unless the job says it. Without a check
    /// a container that exits at once is as ready as any other until it has: one second tells the
    /// two apart, before an old replica makes room for it.
    pub fn min_healthy_default(&self) -> Millis {
        let checked = |task: &TaskSpec| task.healthcheck.is_some() || task.readiness.is_some();
        let runs_on = !matches!(self.kind, JobKind::Batch { .. });
        if runs_on && !self.tasks.iter().any(checked) { Millis::from_secs(1) } else { Millis(0) }
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
    /// Runs to completion.
    Batch {
        /// Ends a run that takes longer; counted from the first start of its tasks.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout: Option<Millis>,
        /// Runs that have to complete.
        #[serde(default = "JobKind::one")]
        completions: u32,
        /// The most of them at the same time.
        #[serde(default = "JobKind::one")]
        parallelism: u32,
        /// Times that a failed run is placed anew before the job has failed.
        #[serde(default)]
        retries: u32,
    },
    /// One copy on every node that fits.
    System,
}

impl JobKind {
    const fn one() -> u32 {
        1
    }

    /// A batch job that runs once.
    pub const fn once(timeout: Option<Millis>) -> Self {
        Self::Batch { timeout, completions: 1, parallelism: 1, retries: 0 }
    }

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
    /// Whether it is alive: it is restarted when this fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthCheck>,
    /// Whether it can take traffic: it leaves the endpoints while this fails. Without, it is ready
    /// when it is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<HealthCheck>,
    /// Free-form marks, set on the container too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Whose variables it finds in its environment as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy_environment: Option<LegacyEnvironment>,
}

impl TaskSpec {
    /// A task with everything but its name and runtime left at the defaults.
    pub fn new(name: TaskName, runtime: TaskRuntime) -> Self {
        Self {
            name,
            runtime,
            entrypoint: None,
            command: Vec::new(),
            environment: BTreeMap::new(),
            ports: Vec::new(),
            resources: ResourceRequest::default(),
            volumes: Vec::new(),
            user: None,
            working_dir: None,
            stop_signal: None,
            stop_grace: Self::stop_grace_default(),
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            read_only: false,
            healthcheck: None,
            readiness: None,
            labels: BTreeMap::new(),
            legacy_environment: None,
        }
    }

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

/// A scheduler whose tasks were told by variables of its own where they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LegacyEnvironment {
    /// `PORT0`, `PORTS`, `PORT_<NAME>` as ports of the host, `MESOS_TASK_ID`.
    Marathon,
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
