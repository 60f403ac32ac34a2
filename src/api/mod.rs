//! REST, server-sent events, WebSocket and OpenAPI. One file a resource; never imports the agent.
//!
//! Start at `router` for how a request passes, at `error` for how refusals become HTTP, at `view`
//! for the JSON. Reads take `?consistency=`, and answer with the header `Orch-Index`; writes take
//! the header `Idempotency-Key`, but for those of servers and snapshots, which are no commands to the
//! state and refuse it; lists are pages `{items, next_cursor}` by `?limit=&cursor=`;
//! errors are problem details ([`view::problem::ProblemDetails`]). `?project=` is `default` unless
//! given; lists of jobs and allocations cover all projects then.
//!
//! | route | query | body | answer |
//! |---|---|---|---|
//! | `POST /v1/jobs` | `if_version project` | a job file: `application/yaml`, `application/toml`, `application/json`, or `application/x-orch-job` (found out from the text) | `SubmitReply` |
//! | `GET /v1/jobs` | `project limit cursor consistency` | | `Page<JobRow>` |
//! | `GET /v1/jobs/{name}` | `project consistency` | | `JobStatus` |
//! | `GET /v1/jobs/{name}/spec` | `project version consistency` | | job file as JSON |
//! | `GET /v1/jobs/{name}/versions` | `project limit cursor consistency` | | `Page<JobVersionRow>`, newest first |
//! | `PUT /v1/jobs/{name}/scale` | `project` | `ScaleRequest` | `JobChanged` |
//! | `DELETE /v1/jobs/{name}` | `project purge` | | `JobChanged` |
//! | `POST /v1/jobs/{name}/rollback` | `project` | `RollbackRequest`, or none | `JobChanged` |
//! | `POST /v1/jobs/{name}/restart` | `project` | | `JobChanged` |
//! | `POST /v1/jobs/{name}/adopt` | `project` | `AdoptRequest` | `AdoptReply` |
//! | `GET /v1/jobs/{name}/endpoints` | `project port follow consistency` | | `Endpoints`; server-sent events of them with `follow=true` |
//! | `GET /v1/jobs/{name}/logs` | `project index follow tail since task grep ignore_case` | | `LogLine`s, `application/x-ndjson` |
//! | `GET /v1/deployments` | `project job active limit cursor consistency` | | `Page<DeploymentRow>`, newest first |
//! | `GET /v1/deployments/{id}` | `consistency` | | `DeploymentRow` |
//! | `POST /v1/deployments/{id}/promote` | | | `DeploymentRow` |
//! | `POST /v1/deployments/{id}/pause` | | | `DeploymentRow` |
//! | `POST /v1/deployments/{id}/resume` | | | `DeploymentRow` |
//! | `POST /v1/deployments/{id}/abort` | | `AbortRequest`, or none | `DeploymentRow` |
//! | `POST /v1/plan` | `project consistency` | a job file | `PlanReply` |
//! | `GET /v1/allocations` | `project job node all limit cursor consistency` | | `Page<AllocationRow>` |
//! | `GET /v1/allocations/{id}` | `consistency` | | `AllocationStatus` |
//! | `GET /v1/allocations/{id}/logs` | `follow tail since task grep ignore_case` | | `LogLine`s, `application/x-ndjson` |
//! | `GET /v1/allocations/{id}/exec` | `command… task tty stdin columns rows` | | WebSocket, binary frames: see `exec_channel` |
//! | `GET /v1/allocations/{id}/files` | `path task look` | | the tar stream, `application/x-tar`; `FileStatus` with `look=true` |
//! | `PUT /v1/allocations/{id}/files` | `path task` | a tar stream, `application/x-tar` | 204 |
//! | `GET /v1/allocations/{id}/forward` | `port task` | | WebSocket: bytes on channels 0 and 1 as `exec`, empty at their ends |
//! | `GET /v1/nodes` | `limit cursor consistency` | | `Page<NodeRow>` |
//! | `GET /v1/nodes/{name}` | `consistency` | | `NodeStatus` |
//! | `POST /v1/nodes/{name}/eligibility` | | `EligibilityRequest` | `NodeRow` |
//! | `POST /v1/nodes/{name}/drain` | | `DrainRequest` | `NodeRow` |
//! | `DELETE /v1/nodes/{name}` | | | 204 |
//! | `POST /v1/rebalance` | | `RebalanceRequest` | `RebalanceReply` |
//! | `GET /v1/usage` | `project job consistency` | | `UsageReply` |
//! | `GET /v1/servers` | | | `Page<ServerRow>` |
//! | `DELETE /v1/servers/{name}` | | | 204 |
//! | `POST /v1/servers/transfer` | | `TransferRequest` | `TransferReply` |
//! | `GET /v1/servers/self/checksum` | | | `ChecksumReply` |
//! | `GET /v1/variables` | `project prefix limit cursor consistency` | | `Page<VariableRow>` |
//! | `GET /v1/variables/{path}` | `project consistency` | | the value; `ETag: "modified_index"` |
//! | `PUT /v1/variables/{path}` | `project if_index` or `If-Match` | the value | `VariableWritten` |
//! | `DELETE /v1/variables/{path}` | `project if_index` or `If-Match` | | 204 |
//! | `GET /v1/zk/node` | `path raw consistency` | | `ZkNode`; the data with `raw=true` or `Accept: application/octet-stream` |
//! | `PUT /v1/zk/node` | `path version create` | the data | `ZkWritten` |
//! | `DELETE /v1/zk/node` | `path version recursive` | | `ZkRemoved` |
//! | `GET /v1/zk/children` | `path limit cursor consistency` | | `Page<ZkChild>` |
//! | `GET /v1/zk/tree` | `path depth limit consistency` | | `ZkTree` |
//! | `GET /v1/zk/summary` | `consistency` | | `ZkSummary` |
//! | `GET /v1/zk/dump` | `path consistency` | | `ZkNode`s, `application/x-ndjson` |
//! | `GET /v1/zk/watch` | `path recursive since`; header `Last-Event-ID` | | server-sent events of `ZkChange` |
//! | `GET /v1/zk/imports` | `limit cursor consistency` | | `Page<ZkImportRow>` |
//! | `GET /v1/zk/imports/{name}` | `consistency` | | `ZkImportRow` |
//! | `POST /v1/zk/imports/{name}/steps` | | `ZkStep` | `ZkImportRow` |
//! | `POST /v1/zk/imports/{name}/rows` | `generation from` | lots of rows | `ZkImportRow` |
//! | `POST /v1/zk/imports/{name}/transactions` | `generation after` | transactions | `ZkImportRow` |
//! | `GET /v1/zk/imports/{name}/snapshot` | `consistency` | | a snapshot file of ZooKeeper |
//! | `GET /v1/events` | `since job node follow limit`; header `Last-Event-ID` | | server-sent events or WebSocket of `EventRow`; `EventPage` with `follow=false` |
//! | `GET /v1/snapshot` | `consistency` | | the snapshot's bytes |
//! | `PUT /v1/snapshot` | | the snapshot's bytes | `RestoreReply` |
//! | `GET /v1/openapi.json` | | | this table for programs |
//! | `GET /metrics` | | | Prometheus' text format |
//! | `GET /healthz`, `GET /readyz` | | | `ok`, or 503 with the reason |
//! | `GET /` | | | a plain page with pointers |

mod adopt;
mod agents;
mod allocations;
mod context;
mod deployments;
mod endpoints;
mod error;
mod events;
mod exec;
mod extract;
mod files;
mod forward;
mod from_state;
mod guard;
mod jobs;
mod log_merge;
mod logs;
mod nodes;
mod page;
mod plan;
mod rebalance;
mod router;
mod serve;
mod servers;
mod snapshot;
pub mod snapshot_file;
mod socket;
mod submit;
mod system;
mod usage;
mod variables;
pub mod view;
mod zk;

pub use self::agents::Agents;
pub use self::context::Context;
pub use self::error::Problem;
pub use self::router::{openapi, router};
pub use self::serve::serve;
