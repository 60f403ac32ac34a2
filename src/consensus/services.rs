//! The gRPC doors for other servers: unpack, hand in, pack.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::errors::Fatal;
use openraft::storage::Snapshot;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::{Code, Request, Response, Status, Streaming};

use super::channels::{CLUSTER, NOT_DONE, PASSED_ON, RETIRED, TO, number};
use super::core::Core;
use super::peers::{Answer, Call, CallError, JoinCall};
use super::snapshot_store::SnapshotData;
use super::succession::LeaderLine;
use super::types::{SnapshotMeta, TypeConfig, Vote};
use crate::limits::RPC_MESSAGE_BYTES_MAX;
use crate::model::server::Server;
use crate::rpc::v1::cluster_server::{Cluster, ClusterServer};
use crate::rpc::v1::raft_server::{Raft, RaftServer};
use crate::rpc::v1::{
    JoinReply, JoinRequest, ProposeReply, ProposeRequest, RaftBytes, ReadIndexReply,
    ReadIndexRequest, RemoveServerReply, RemoveServerRequest, SnapshotPiece, StatusReply,
    StatusRequest, TransferLeadershipReply, TransferLeadershipRequest,
};
use crate::state::codec;

/// The services that a server's gRPC listener must have.
#[derive(Debug, Clone)]
pub struct Services {
    /// Raft among servers.
    pub raft: RaftServer<Door>,
    /// Questions among servers.
    pub cluster: ClusterServer<Door>,
}

/// What the services hand to.
#[derive(Debug, Clone)]
pub struct Door(Arc<Core>);

impl Services {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let door = Door(core);
        Self {
            raft: RaftServer::new(door.clone())
                .max_decoding_message_size(RPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(RPC_MESSAGE_BYTES_MAX),
            cluster: ClusterServer::new(door)
                .max_decoding_message_size(RPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(RPC_MESSAGE_BYTES_MAX),
        }
    }
}

fn pack<T: Serialize>(message: &T) -> Result<RaftBytes, Status> {
    let bytes = codec::to_bytes(message).map_err(|error| Status::internal(error.to_string()))?;
    Ok(RaftBytes { payload: bytes.into() })
}

fn unpack<T: DeserializeOwned>(bytes: &RaftBytes) -> Result<T, Status> {
    codec::from_bytes(&bytes.payload).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn fatal(error: Fatal<TypeConfig>) -> Status {
    Status::unavailable(format!("this server has failed: {error}"))
}

impl Door {
    /// Whether the caller means this server and is of this cluster: addresses are reused.
    #[allow(clippy::result_large_err, reason = "tonic's type")]
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let to = number(request, TO);
        if to != 0 && to != self.0.me.id {
            let name = &self.0.me.name;
            let message = format!("another server, {name}, has this address now");
            return Err(Status::failed_precondition(message));
        }
        let (theirs, ours) = (number(request, CLUSTER), self.0.identity().cluster_id);
        if theirs != 0 && ours != 0 && theirs != ours {
            return Err(Status::failed_precondition("this is a server of another cluster"));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Raft for Door {
    async fn vote(&self, request: Request<RaftBytes>) -> Result<Response<RaftBytes>, Status> {
        self.check(&request)?;
        let answer = self.0.raft.vote(unpack(request.get_ref())?).await;
        let answer = answer.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(pack(&answer)?))
    }

    async fn pre_vote(&self, request: Request<RaftBytes>) -> Result<Response<RaftBytes>, Status> {
        self.check(&request)?;
        let answer = self.0.raft.pre_vote(unpack(request.get_ref())?).await;
        let answer = answer.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(pack(&answer)?))
    }

    type AppendStream = Pin<Box<dyn Stream<Item = Result<RaftBytes, Status>> + Send>>;

    async fn append(
        &self,
        request: Request<Streaming<RaftBytes>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.check(&request)?;
        let line = LeaderLine::new(self.0.clone());
        let messages = (request.into_inner(), line);
        let input = futures::stream::unfold(messages, |(mut messages, mut line)| async {
            match messages.message().await {
                Ok(Some(bytes)) => {
                    line.hear();
                    // What can't be read is the stream's end too.
                    unpack(&bytes).ok().map(|rpc| (rpc, (messages, line)))
                }
                Ok(None) => {
                    line.end();
                    None
                }
                Err(_) => None,
            }
        });
        let input = Box::pin(input);
        let answers = self.0.raft.stream_append(input).map(|answer| match answer {
            Ok(result) => pack(&result),
            Err(error) => Err(fatal(error)),
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<RaftBytes>, Status> {
        self.check(&request)?;
        let mut pieces = request.into_inner();
        let head = pieces.message().await?.ok_or_else(|| incomplete("it has no head"))?.head;
        let (vote, meta): (Vote, SnapshotMeta) =
            codec::from_bytes(&head).map_err(|error| incomplete(&error.to_string()))?;
        let snapshot = self.receive(&meta, pieces).await?;
        let answer = self.0.raft.install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
        Ok(Response::new(pack(&answer.map_err(fatal)?)?))
    }

    async fn transfer_leader(
        &self,
        request: Request<RaftBytes>,
    ) -> Result<Response<RaftBytes>, Status> {
        self.check(&request)?;
        let answer = self.0.raft.handle_transfer_leader(unpack(request.get_ref())?).await;
        Ok(Response::new(pack(&answer.map_err(fatal)?)?))
    }
}

fn incomplete(what: &str) -> Status {
    Status::invalid_argument(format!("the snapshot did not arrive whole: {what}"))
}

impl Door {
    /// Writes a snapshot that arrives to a file.
    async fn receive(
        &self,
        meta: &SnapshotMeta,
        mut pieces: Streaming<SnapshotPiece>,
    ) -> Result<SnapshotData, Status> {
        let disk = |error: std::io::Error| Status::internal(error.to_string());
        let (snapshots, meta) = (self.0.snapshots.clone(), meta.clone());
        let offload = self.0.ground.offload;
        let begun = offload.run(move || snapshots.begin(&meta)).await;
        let mut writer = begun.and_then(|begun| begun).map_err(disk)?;
        let (mut length, mut expected) = (0, None);
        while expected.is_none() {
            let Some(piece) = pieces.message().await? else { break };
            self.0.hear();
            length += piece.data.len() as u64;
            expected = piece.length;
            if !piece.data.is_empty() {
                let written = offload.run(move || writer.write_all(&piece.data).map(|()| writer));
                writer = written.await.and_then(|written| written).map_err(disk)?;
            }
        }
        if expected != Some(length) {
            return Err(incomplete("its end is missing"));
        }
        let finished = offload.run(move || writer.finish()).await;
        finished.and_then(|finished| finished).map_err(disk)
    }
}

fn status_of(error: CallError) -> Status {
    let (code, mark) = match &error {
        CallError::NotDone(_) => (Code::Unavailable, Some(NOT_DONE)),
        CallError::Refused(_) => (Code::FailedPrecondition, None),
        CallError::Retired(_) => (Code::PermissionDenied, Some(RETIRED)),
        CallError::Unknown(_) => (Code::Unknown, None),
    };
    let mut status = Status::new(code, error.to_string());
    if let Some(mark) = mark {
        status.metadata_mut().insert(mark, 1.into());
    }
    status
}

fn odd_answer() -> Status {
    Status::internal("the answer does not fit the question")
}

impl Door {
    async fn ask<T>(&self, request: &Request<T>, call: Call) -> Result<Answer, Status> {
        let passed_on = number(request, PASSED_ON) != 0;
        self.0.answer(call, passed_on).await.map_err(status_of)
    }
}

#[tonic::async_trait]
impl Cluster for Door {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let message = request.get_ref();
        let server = message.server.clone().map(Server::try_from);
        let server = server.ok_or_else(|| Status::invalid_argument("no server is named"))?;
        let server = server.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (cluster_id, version) = (message.cluster_id, message.version.clone());
        let call = Call::Join(JoinCall { server, cluster_id, version });
        match self.ask(&request, call).await? {
            Answer::Joined { cluster_id } => Ok(Response::new(JoinReply { cluster_id })),
            _ => Err(odd_answer()),
        }
    }

    async fn propose(
        &self,
        mut request: Request<ProposeRequest>,
    ) -> Result<Response<ProposeReply>, Status> {
        self.check(&request)?;
        let requests = std::mem::take(&mut request.get_mut().requests);
        match self.ask(&request, Call::Propose(requests)).await? {
            Answer::Proposed { index, replies } => {
                let replies: Result<Vec<_>, _> =
                    replies.iter().map(|reply| codec::to_bytes(reply).map(Into::into)).collect();
                let replies = replies.map_err(|error| Status::internal(error.to_string()))?;
                Ok(Response::new(ProposeReply { replies, index }))
            }
            _ => Err(odd_answer()),
        }
    }

    async fn read_index(
        &self,
        request: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexReply>, Status> {
        self.check(&request)?;
        match self.ask(&request, Call::ReadIndex).await? {
            Answer::ReadIndex(index) => Ok(Response::new(ReadIndexReply { index })),
            _ => Err(odd_answer()),
        }
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusReply>, Status> {
        self.check(&request)?;
        match self.ask(&request, Call::Status).await? {
            Answer::Status(status) => Ok(Response::new((*status).into())),
            _ => Err(odd_answer()),
        }
    }

    async fn remove_server(
        &self,
        request: Request<RemoveServerRequest>,
    ) -> Result<Response<RemoveServerReply>, Status> {
        let name = request.get_ref().name.clone();
        match self.ask(&request, Call::Remove { name }).await? {
            Answer::Removed => Ok(Response::new(RemoveServerReply {})),
            _ => Err(odd_answer()),
        }
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipReply>, Status> {
        let to = request.get_ref().to.clone();
        match self.ask(&request, Call::Transfer { to }).await? {
            Answer::Transferred { leader } => Ok(Response::new(TransferLeadershipReply { leader })),
            _ => Err(odd_answer()),
        }
    }
}
