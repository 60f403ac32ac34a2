//! Query parameters of each route.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How fresh a read is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ConsistencyChoice {
    /// Sees everything acknowledged before it began.
    #[default]
    Linearizable,
    /// Whatever this server has.
    Stale,
}

/// A read in a project.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ProjectRead {
    /// The project; `default` unless given.
    pub project: Option<String>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
}

/// A read of the cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct Read {
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
}

/// A page of jobs.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ListJobs {
    /// Only this project; all unless given.
    pub project: Option<String>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
    /// Rows of the page.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A page of nodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct List {
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
    /// Rows of the page.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// What is used.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct UsageQuery {
    /// Only allocations of this project; of all unless given, or the default one if `job` is.
    pub project: Option<String>,
    /// Only allocations of this job.
    pub job: Option<String>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
}

/// A page of a job's versions.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ListVersions {
    /// The project; `default` unless given.
    pub project: Option<String>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
    /// Rows of the page.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A page of allocations.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ListAllocations {
    /// Only this project; all unless given, or the default one if `job` is.
    pub project: Option<String>,
    /// Only this job.
    pub job: Option<String>,
    /// Only what is on this node.
    pub node: Option<String>,
    /// Ended ones that were replaced as well.
    pub all: bool,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
    /// Rows of the page.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A page of deployments.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ListDeployments {
    /// Only this project; all unless given, or the default one if `job` is.
    pub project: Option<String>,
    /// Only this job.
    pub job: Option<String>,
    /// Only those that are under way.
    pub active: bool,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
    /// Rows of the page.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A job's endpoints.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ReadEndpoints {
    /// The project; `default` unless given.
    pub project: Option<String>,
    /// Only this port, by name.
    pub port: Option<String>,
    /// Go on as they change.
    pub follow: bool,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
}

/// A page of variables.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ListVariables {
    /// The project; `default` unless given.
    pub project: Option<String>,
    /// Only paths that begin so.
    pub prefix: Option<String>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
    /// Rows of the page.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A submission.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct Submit {
    /// Only if this is the job's version now; 0: only if there is no such job. For one document.
    pub if_version: Option<u64>,
    /// Project of documents that name none; `default` unless given.
    pub project: Option<String>,
}

/// A plan.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct PlanQuery {
    /// Project of documents that name none; `default` unless given.
    pub project: Option<String>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
}

/// A write in a project.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ProjectWrite {
    /// The project; `default` unless given.
    pub project: Option<String>,
}

/// Stopping a job.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct StopJob {
    /// The project; `default` unless given.
    pub project: Option<String>,
    /// Forget it as well, once its allocations have ended.
    pub purge: bool,
}

/// One version of a job as a job file.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ReadSpec {
    /// The project; `default` unless given.
    pub project: Option<String>,
    /// The current one unless given.
    pub version: Option<u64>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
}

/// Output of one allocation.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct AllocationLogs {
    /// Go on as lines are written.
    pub follow: bool,
    /// Lines from the end to begin with; all unless given.
    pub tail: Option<u32>,
    /// RFC 3339: only lines from then on.
    pub since: Option<String>,
    /// Only this task.
    pub task: Option<String>,
    /// Only lines in which this regular expression is found; `tail` counts these alone.
    pub grep: Option<String>,
    /// For `grep`, capital and small letters are the same.
    pub ignore_case: bool,
}

/// Output of a job's copies, merged by time.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct JobLogs {
    /// The project; `default` unless given.
    pub project: Option<String>,
    /// Only this copy.
    pub index: Option<u32>,
    /// Go on as lines are written, on copies placed later as well.
    pub follow: bool,
    /// Lines from the end of each copy to begin with; all unless given.
    pub tail: Option<u32>,
    /// RFC 3339: only lines from then on.
    pub since: Option<String>,
    /// Only this task.
    pub task: Option<String>,
    /// Only lines in which this regular expression is found; `tail` counts these alone.
    pub grep: Option<String>,
    /// For `grep`, capital and small letters are the same.
    pub ignore_case: bool,
}

/// A command in a task.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct Exec {
    /// The command's words, one parameter each.
    pub command: Vec<String>,
    /// The task; the only or first one unless given.
    pub task: Option<String>,
    /// Give it a terminal.
    pub tty: bool,
    /// Send it input.
    pub stdin: bool,
    /// Characters of the terminal's line.
    pub columns: Option<u32>,
    /// Lines of the terminal.
    pub rows: Option<u32>,
}

/// Files of a task, to be read.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ReadFiles {
    /// A file or a directory; of a process, in the task's own directory.
    pub path: String,
    /// The task; the only or first one unless given.
    pub task: Option<String>,
    /// Only say what is there.
    pub look: bool,
}

/// Files of a task, to be written.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct WriteFiles {
    /// The directory to unpack into; of a process, in the task's own directory.
    pub path: String,
    /// The task; the only or first one unless given.
    pub task: Option<String>,
}

/// A connection to a port.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct Forward {
    /// Its number inside the container, or its name in the job.
    pub port: String,
    /// The task, of several that have no such port published.
    pub task: Option<String>,
}

/// A variable's write.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct WriteVariable {
    /// The project; `default` unless given.
    pub project: Option<String>,
    /// Only if it was last written at this index; 0: only if there is none.
    pub if_index: Option<u64>,
}

/// Events.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct EventsQuery {
    /// After this index; from now on unless given, or from the oldest kept with `follow=false`.
    pub since: Option<u64>,
    /// Only of this job, as `name` or `project/name`.
    pub job: Option<String>,
    /// Only of this node.
    pub node: Option<String>,
    /// Go on as things happen; `true` unless given.
    pub follow: Option<bool>,
    /// Rows of the page, with `follow=false`.
    pub limit: Option<usize>,
}

/// Headers of a write.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct WriteHeaders {
    /// A repeat under the same key within a day gets the first one's answer and changes nothing.
    #[serde(rename = "Idempotency-Key")]
    pub idempotency_key: Option<String>,
}

/// A node of ZooKeeper's tree.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ReadZkNode {
    /// The node's path; `/` unless given.
    pub path: Option<String>,
    /// Answer with the data alone, as they are.
    pub raw: bool,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
}

/// Writing a node of ZooKeeper's tree.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct WriteZkNode {
    /// The node's path.
    pub path: String,
    /// Only in this version.
    pub version: Option<i32>,
    /// Make the node if there is none.
    pub create: bool,
}

/// Removing nodes of ZooKeeper's tree.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct RemoveZkNode {
    /// The node's path.
    pub path: String,
    /// Only in this version.
    pub version: Option<i32>,
    /// All nodes below it as well.
    pub recursive: bool,
}

/// A page of a node's children.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ListZkChildren {
    /// The node's path; `/` unless given.
    pub path: Option<String>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
    /// Rows of the page.
    pub limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// The upper part of ZooKeeper's tree.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ReadZkTree {
    /// The top; `/` unless given.
    pub path: Option<String>,
    /// Steps below the top that are told; all unless given.
    pub depth: Option<u32>,
    /// Rows at most; 1000 unless given.
    pub limit: Option<usize>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
}

/// Part of ZooKeeper's tree.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct DumpZk {
    /// The top; `/` unless given.
    pub path: Option<String>,
    /// `linearizable` (default) or `stale`.
    pub consistency: ConsistencyChoice,
}

/// Changes of ZooKeeper's nodes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct WatchZk {
    /// The node's path; `/` unless given.
    pub path: Option<String>,
    /// Nodes below it as well.
    pub recursive: bool,
    /// Changes behind this position; those to come unless given.
    pub since: Option<u64>,
}

/// Rows for an import.
#[derive(Debug, Clone, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ZkRowsQuery {
    /// The copy that they are for: the import's `generation`.
    pub generation: u64,
    /// Number of the first lot in the body.
    #[serde(default)]
    pub from: u64,
}

/// Transactions for an import.
#[derive(Debug, Clone, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ZkTransactionsQuery {
    /// The copy that they are for: the import's `generation`.
    pub generation: u64,
    /// The newest transaction that the copy has, as `0x1f`.
    pub after: String,
}
