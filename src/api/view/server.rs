//! Servers of the cluster.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A server in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerRow {
    /// The operator's name for it.
    pub name: String,
    /// Made with its data directory, as 16 hexadecimal digits.
    pub id: String,
    /// `leader`, `follower` or `learner`.
    pub role: String,
    /// `host:port` of its gRPC door.
    pub rpc_addr: String,
    /// `host:port` of its REST door.
    pub api_addr: String,
    /// Index of its last log entry; absent if it could not be asked.
    pub last_log_index: Option<u64>,
    /// Index of the last entry it has applied; absent if it could not be asked.
    pub applied_index: Option<u64>,
    /// It answered just now.
    pub reachable: bool,
    /// Its release; absent if it could not be asked.
    pub version: Option<String>,
    /// `host:port` where ZooKeeper's clients reach it; absent if they don't, or if it could not be
    /// asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zk_addr: Option<String>,
    /// The same with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zk_tls_addr: Option<String>,
}

/// Hands leadership over.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// To whom; absent: to whoever is furthest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Leadership was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferReply {
    /// Who leads now.
    pub leader: String,
}

/// What this server's state comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChecksumReply {
    /// This server.
    pub server: String,
    /// Index of the last log entry in it.
    pub applied_index: u64,
    /// Of the whole state, as 16 hexadecimal digits: equal on servers at the same index.
    pub checksum: String,
}

/// A saved snapshot took the state's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoreReply {
    /// Bytes read.
    pub bytes: u64,
    /// Index of the log entry that did it.
    pub index: u64,
}
