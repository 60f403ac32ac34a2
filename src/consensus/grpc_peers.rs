//! Questions to other servers over gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use tonic::{Code, Request, Status};

use super::channels::{Channels, NOT_DONE, PASSED_ON, RETIRED, addressed, never_sent};
use super::peers::{Answer, Call, CallError, JoinCall, PeerStatus, Peers, ZkAddrs};
use crate::model::name::NameError;
use crate::model::server::Server;
use crate::rpc::v1::{
    JoinRequest, ProposeReply, ProposeRequest, ReadIndexRequest, RemoveServerRequest, StatusReply,
    StatusRequest, TransferLeadershipRequest,
};
use crate::state::codec;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct GrpcPeers {
    pub(super) channels: Channels,
    pub(super) cluster_id: Arc<AtomicU64>,
}

impl Peers for GrpcPeers {
    fn call(
        &self,
        addr: &str,
        id: u64,
        call: Call,
        passed_on: bool,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Answer, CallError>> {
        let (peers, addr) = (self.clone(), addr.to_owned());
        Box::pin(async move {
            let way = WayTo { id, passed_on, timeout };
            let asked = tokio::time::timeout(timeout, peers.ask(&addr, way, call)).await;
            asked.unwrap_or_else(|_| {
                Err(CallError::Unknown(format!("{addr} did not answer in time")))
            })
        })
    }
}

#[derive(Clone, Copy)]
struct WayTo {
    id: u64,
    passed_on: bool,
    timeout: Duration,
}

impl GrpcPeers {
    fn request<T>(&self, way: WayTo, message: T) -> Request<T> {
        let mut request = addressed(message, way.id, self.cluster_id.load(Ordering::Relaxed));
        request.set_timeout(way.timeout);
        if way.passed_on {
            request.metadata_mut().insert(PASSED_ON, 1.into());
        }
        request
    }

    async fn ask(&self, addr: &str, way: WayTo, call: Call) -> Result<Answer, CallError> {
        let mut client = self.channels.cluster(addr)?;
        let failed = |status: Status| error_of(addr, &status);
        Ok(match call {
            Call::Propose(requests) => {
                let request = self.request(way, ProposeRequest { requests });
                read_replies(client.propose(request).await.map_err(failed)?.into_inner())?
            }
            Call::ReadIndex => {
                let request = self.request(way, ReadIndexRequest {});
                let reply = client.read_index(request).await.map_err(failed)?;
                Answer::ReadIndex(reply.into_inner().index)
            }
            Call::Status => {
                let request = self.request(way, StatusRequest {});
                let reply = client.status(request).await.map_err(failed)?.into_inner();
                let status = PeerStatus::try_from(reply)
                    .map_err(|error| CallError::Unknown(error.to_string()))?;
                Answer::Status(Box::new(status))
            }
            Call::Join(JoinCall { server, cluster_id, version }) => {
                let message = JoinRequest { server: Some(server.into()), version, cluster_id };
                let reply = client.join(self.request(way, message)).await.map_err(failed)?;
                Answer::Joined { cluster_id: reply.into_inner().cluster_id }
            }
            Call::Remove { name } => {
                let request = self.request(way, RemoveServerRequest { name });
                client.remove_server(request).await.map_err(failed)?;
                Answer::Removed
            }
            Call::Transfer { to } => {
                let request = self.request(way, TransferLeadershipRequest { to });
                let reply = client.transfer_leadership(request).await.map_err(failed)?;
                Answer::Transferred { leader: reply.into_inner().leader }
            }
        })
    }
}

fn read_replies(reply: ProposeReply) -> Result<Answer, CallError> {
    let replies: Result<Vec<_>, _> =
        reply.replies.iter().map(|reply| codec::from_bytes(reply)).collect();
    // The leader has carried it out; only its words are not understood.
    let replies = replies.map_err(|error| CallError::Unknown(error.to_string()))?;
    Ok(Answer::Proposed { index: reply.index, replies })
}

fn error_of(addr: &str, status: &Status) -> CallError {
    let message = status.message().to_owned();
    if never_sent(status) {
        CallError::NotDone(format!("{addr} can't be reached: {message}"))
    } else if status.metadata().contains_key(NOT_DONE) {
        CallError::NotDone(message)
    } else if status.metadata().contains_key(RETIRED) {
        CallError::Retired(message)
    } else {
        match status.code() {
            Code::FailedPrecondition | Code::InvalidArgument | Code::PermissionDenied => {
                CallError::Refused(message)
            }
            Code::Unimplemented => {
                CallError::Refused(format!("{addr} is no server of a cluster: {message}"))
            }
            _ => CallError::Unknown(format!("{addr}: {message}")),
        }
    }
}

impl From<PeerStatus> for StatusReply {
    fn from(status: PeerStatus) -> Self {
        Self {
            server: Some(status.server.into()),
            cluster_id: status.cluster_id,
            term: status.term,
            leader: status.leader.map(Into::into),
            last_log_index: status.last_log_index,
            applied_index: status.applied_index,
            checksum: status.checksum,
            checksum_index: status.checksum_index,
            version: status.version,
            zk_addr: status.zk.plain.unwrap_or_default(),
            zk_tls_addr: status.zk.tls.unwrap_or_default(),
        }
    }
}

impl TryFrom<StatusReply> for PeerStatus {
    type Error = NameError;

    fn try_from(reply: StatusReply) -> Result<Self, NameError> {
        let server = reply.server.map(Server::try_from).ok_or(NameError::Empty)??;
        Ok(Self {
            server,
            cluster_id: reply.cluster_id,
            term: reply.term,
            leader: reply.leader.map(Server::try_from).transpose()?,
            last_log_index: reply.last_log_index,
            applied_index: reply.applied_index,
            checksum: reply.checksum,
            checksum_index: reply.checksum_index,
            version: reply.version,
            zk: ZkAddrs {
                plain: Some(reply.zk_addr).filter(|addr| !addr.is_empty()),
                tls: Some(reply.zk_tls_addr).filter(|addr| !addr.is_empty()),
            },
        })
    }
}
