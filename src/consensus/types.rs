//! What openraft is told of our types.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::runtime::Runtime;
use crate::model::name::NameError;
use crate::model::server::Server;
use crate::state::{Rejected, Reply};

openraft::declare_raft_types!(
    /// Our choices among openraft's types: one leader a term, an entry is a batch of requests.
    pub TypeConfig:
        D = Batch,
        R = Replies,
        NodeId = u64,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

/// Place in the log.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// An entry of the log.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// A vote, granted or not.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// Members with the place in the log where they were set.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What belongs to a snapshot beside the state.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// What an entry holds.
pub type Payload = openraft::EntryPayload<Batch, u64, Member>;
/// Members.
pub type Membership = openraft::Membership<u64, Member>;

/// A batch of requests as `state::codec` wrote it. Opaque until it is applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Batch(pub Bytes);

impl std::fmt::Display for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What the state answered to each request of a batch, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies(pub Vec<Result<Reply, Rejected>>);

/// What the membership knows of a server beside its id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The operator's name for it.
    pub name: String,
    /// `host:port` of its gRPC door.
    pub rpc_addr: String,
    /// `host:port` of its REST door.
    pub api_addr: String,
}

impl Member {
    /// The whole server.
    ///
    /// # Errors
    /// If the name is none, which no server of ours would have joined with.
    pub fn server(&self, id: u64) -> Result<Server, NameError> {
        Ok(Server {
            id,
            name: self.name.parse()?,
            rpc_addr: self.rpc_addr.clone(),
            api_addr: self.api_addr.clone(),
        })
    }
}

impl From<&Server> for Member {
    fn from(server: &Server) -> Self {
        Self {
            name: server.name.to_string(),
            rpc_addr: server.rpc_addr.clone(),
            api_addr: server.api_addr.clone(),
        }
    }
}

/// Bytes that an entry takes in memory and on the wire, about.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        openraft::EntryPayload::Normal(batch) => batch.0.len(),
        openraft::EntryPayload::Membership(_) => 256,
        openraft::EntryPayload::Blank => 0,
    };
    payload + 64
}
