//! What agents measured last, and when they were heard: in the leader's memory alone. Any server
//! answers by asking the leader.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tonic::transport::Endpoint;

use super::handle::Inner;
use super::hub::Peer;
use crate::limits::USAGE_BYTES_MAX;
use crate::model::name::NodeName;
use crate::model::time::Millis;
use crate::net;
use crate::rpc::v1;
use crate::rpc::v1::agents_client::AgentsClient;

/// For the leader to answer: who reads a list of nodes shall not wait for it.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// A node is suspect from so many missed heartbeats on.
const MISSED_HEARTBEATS: u64 = 3;

/// What is known of nodes' agents beside the state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Usage {
    /// How often agents are asked to send a heartbeat.
    pub heartbeat: Millis,
    /// Those that are attached to the leader, or were not long ago.
    pub nodes: BTreeMap<NodeName, NodeInfo>,
}

/// What is known of a node's agent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeInfo {
    /// What it said of its host last; nothing before its first heartbeat.
    pub stats: Option<v1::NodeStats>,
    /// How long ago it was last heard.
    pub silent: Millis,
    /// Whether its stream is open.
    pub connected: bool,
}

impl Usage {
    /// Whether a node has missed so many heartbeats that it may be lost soon.
    pub fn is_suspect(&self, info: &NodeInfo) -> bool {
        info.silent.0 > self.heartbeat.0.saturating_mul(MISSED_HEARTBEATS)
    }
}

impl From<Usage> for v1::UsageReply {
    fn from(usage: Usage) -> Self {
        let nodes = usage.nodes.into_iter().map(|(node, info)| v1::NodeUsage {
            node: node.to_string(),
            stats: info.stats,
            silent_millis: info.silent.0,
            connected: info.connected,
        });
        let heartbeat_millis = u32::try_from(usage.heartbeat.0).unwrap_or(u32::MAX);
        Self { heartbeat_millis, nodes: nodes.collect() }
    }
}

impl From<v1::UsageReply> for Usage {
    fn from(reply: v1::UsageReply) -> Self {
        let node = |node: v1::NodeUsage| {
            let v1::NodeUsage { node, stats, silent_millis, connected } = node;
            Some((node.parse().ok()?, NodeInfo { stats, silent: Millis(silent_millis), connected }))
        };
        Self {
            heartbeat: Millis(u64::from(reply.heartbeat_millis)),
            nodes: reply.nodes.into_iter().filter_map(node).collect(),
        }
    }
}

fn info(peer: &Peer) -> NodeInfo {
    let heard = peer.heard.borrow().clone();
    let silent = Instant::now().saturating_duration_since(heard.at);
    let silent = Millis(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX));
    NodeInfo { stats: heard.stats, silent, connected: peer.attached }
}

impl Inner {
    /// What this server knows: nothing unless it leads.
    pub(super) fn usage_here(&self, node: Option<&NodeName>) -> Usage {
        let peers = self.peers.borrow().clone();
        let nodes = match node {
            Some(node) => {
                peers.get(node).map(|peer| (node.clone(), info(peer))).into_iter().collect()
            }
            None => peers.iter().map(|(node, peer)| (node.clone(), info(peer))).collect(),
        };
        Usage { heartbeat: self.config.heartbeat, nodes }
    }

    pub(super) async fn usage(&self, node: Option<&NodeName>) -> Option<Usage> {
        let now = self.leadership.borrow().clone();
        if now.ready {
            return Some(self.usage_here(node));
        }
        let leader = now.leader.filter(|leader| leader.id != self.consensus.me().id)?;
        let request = v1::UsageRequest { node: node.map(ToString::to_string).unwrap_or_default() };
        let ask = async {
            let endpoint = Endpoint::from_shared(format!("http://{}", leader.rpc_addr)).ok()?;
            let channel = net::connected(&self.consensus.ground().net, &endpoint).await.ok()?;
            let mut client = AgentsClient::new(channel).max_decoding_message_size(USAGE_BYTES_MAX);
            Some(client.usage(request).await.ok()?.into_inner().into())
        };
        timeout(ANSWER_LIMIT, ask).await.ok().flatten()
    }
}
