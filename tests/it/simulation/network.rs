//! A network that loses, delays and cuts.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openraft::base::OptionalSend;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use orch::clock;
use orch::consensus::snapshot_store::SnapshotData;
use orch::consensus::state_machine::{SmSnapshot, StateMachine};
use orch::consensus::types::{Member, TypeConfig, Vote};
use orch::consensus::virtual_time;

pub type Raft = openraft::Raft<TypeConfig, StateMachine>;
type RpcError = RPCError<TypeConfig>;

/// The network as it is now.
#[derive(Default)]
pub struct Weather {
    /// Servers that are up.
    pub up: BTreeMap<u64, Raft>,
    /// Ways that are cut, from whom to whom.
    pub cut: BTreeSet<(u64, u64)>,
    /// Of 1000 messages, so many are lost.
    pub loss: u64,
}

/// All ways; clones are the same.
#[derive(Clone, Default)]
pub struct Network(pub Arc<Mutex<Weather>>);

/// One server's way into it.
pub struct Exit {
    pub from: u64,
    pub network: Network,
}

/// The way from one server to another.
pub struct Way {
    from: u64,
    to: u64,
    network: Network,
}

impl RaftNetworkFactory<TypeConfig> for Exit {
    type Network = Way;

    async fn new_client(&mut self, target: u64, _: &Member) -> Way {
        Way { from: self.from, to: target, network: self.network.clone() }
    }
}

fn unreachable(what: &str) -> RpcError {
    RPCError::Unreachable(Unreachable::from_string(what))
}

impl Way {
    /// One message, in one direction.
    async fn travel(&self, from: u64, to: u64) -> Result<(), RpcError> {
        let lost = {
            let weather = self.network.0.lock().unwrap();
            weather.cut.contains(&(from, to)) || clock::random() % 1000 < weather.loss
        };
        // Mostly fast, sometimes late.
        let millis = match clock::random() % 20 {
            0 => 20 + clock::random() % 200,
            _ => 1 + clock::random() % 5,
        };
        virtual_time::sleep(Duration::from_millis(millis)).await;
        if lost {
            virtual_time::sleep(Duration::from_millis(100)).await;
            return Err(unreachable("lost"));
        }
        Ok(())
    }

    /// There and back again.
    async fn ask<A, F: Future<Output = Result<A, RpcError>>>(
        &self,
        question: impl FnOnce(Raft) -> F,
    ) -> Result<A, RpcError> {
        self.travel(self.from, self.to).await?;
        let raft = self.network.0.lock().unwrap().up.get(&self.to).cloned();
        let answer = question(raft.ok_or_else(|| unreachable("down"))?).await?;
        self.travel(self.to, self.from).await?;
        Ok(answer)
    }
}

fn failed(error: impl std::fmt::Display) -> RpcError {
    unreachable(&error.to_string())
}

impl RaftNetworkV2<TypeConfig> for Way {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RpcError> {
        self.ask(|raft| async move { raft.append_entries(rpc).await.map_err(failed) }).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(|raft| async move { raft.vote(rpc).await.map_err(failed) }).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RpcError> {
        self.ask(|raft| async move { raft.pre_vote(rpc).await.map_err(failed) }).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SmSnapshot,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let answer =
            self.ask(|raft| async move {
                raft.install_full_snapshot(vote, snapshot).await.map_err(failed)
            })
            .await?;
        Ok(answer)
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RpcError> {
        self.ask(|raft| async move { raft.handle_transfer_leader(rpc).await.map_err(failed) }).await
    }
}
