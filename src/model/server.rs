//! A server of the cluster.

use serde::{Deserialize, Serialize};

use super::name::ServerName;

/// A member, as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Random, made with the data directory: an emptied directory is another server.
    pub id: u64,
    /// The operator's name for it; once in a cluster.
    pub name: ServerName,
    /// `host:port` of its gRPC door.
    pub rpc_addr: String,
    /// `host:port` of its REST door.
    pub api_addr: String,
}
