//! Raft's messages over gRPC: appends in one pipelined stream, heartbeats and snapshots on
//! connections of their own.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use openraft::base::{BoxFuture, BoxStream, OptionalSend};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Status;

use super::channels::{Channels, Line, addressed};
use super::peers::CallError;
use super::snapshot_store::{SnapshotBody, SnapshotData};
use super::state_machine::SmSnapshot;
use super::types::{Member, TypeConfig, Vote};
use crate::ground::Offload;
use crate::limits::SNAPSHOT_PIECE_BYTES;
use crate::rpc::v1::{RaftBytes, SnapshotPiece};
use crate::state::codec;

/// openraft's budget for an answer is as short as a heartbeat: too short for a first connection.
const SETUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes the ways to other servers.
#[derive(Debug, Clone)]
pub(super) struct Transport {
    pub(super) channels: Channels,
    /// Of this server's cluster, once it knows.
    pub(super) cluster_id: Arc<AtomicU64>,
    pub(super) offload: Offload,
}

/// The way to one server, for one purpose.
#[derive(Debug)]
pub(super) struct Way {
    transport: Transport,
    target: u64,
    addr: String,
    line: Line,
}

impl RaftNetworkFactory<TypeConfig> for Transport {
    type Network = Way;

    async fn new_client(&mut self, target: u64, node: &Member) -> Way {
        self.way(target, node, Line::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Way {
        self.way(target, node, Line::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Way {
        self.way(target, node, Line::Snapshot)
    }
}

impl Transport {
    fn way(&self, target: u64, node: &Member, line: Line) -> Way {
        Way { transport: self.clone(), target, addr: node.rpc_addr.clone(), line }
    }
}

type RpcError = RPCError<TypeConfig>;

fn unreachable(what: impl ToString) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(what))
}

fn failed(status: &Status) -> RpcError {
    // Either way it is tried again; after this one, with growing pauses.
    unreachable(status)
}

fn encode<T: Serialize>(message: &T) -> Result<RaftBytes, RpcError> {
    let bytes =
        codec::to_bytes(message).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
    Ok(RaftBytes { payload: bytes.into() })
}

fn decode<T: DeserializeOwned>(bytes: &RaftBytes) -> Result<T, RpcError> {
    codec::from_bytes(&bytes.payload).map_err(|error| RPCError::Network(NetworkError::new(&error)))
}

impl From<CallError> for RpcError {
    fn from(error: CallError) -> Self {
        unreachable(error)
    }
}

impl Way {
    fn addressed<T>(&self, message: T) -> tonic::Request<T> {
        addressed(message, self.target, self.transport.cluster_id.load(Ordering::Relaxed))
    }

    fn client(
        &self,
        line: Line,
    ) -> Result<crate::rpc::v1::raft_client::RaftClient<tonic::transport::Channel>, RpcError> {
        Ok(self.transport.channels.raft(&self.addr, line)?)
    }

    fn request<T: Serialize>(
        &self,
        message: &T,
        option: &RPCOption,
    ) -> Result<tonic::Request<RaftBytes>, RpcError> {
        let mut request = self.addressed(encode(message)?);
        request.set_timeout(option.hard_ttl().max(SETUP_TIMEOUT));
        Ok(request)
    }
}

impl RaftNetworkV2<TypeConfig> for Way {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        let input = futures::stream::iter([rpc]);
        let mut answers = RaftNetworkV2::stream_append(self, input, option).await?;
        match answers.next().await {
            Some(Ok(result)) => Ok(AppendEntriesResponse::from(result)),
            Some(Err(error)) => Err(error),
            None => Err(unreachable("the stream ended")),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RpcError>>, RpcError>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            // openraft's pause after a failure is within its stream: without a look there first, a
            // server that is down would be asked again as fast as it can be found out.
            let mut input = input;
            let Some(first) = input.next().await else {
                let nothing: BoxStream<'s, _> = Box::pin(futures::stream::empty());
                return Ok(nothing);
            };
            let input = futures::stream::iter([first]).chain(input);
            let mut client = self.client(self.line)?;
            // What can't be encoded ends the stream, and is seen as no progress.
            let messages = input.map(|rpc| encode(&rpc)).take_while(|message| {
                let fine = message.is_ok();
                async move { fine }
            });
            let request = self.addressed(messages.filter_map(|message| async { message.ok() }));
            let answers = tokio::time::timeout(SETUP_TIMEOUT, client.append(request))
                .await
                .map_err(|_| unreachable("no answer in time"))?
                .map_err(|status| failed(&status))?
                .into_inner();
            let answers = answers.map(|answer| match answer {
                Ok(bytes) => decode::<Result<_, StreamAppendError<TypeConfig>>>(&bytes),
                Err(status) => Err(failed(&status)),
            });
            let answers: BoxStream<'s, _> = Box::pin(answers);
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let request = self.request(&rpc, &option)?;
        let answer = self.client(Line::Control)?.vote(request).await;
        decode(&answer.map_err(|status| failed(&status))?.into_inner())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        let request = self.request(&rpc, &option)?;
        let answer = self.client(Line::Control)?.pre_vote(request).await;
        decode(&answer.map_err(|status| failed(&status))?.into_inner())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SmSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let network = |error: &dyn std::fmt::Display| {
            StreamingError::Unreachable(Unreachable::from_string(error))
        };
        let head = codec::to_bytes(&(vote, &snapshot.meta)).map_err(|error| network(&error))?;
        let data = snapshot.snapshot;
        let body = self.transport.offload.run(move || data.body()).await;
        let body = body.and_then(|body| body).map_err(|error| network(&error))?;
        let first = SnapshotPiece { head: head.into(), ..SnapshotPiece::default() };
        let first = futures::stream::once(std::future::ready(first));
        let mut client = self.client(self.line).map_err(|error| network(&error))?;
        let request = self.addressed(first.chain(pieces(self.transport.offload, body)));
        let answer = tokio::select! {
            biased;
            closed = cancel => {
                return Err(StreamingError::Closed(closed));
            }
            answer = client.snapshot(request) => answer,
        };
        let answer = answer.map_err(|status| network(&status))?.into_inner();
        codec::from_bytes(&answer.payload).map_err(|error| network(&error))
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        let request = self.request(&rpc, &option)?;
        let answer = self.client(Line::Control)?.transfer_leader(request).await;
        decode(&answer.map_err(|status| failed(&status))?.into_inner())
    }
}

/// A snapshot's bytes, and at last how many they were. Where it can't be read to its end the last
/// piece is missing, which the receiver sees.
fn pieces(
    offload: Offload,
    body: SnapshotBody,
) -> impl Stream<Item = SnapshotPiece> + Send + 'static {
    futures::stream::unfold(Some((body, 0)), move |rest| async move {
        let (mut body, length) = rest?;
        let read = offload.run(move || {
            let mut data = Vec::with_capacity(SNAPSHOT_PIECE_BYTES);
            body.by_ref().take(SNAPSHOT_PIECE_BYTES as u64).read_to_end(&mut data)?;
            Ok::<_, std::io::Error>((body, data))
        });
        match read.await.and_then(|read| read) {
            Ok((_, data)) if data.is_empty() => {
                let last = SnapshotPiece { length: Some(length), ..SnapshotPiece::default() };
                Some((last, None))
            }
            Ok((body, data)) => {
                let rest = Some((body, length + data.len() as u64));
                Some((SnapshotPiece { data: data.into(), ..SnapshotPiece::default() }, rest))
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot could not be read to its end");
                None
            }
        }
    })
}
