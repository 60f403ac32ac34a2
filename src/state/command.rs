//! Every change that can be asked of the state. Variants and fields are only ever added: a log
//! written by an older release is applied by this one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::allocation::{AllocReport, StopReason};
use crate::model::deployment::DeploymentId;
use crate::model::job::JobSpec;
use crate::model::name::{AllocId, JobId, NodeName, ProjectName, ServerName, TaskName};
use crate::model::node::{NodeSpec, NodeState};
use crate::model::time::{Millis, Timestamp};
use crate::model::variable::VariablePath;
use crate::state::znodes::{ZkBatch, ZkImportStep};

/// A command with its envelope: what a log entry holds a batch of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Repeats under the same key get the first one's reply and change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// What is asked.
    pub command: Command,
}

impl From<Command> for Request {
    fn from(command: Command) -> Self {
        Self { idempotency_key: None, command }
    }
}

/// A change to the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Gives the cluster its id; the first command of its life, void when repeated.
    FoundCluster {
        /// Random.
        cluster_id: u64,
    },
    /// Creates a job or makes a new version of it.
    SubmitJob {
        /// The whole job.
        spec: Arc<JobSpec>,
        /// Only if this is its version now; 0: only if there is no such job.
        if_version: Option<u64>,
    },
    /// Stops a job.
    StopJob {
        /// Which.
        job: JobId,
        /// Forget it as well, once its allocations have ended.
        purge: bool,
    },
    /// Changes how many replicas a service has.
    ScaleJob {
        /// Which.
        job: JobId,
        /// How many.
        replicas: u32,
    },
    /// An agent has connected.
    RegisterNode {
        /// What it says of its host.
        spec: NodeSpec,
    },
    /// A node's agent is no longer heard, or has said goodbye.
    SetNodeState {
        /// Which.
        node: NodeName,
        /// The agent it is about: void if another one has registered since.
        agent_id: u64,
        /// The new state.
        state: NodeState,
        /// Why.
        reason: String,
    },
    /// Lets new work on a node, or keeps it away.
    SetEligibility {
        /// Which.
        node: NodeName,
        /// Whether it takes work.
        eligible: bool,
    },
    /// Moves work away from a node.
    DrainNode {
        /// Which.
        node: NodeName,
        /// From then on what is left is stopped at once.
        deadline: Option<Millis>,
    },
    /// Forgets a node that is not ready.
    RemoveNode {
        /// Which.
        node: NodeName,
    },
    /// Places allocations.
    Place(Box<Placements>),
    /// Asks allocations to end.
    StopAllocs {
        /// Which, and why.
        stops: Vec<(AllocId, StopReason)>,
    },
    /// What an agent says of its allocations.
    ReportAllocs {
        /// Its node.
        node: NodeName,
        /// The agent.
        agent_id: u64,
        /// What it says.
        reports: Vec<AllocReport>,
    },
    /// Forgets what has ended.
    CollectGarbage {
        /// Allocations; those that have not ended stay.
        allocs: Vec<AllocId>,
        /// Purged jobs; those that still have allocations stay.
        jobs: Vec<JobId>,
        /// Replies to idempotent requests from before then.
        replies_before: Timestamp,
    },
    /// Writes a variable.
    PutVariable {
        /// Project.
        project: ProjectName,
        /// Path.
        path: VariablePath,
        /// Value.
        #[serde(with = "serde_bytes")]
        value: Vec<u8>,
        /// Only if it was last written at this index; 0: only if there is none.
        if_index: Option<u64>,
    },
    /// Deletes a variable.
    DeleteVariable {
        /// Project.
        project: ProjectName,
        /// Path.
        path: VariablePath,
        /// Only if it was last written at this index.
        if_index: Option<u64>,
    },
    /// Brings a piece of a saved snapshot; pieces come in order, the first one starts anew.
    RestoreChunk {
        /// Place of its first byte.
        offset: u64,
        /// The bytes.
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// Puts the snapshot that was brought in the place of the state.
    RestoreCommit {
        /// Bytes in all.
        length: u64,
        /// `xxh3` of them.
        checksum: u64,
    },
    /// A server was taken out of the cluster: its id may never come back.
    RetireServer {
        /// Its id.
        id: u64,
        /// The name it had.
        name: ServerName,
    },
    /// Lets a canary's successors follow, or a second set take over.
    PromoteDeployment {
        /// Which.
        deployment: DeploymentId,
    },
    /// Holds a deployment, or lets it go on.
    PauseDeployment {
        /// Which.
        deployment: DeploymentId,
        /// Whether it is held.
        paused: bool,
    },
    /// All replicas run the version and are ready.
    CompleteDeployment {
        /// Which.
        deployment: DeploymentId,
    },
    /// A deployment did not get there, or somebody gave it up.
    FailDeployment {
        /// Which.
        deployment: DeploymentId,
        /// Why.
        reason: String,
        /// Go back to the last healthy version, if there is one.
        revert: bool,
    },
    /// Submits an earlier version again.
    RollbackJob {
        /// Which.
        job: JobId,
        /// The version; none: the last healthy one that runs something else than the current one.
        to: Option<u64>,
    },
    /// Replaces all replicas by new ones of the same version, as a deployment.
    RestartJob {
        /// Which.
        job: JobId,
    },
    /// Asks allocations to go elsewhere once their successors are ready.
    MoveAllocs {
        /// Which.
        moves: Vec<AllocMove>,
    },
    /// Takes room from allocations of lower priority.
    PreemptAllocs {
        /// Which.
        victims: Vec<AllocId>,
        /// For whom.
        by: JobId,
    },
    /// The time is over for which the allocations of a lost node kept their places.
    LoseAllocs {
        /// Which.
        allocs: Vec<AllocId>,
    },
    /// Nothing takes the place of these failed allocations any more.
    GiveUpAllocs {
        /// Which, and why.
        allocs: Vec<(AllocId, String)>,
    },
    /// A node that was lost too often has stayed for as long as it had to.
    EndProbation {
        /// Which.
        node: NodeName,
    },
    /// What clients of ZooKeeper's protocol ask.
    Zk(Box<ZkBatch>),
    /// Sessions of such clients that were not heard in their time.
    ExpireZkSessions {
        /// Which, each with the connection it was on then.
        sessions: Vec<(i64, u64)>,
    },
    /// A step of the import of a ZooKeeper's tree.
    ImportZk {
        /// The import.
        name: String,
        /// The step.
        step: Box<ZkImportStep>,
    },
    /// Creates a job whose first copies run already, as containers of another scheduler's.
    AdoptJob {
        /// The whole job; there must be none of its name.
        spec: Arc<JobSpec>,
        /// What runs already; all of it becomes copies of the job, or nothing changes.
        adoptions: Vec<Adoption>,
    },
}

impl Command {
    /// For logs and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::FoundCluster { .. } => "found_cluster",
            Self::SubmitJob { .. } => "submit_job",
            Self::StopJob { .. } => "stop_job",
            Self::ScaleJob { .. } => "scale_job",
            Self::RegisterNode { .. } => "register_node",
            Self::SetNodeState { .. } => "set_node_state",
            Self::SetEligibility { .. } => "set_eligibility",
            Self::DrainNode { .. } => "drain_node",
            Self::RemoveNode { .. } => "remove_node",
            Self::Place(_) => "place",
            Self::StopAllocs { .. } => "stop_allocs",
            Self::ReportAllocs { .. } => "report_allocs",
            Self::CollectGarbage { .. } => "collect_garbage",
            Self::PutVariable { .. } => "put_variable",
            Self::DeleteVariable { .. } => "delete_variable",
            Self::RestoreChunk { .. } => "restore_chunk",
            Self::RestoreCommit { .. } => "restore_commit",
            Self::RetireServer { .. } => "retire_server",
            Self::PromoteDeployment { .. } => "promote_deployment",
            Self::PauseDeployment { .. } => "pause_deployment",
            Self::CompleteDeployment { .. } => "complete_deployment",
            Self::FailDeployment { .. } => "fail_deployment",
            Self::RollbackJob { .. } => "rollback_job",
            Self::RestartJob { .. } => "restart_job",
            Self::MoveAllocs { .. } => "move_allocs",
            Self::PreemptAllocs { .. } => "preempt_allocs",
            Self::LoseAllocs { .. } => "lose_allocs",
            Self::GiveUpAllocs { .. } => "give_up_allocs",
            Self::EndProbation { .. } => "end_probation",
            Self::Zk(_) => "zk",
            Self::ExpireZkSessions { .. } => "expire_zk_sessions",
            Self::ImportZk { .. } => "import_zk",
            Self::AdoptJob { .. } => "adopt_job",
        }
    }
}

/// Containers that run already and become one copy of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// Replica.
    pub index: u32,
    /// Where they run.
    pub node: NodeName,
    /// Their host ports, in the order of the job's ports.
    pub ports: Vec<u16>,
    /// The container of each task.
    pub containers: BTreeMap<TaskName, String>,
    /// What they were before, for people.
    #[serde(default)]
    pub origin: String,
}

/// An allocation that is to go elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocMove {
    /// Which.
    pub alloc: AllocId,
    /// Why.
    pub reason: StopReason,
    /// Where to, if that was chosen.
    pub to: Option<NodeName>,
}

/// Placements, column by column: row *i* of each column is one allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Placements {
    /// The jobs that `job` counts into, each with the version that was planned for.
    pub jobs: Vec<(JobId, u64)>,
    /// The nodes that `node` counts into.
    pub nodes: Vec<NodeName>,
    /// Place in `jobs`.
    pub job: Vec<u32>,
    /// Replica.
    pub index: Vec<u32>,
    /// Place in `nodes`.
    pub node: Vec<u32>,
    /// Host ports, in the order of the job's ports.
    pub ports: Vec<Vec<u16>>,
    /// Devices by number.
    pub gpus: Vec<Vec<u32>>,
    /// The allocation that is replaced.
    pub previous: Vec<Option<AllocId>>,
}

/// One row of [`Placements`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The job.
    pub job: JobId,
    /// The version that was planned for.
    pub version: u64,
    /// Replica.
    pub index: u32,
    /// Where.
    pub node: NodeName,
    /// Host ports, in the order of the job's ports.
    pub ports: Vec<u16>,
    /// Devices by number.
    pub gpus: Vec<u32>,
    /// The allocation that is replaced.
    pub previous: Option<AllocId>,
}

impl Placements {
    /// Adds a row.
    pub fn push(&mut self, row: Placement) {
        let job = (row.job, row.version);
        // Rows of one job come one after another, so the last is nearly always the one.
        let job_at = self.jobs.iter().rposition(|known| *known == job).unwrap_or_else(|| {
            self.jobs.push(job);
            self.jobs.len() - 1
        });
        let node_at = self.nodes.iter().position(|known| *known == row.node).unwrap_or_else(|| {
            self.nodes.push(row.node);
            self.nodes.len() - 1
        });
        self.job.push(job_at as u32);
        self.index.push(row.index);
        self.node.push(node_at as u32);
        self.ports.push(row.ports);
        self.gpus.push(row.gpus);
        self.previous.push(row.previous);
    }

    /// How many allocations.
    pub fn len(&self) -> usize {
        self.job.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.job.is_empty()
    }

    /// The rows; a row whose columns don't fit together is left out.
    pub fn rows(&self) -> impl Iterator<Item = Placement> + '_ {
        (0..self.len()).filter_map(|i| {
            let (job, version) = self.jobs.get(*self.job.get(i)? as usize)?.clone();
            Some(Placement {
                job,
                version,
                index: *self.index.get(i)?,
                node: self.nodes.get(*self.node.get(i)? as usize)?.clone(),
                ports: self.ports.get(i)?.clone(),
                gpus: self.gpus.get(i)?.clone(),
                previous: *self.previous.get(i)?,
            })
        })
    }
}
