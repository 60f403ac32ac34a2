//! Every bound in the program, named with its unit.
//!
//! A number that caps what the outside can make us hold, send or wait for lives here and nowhere else.

// --- names and job files ---

/// Characters in the name of a project, job, task, node, server or port.
pub const NAME_CHARS_MAX: usize = 63;
/// Bytes of one job file, all its documents together.
pub const JOB_FILE_BYTES_MAX: usize = 1 << 20;
/// Job documents in one file.
pub const JOB_FILE_DOCUMENTS_MAX: usize = 256;
/// Levels of nesting in a job file.
pub const JOB_FILE_DEPTH_MAX: usize = 32;
/// Values in a job file, those of YAML's aliases counted each time.
pub const JOB_FILE_VALUES_MAX: usize = 200_000;
/// Problems that are told of one job file.
pub const JOB_FILE_PROBLEMS_MAX: usize = 100;
/// Tasks of one job.
pub const TASKS_MAX: usize = 32;
/// Replicas of one job.
pub const REPLICAS_MAX: u32 = 100_000;
/// Ports of one task.
pub const PORTS_MAX: usize = 64;
/// Volumes of one task.
pub const VOLUMES_MAX: usize = 64;
/// Entries of one map in a job: environment, labels.
pub const MAP_ENTRIES_MAX: usize = 512;
/// Bytes of one key of such a map.
pub const MAP_KEY_BYTES_MAX: usize = 256;
/// Bytes of one value of such a map.
pub const MAP_VALUE_BYTES_MAX: usize = 32 << 10;
/// Words of a command line.
pub const COMMAND_WORDS_MAX: usize = 1024;
/// Placement rules of one kind in a job.
pub const PLACEMENT_RULES_MAX: usize = 64;
/// Attributes of one node.
pub const NODE_ATTRIBUTES_MAX: usize = 256;
/// GPUs of one node.
pub const NODE_GPUS_MAX: u32 = 64;

// --- settings ---

/// Bytes of a settings file.
pub const CONFIG_FILE_BYTES_MAX: usize = 256 << 10;

// --- replicated state ---

/// Versions of a job that are kept for `orch history` and for going back.
pub const JOB_VERSIONS_KEPT: usize = 20;
/// Deployments kept for each job.
pub const DEPLOYMENTS_KEPT_PER_JOB: usize = 10;
/// Events kept in the state for resuming a stream.
pub const EVENTS_KEPT: usize = 20_000;
/// Story lines kept with each allocation.
pub const ALLOCATION_NOTES_KEPT: usize = 12;
/// Replies kept for repeated `Idempotency-Key`s.
pub const IDEMPOTENCY_KEPT: usize = 10_000;
/// How long such a reply is kept, in milliseconds.
pub const IDEMPOTENCY_KEPT_MS: u64 = 24 * 60 * 60 * 1000;
/// Characters of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 128;
/// Bytes of a variable's path.
pub const VARIABLE_PATH_BYTES_MAX: usize = 512;
/// Bytes of a variable's value.
pub const VARIABLE_VALUE_BYTES_MAX: usize = 64 << 10;
/// Ended allocations kept for each replica.
pub const ENDED_ALLOCATIONS_KEPT_PER_REPLICA: usize = 3;
/// How long an ended allocation of a job that is gone or complete is kept, in milliseconds.
pub const ENDED_ALLOCATION_KEPT_MS: u64 = 60 * 60 * 1000;
/// Bytes of the output's tail kept with a failed task.
pub const OUTPUT_TAIL_BYTES_MAX: usize = 2048;
/// Bytes of one message about an allocation.
pub const MESSAGE_BYTES_MAX: usize = 2048;
/// Allocations in one command that asks them to end, or forgets them.
pub const STOPS_PER_COMMAND_MAX: usize = 16_384;
/// Placements in one command.
pub const PLACEMENTS_PER_COMMAND_MAX: usize = 4096;
/// Replicas for which one pass of the planner takes room from others.
pub const PREEMPTIONS_PER_PASS_MAX: usize = 256;
/// Choices of victims that are tried on one node before the first that is good enough is taken.
pub const PREEMPTION_STEPS_MAX: usize = 20_000;
/// Allocations that one `orch rebalance` moves.
pub const REBALANCE_MOVES_MAX: u32 = 100;
/// Allocations that a server moves each time it looks for better placement by itself.
pub const REBALANCE_MOVES_EACH_TIME: u32 = 3;
/// Losses of a node that are remembered.
pub const NODE_LOSSES_KEPT: usize = 16;
/// Losses within `PROBATION_WITHIN_MS` from which on a node that comes back is on probation.
pub const PROBATION_LOSSES: usize = 3;
/// Time over which a node's losses are counted, in milliseconds.
pub const PROBATION_WITHIN_MS: u64 = 10 * 60 * 1000;
/// The first probation, in milliseconds; doubles with each further loss.
pub const PROBATION_MS: u64 = 60 * 1000;
/// The longest probation, in milliseconds.
pub const PROBATION_MS_MAX: u64 = 30 * 60 * 1000;

// --- log, snapshots, wire ---

/// Bytes of one encoded request (a command with its envelope).
pub const REQUEST_BYTES_MAX: usize = 2 << 20;
/// Bytes of one log entry, a batch of requests.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// Requests in one log entry.
pub const BATCH_REQUESTS_MAX: usize = 4096;
/// Bytes of one row of a snapshot.
pub const SNAPSHOT_ROW_BYTES_MAX: usize = 16 << 20;
/// Bytes of one block of a snapshot file.
pub const SNAPSHOT_BLOCK_BYTES: usize = 64 << 10;
/// Bytes of one piece of a snapshot that is restored through the log.
pub const RESTORE_CHUNK_BYTES: usize = 512 << 10;
/// Bytes of a snapshot that can be restored.
pub const RESTORE_BYTES_MAX: u64 = 2 << 30;
/// Bytes of one gRPC message.
pub const RPC_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Bytes of one gRPC stream to a server that may wait to be read.
pub const RPC_STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Bytes of all gRPC streams of one connection to a server that may wait to be read.
pub const RPC_CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// Changes waiting for the log's disk.
pub const LOG_JOBS_MAX: usize = 4096;
/// Entries that the log's disk makes durable at once.
pub const LOG_GROUP_ENTRIES_MAX: usize = 8192;
/// Bytes that the log's disk makes durable at once.
pub const LOG_GROUP_BYTES_MAX: usize = 8 << 20;
/// Bytes of one frame of the log, unless one entry alone has more.
pub const LOG_FRAME_BYTES: usize = 128 << 10;
/// Bytes of the log's journal, after which sled has to have all of it.
pub const LOG_JOURNAL_BYTES: u64 = 32 << 20;
/// Bytes by which the journal's file grows until it has them all.
pub const LOG_JOURNAL_STEP_BYTES: u64 = 1 << 20;
/// Frames that are purged in one step.
pub const LOG_PURGE_FRAMES: usize = 256;
/// Bytes of entries in one message to a follower, unless one entry alone has more.
pub const LOG_READ_BYTES_MAX: usize = 2 << 20;
/// Bytes of one piece of a snapshot on its way to a follower.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;
/// Requests waiting to be proposed on one server.
pub const PROPOSALS_MAX: usize = 16_384;
/// Bytes of requests waiting to be proposed or answered on one server.
pub const PROPOSALS_BYTES_MAX: usize = 64 << 20;
/// Linearizable reads waiting on one server.
pub const READS_MAX: usize = 16_384;
/// Members of a cluster, with those who are joining.
pub const SERVERS_MAX: usize = 32;

// --- ZooKeeper ---

/// Changes of nodes that are kept for watches; who is further behind begins anew.
pub const ZK_CHANGES_KEPT: usize = 65_536;
/// Bytes of one request of a client that can be allowed: more would not go through the log.
pub const ZK_SERVED_REQUEST_BYTES_MAX: usize = REQUEST_BYTES_MAX - (64 << 10);
/// The shortest unit of session time-outs, in milliseconds.
pub const ZK_TICK_MS_MIN: u64 = 10;
/// Bytes of the first frame of a client.
pub const ZK_CONNECT_BYTES_MAX: usize = 1024;
/// How long a client may take over its first frame, in milliseconds.
pub const ZK_FIRST_FRAME_WAIT_MS: u64 = 10_000;
/// How long a client may take over what is said last on its connection, in milliseconds.
pub const ZK_LAST_WRITE_MS: u64 = 30_000;
/// Bytes waiting for one client from which on its further requests wait.
pub const ZK_OUT_BYTES_HIGH: usize = 2 << 20;
/// Bytes waiting for one client from which on it is let go: watch events can't wait.
pub const ZK_OUT_BYTES_MAX: usize = 32 << 20;
/// Bytes of requests of one client that may wait for their answers, or one request's.
pub const ZK_IN_BYTES_PER_CONNECTION: usize = 4 << 20;
/// The same of all clients of a server.
pub const ZK_IN_BYTES_MAX: usize = 256 << 20;
/// Entries of an access list, `auth` counted as often as its asker has proven somebody to be.
pub const ZK_ACL_ENTRIES_MAX: usize = 1024;
/// What one connection may prove to be: identities.
pub const ZK_IDS_MAX: usize = 64;
/// What one connection may prove to be: bytes of one identity's proof.
pub const ZK_ID_BYTES_MAX: usize = 4096;
/// What one connection may prove to be: bytes of all its identities. They go through the log with
/// its requests.
pub const ZK_IDS_BYTES_MAX: usize = 32 << 10;
/// Bytes of the answer to one request for several reads.
pub const ZK_MULTI_READ_BYTES_MAX: usize = 16 << 20;
/// Bytes of the paths that one connection watches.
pub const ZK_WATCHED_BYTES_PER_CONNECTION_MAX: usize = 64 << 20;
/// Lots of bytes waiting for one client.
pub const ZK_OUT_CHUNKS_MAX: usize = 16_384;
/// Events of all connections waiting for the hub.
pub const ZK_EVENTS_MAX: usize = 4096;
/// Clients of one server.
pub const ZK_CONNECTIONS_MAX: usize = 20_000;
/// Watches of one connection.
pub const ZK_WATCHES_PER_CONNECTION_MAX: usize = 250_000;
/// Lots of requests of one server's clients that are on their way through the log at once.
pub const ZK_LOTS_IN_FLIGHT: usize = 2;
/// Requests that go in one lot rather than in two.
pub const ZK_LOT_REQUESTS_MIN: usize = 32;
/// Requests of clients in one command.
pub const ZK_BATCH_REQUESTS_MAX: usize = 2048;
/// Bytes of requests of clients in one command, unless one alone has more.
pub const ZK_BATCH_BYTES: usize = 768 << 10;
/// Bytes of a node's data up to which a read of it may travel through the log with the writes
/// that it stands between.
pub const ZK_PASSING_READ_BYTES: usize = 16 << 10;
/// Bytes of answers to such reads in one lot, as they are expected.
pub const ZK_PASSING_READS_BYTES: usize = 2 << 20;
/// Bytes of answers to such reads in one lot to one client; who asks for more, since nodes have
/// grown meanwhile, has to come again.
pub const ZK_PASSING_READS_PER_CALLER_MAX: usize = 1 << 20;
/// Bytes of answers to such reads in one lot to all clients: two lots fit one message.
pub const ZK_PASSING_READS_BYTES_MAX: usize = 6 << 20;
/// Sessions that one server tells the leader of at once.
pub const ZK_TOUCHED_MAX: usize = 50_000;
/// Sessions that one command ends.
pub const ZK_EXPIRED_PER_COMMAND_MAX: usize = 256;
/// Nodes that one command removes because they are over.
pub const ZK_REAPED_PER_COMMAND_MAX: usize = 1024;
/// Nodes that may be looked at to count what a quota is about; while more were, and are not
/// forgiven yet, no further count is begun.
pub const ZK_RECOUNTED_NODES_MAX: u64 = 1_000_000;
/// Nodes looked at that are forgiven a second.
pub const ZK_RECOUNTED_NODES_PER_SECOND: u64 = 20_000;
/// Imports of trees that are remembered.
pub const ZK_IMPORTS_MAX: usize = 16;
/// Bytes of the name of an import.
pub const ZK_IMPORT_NAME_BYTES_MAX: usize = 64;
/// Bytes of nodes in one row of a snapshot, unless one node alone has more.
pub const ZK_ROWS_BYTES: usize = 256 << 10;

/// Nodes that an operator's removal of a subtree takes in one command.
pub const ZK_REMOVED_TOGETHER_MAX: usize = 500;
/// Rows of the upper part of a tree when the caller names no number.
pub const ZK_TREE_ROWS: usize = 1000;
/// Rows of the upper part of a tree.
pub const ZK_TREE_ROWS_MAX: usize = 100_000;
/// Bytes of rows in one step of an import, unless one row alone has more.
pub const ZK_CHUNK_BYTES: usize = 512 << 10;
/// Bytes of one step of an import: a row alone may have so many. A request to the state has room
/// for little more.
pub const ZK_CHUNK_BYTES_MAX: usize = 1_900_000;
/// How long digests of a copy may differ before it is compared whole, in milliseconds.
pub const ZK_UNVERIFIED_MS: u64 = 20_000;
/// Nodes that a copy through the clients' port reads at once.
pub const ZK_WALK_NODES_AT_ONCE: usize = 128;
/// Nodes that are named as examples of a problem.
pub const ZK_EXAMPLES_MAX: usize = 10;
/// Lots of rows on their way into the log, for one import.
pub const ZK_CHUNKS_IN_FLIGHT: usize = 16;
/// Bytes of transactions that a second copy holds back while the first one comes up to it.
pub const ZK_HELD_BYTES_MAX: usize = 32 << 20;
/// Client ports of sources that an import knows to have been open, with from where.
pub const ZK_PORTS_SEEN_MAX: usize = 256;
/// Bytes of the name of such a port, and of the machine from which it was seen.
pub const ZK_PORT_NAME_BYTES_MAX: usize = 300;
/// How long a client port of a source must not be reached, without being refused, to count as
/// closed, in milliseconds.
pub const ZK_PORT_SILENCE_MS: u64 = 3_000;

// --- API ---

/// Bytes of a request body.
pub const API_BODY_BYTES_MAX: usize = JOB_FILE_BYTES_MAX;
/// Bytes of a body that is too large and is still read, so that its sender reads the answer.
pub const API_BODY_DRAIN_BYTES: usize = 16 << 20;
/// How long a client may take over the head of a request, in milliseconds.
pub const API_HEAD_WAIT_MS: u64 = 15_000;
/// How long a client may take over a body that is read whole, in milliseconds.
pub const API_BODY_WAIT_MS: u64 = 60_000;
/// Connections open at once on one server's API.
pub const API_CONNECTIONS_MAX: usize = 4096;
/// Rows of one page of a list.
pub const API_PAGE_ROWS_MAX: usize = 1000;
/// Rows of a page when the caller names no number.
pub const API_PAGE_ROWS: usize = 200;
/// Failing copies that the status of one job tells about.
pub const API_FAILURES_SHOWN_MAX: usize = 50;
/// Turns that `orch plan` gives the planner before it is cut short.
pub const PLAN_ROUNDS_MAX: usize = 500;
/// Copies whose output one request merges.
pub const API_LOG_SOURCES_MAX: usize = 64;
/// Bytes of one message on an exec connection.
pub const EXEC_MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Streams (events, logs, exec) open at once on one server.
pub const API_STREAMS_MAX: usize = 1024;
/// Milliseconds after which a quiet stream says that it lives.
pub const STREAM_KEEP_ALIVE_MS: u64 = 15_000;
/// Milliseconds that a stream of endpoints waits for more changes before it sends a list.
pub const ENDPOINTS_GATHER_MS: u64 = 20;
/// Milliseconds without a known leader after which a stream of endpoints ends.
pub const ENDPOINTS_LEADERLESS_MS: u64 = 10_000;
/// Events waiting for one slow reader before its stream is ended.
pub const EVENT_QUEUE_MAX: usize = 4096;

// --- clients of ZooKeeper's protocol ---

/// Servers in one connect string.
pub const ZK_SERVERS_MAX: usize = 64;
/// Bytes of one frame that the client takes from a server: four times what a server takes.
pub const ZK_REPLY_BYTES_MAX: usize = 4 << 20;
/// Bytes of one frame that the client sends; servers take 1 MiB unless told otherwise.
pub const ZK_REQUEST_BYTES_MAX: usize = 4 << 20;
/// Requests that wait to be sent before callers do.
pub const ZK_REQUESTS_WAITING_MAX: usize = 1024;
/// Requests sent together, at most.
pub const ZK_REQUESTS_TOGETHER_MAX: usize = 256;
/// Bytes of paths in one request that sets watches again.
pub const ZK_WATCHES_BYTES_MAX: usize = 128 << 10;
/// Bytes of the answer to a four-letter word: `dump` and `wchp` are long.
pub const ZK_FOUR_LETTER_BYTES_MAX: usize = 64 << 20;

// --- agents ---

/// Messages waiting on an agent's stream, each way.
pub const AGENT_QUEUE_MAX: usize = 256;
/// How long a server waits for the first message of an agent's stream, in milliseconds.
pub const AGENT_HELLO_WAIT_MS: u64 = 10_000;
/// Bytes of what an agent says of its host.
pub const NODE_SPEC_BYTES_MAX: usize = 256 << 10;
/// Characters of a node's address, class, version and each volume root.
pub const NODE_TEXT_CHARS_MAX: usize = 1024;
/// Runtimes of one node.
pub const NODE_RUNTIMES_MAX: usize = 16;
/// Volume roots of one node.
pub const NODE_VOLUME_ROOTS_MAX: usize = 64;
/// Bytes of one allocation's report.
pub const REPORT_BYTES_MAX: usize = 512 << 10;
/// Bytes of reports proposed at once.
pub const REPORTS_PER_PROPOSAL_BYTES: usize = 1 << 20;
/// Bytes of an agent's reports that wait for a proposal before no more are read from it.
pub const REPORTS_WAITING_BYTES_MAX: usize = 4 << 20;
/// Start times in one heartbeat; more are left out.
pub const HEARTBEAT_STARTS_MAX: usize = 1024;
/// Allocations whose use one heartbeat tells; more are left out.
pub const HEARTBEAT_ALLOCS_MAX: usize = 4096;
/// Bytes of one answer about what all nodes use.
pub const USAGE_BYTES_MAX: usize = 64 << 20;
/// Copies that `orch top` is told of at once, those that use the most.
pub const USAGE_ROWS_MAX: usize = 1000;
/// Bytes of orders in one message to an agent; a single larger order goes alone.
pub const ORDERS_BYTES: usize = 1 << 20;
/// What the owner of the agents' lines has not come to yet.
pub const HUB_QUEUE_MAX: usize = 1024;
/// Allocation reports in one message of an agent.
pub const REPORTS_PER_MESSAGE_MAX: usize = 512;
/// Bytes of texts in the reports of one message, from which on it takes no further one.
pub const REPORTS_BYTES: usize = 2 << 20;
/// Sessions (logs, exec) open at once on one agent.
pub const AGENT_SESSIONS_MAX: usize = 256;
/// Sessions open at once through one server.
pub const SERVER_SESSIONS_MAX: usize = 1024;
/// Frames waiting in a session, each way.
pub const SESSION_QUEUE_MAX: usize = 64;
/// Containers that an agent starts or stops at the same time.
pub const AGENT_STARTS_AT_ONCE: usize = 8;
/// Lines that `orch logs --tail` may ask for.
pub const LOG_TAIL_LINES_MAX: u32 = 100_000;
/// Bytes of one log line; a longer one is split.
pub const LOG_LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes of what a check has to say.
pub const CHECK_MESSAGE_BYTES_MAX: usize = 512;
/// Bytes kept of what a check's command prints.
pub const CHECK_OUTPUT_BYTES_MAX: usize = 256;
/// Bytes of the answer to a gRPC health check.
pub const CHECK_ANSWER_BYTES_MAX: usize = 16 << 10;
/// Reports of one allocation that go out without a wait, when it was quiet before.
pub const REPORT_BURST: u32 = 5;
/// Between its reports when it is not, in milliseconds.
pub const REPORT_PACE_MS: u64 = 1000;
/// Bytes of a pattern that lines of a log are held against.
pub const PATTERN_BYTES_MAX: usize = 1024;
/// Bytes of memory that a pattern may take once it is made ready.
pub const PATTERN_MEMORY_BYTES_MAX: usize = 1 << 20;
/// Bytes of one line of a log file with what stands before and around its text.
pub const LOG_FILE_LINE_BYTES_MAX: usize = 1 << 20;
/// Files of one rotated log.
pub const LOG_FILES_MAX: usize = 100;
/// Bytes of a path that is copied from or to.
pub const FILE_PATH_BYTES_MAX: usize = 4096;
/// Connections that `orch port-forward` carries at once.
pub const FORWARDED_CONNECTIONS_MAX: usize = 256;
/// Bytes of a file or a connection in one frame of a session.
pub const SESSION_PIECE_BYTES: usize = 64 << 10;
/// Ended allocations that an agent keeps, for their logs.
pub const AGENT_ENDED_KEPT: usize = 100;
/// Addresses of servers that an agent remembers.
pub const AGENT_SERVERS_MAX: usize = 64;
/// Bytes of log lines in one frame of a session.
pub const SESSION_FRAME_BYTES: usize = 64 << 10;

// --- ZooKeeper's files and streams ---

/// Bytes of a node's path.
pub const ZK_PATH_BYTES_MAX: usize = 1 << 20;
/// Bytes of a node's data in files and on the stream to learners (`jute.maxbuffer` is 1 MiB unless
/// somebody raised it).
pub const ZK_DATA_BYTES_MAX: usize = 64 << 20;
/// Bytes of one access list.
pub const ZK_ACL_BYTES_MAX: usize = 4 << 20;
/// Bytes of one transaction in a log file or on the stream to learners.
pub const ZK_TRANSACTION_BYTES_MAX: usize = 128 << 20;
/// Bytes of one block of a file that snappy has made smaller, before and after.
pub const ZK_SNAPPY_BLOCK_BYTES_MAX: usize = 4 << 20;
/// Bytes that are read at once from such files and streams.
pub const ZK_READ_BYTES: usize = 256 << 10;
/// Bytes of the identities in a message between servers of an ensemble.
pub const ZK_AUTH_BYTES_MAX: usize = 64 << 10;
/// Bytes that an observer of an ensemble reads ahead of whoever takes what it gets.
pub const ZK_OBSERVED_BYTES_MAX: usize = 64 << 20;
/// Messages that wait there.
pub const ZK_OBSERVED_EVENTS_MAX: usize = 4096;
/// Bytes of proposals that are not committed yet.
pub const ZK_PROPOSED_BYTES_MAX: usize = 256 << 20;
/// How long an ensemble's leader may take over an answer to one that wants to join, in
/// milliseconds.
pub const ZK_JOIN_WAIT_MS: u64 = 20_000;
/// How long it may be silent later, in milliseconds: it says that it lives twice a tick.
pub const ZK_LEADER_SILENCE_MS: u64 = 60_000;

// --- Marathon ---

/// Apps and pods that are read from one source.
pub const MARATHON_DEFINITIONS_MAX: usize = 50_000;
/// Levels of nested groups.
pub const MARATHON_GROUP_DEPTH_MAX: usize = 32;
/// Bytes of one value of its storage, unpacked.
pub const MARATHON_VALUE_BYTES_MAX: usize = 64 << 20;
/// Bytes of a backup, a saved answer, or the answer of a live Marathon.
pub const MARATHON_SOURCE_BYTES_MAX: u64 = 512 << 20;
/// Values of its storage that are read from one source.
pub const MARATHON_VALUES_MAX: usize = 1_000_000;
/// Tasks that one request takes over.
pub const ADOPT_TASKS_MAX: usize = 4096;
/// Characters of a Mesos task's id.
pub const MESOS_TASK_ID_CHARS_MAX: usize = 512;
