//! Connections to other servers, by address and purpose: a snapshot or a long batch must not hold
//! up a heartbeat.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{ConnectError, Request, Status};

use super::peers::CallError;
use crate::limits::RPC_MESSAGE_BYTES_MAX;
use crate::net::{self, SharedNet};
use crate::rpc::v1::cluster_client::ClusterClient;
use crate::rpc::v1::raft_client::RaftClient;

/// Metadata: the id of the server that the caller means.
pub(super) const TO: &str = "orch-to";
/// Metadata: the id of the caller's cluster.
pub(super) const CLUSTER: &str = "orch-cluster";
/// Metadata: a server has passed this on.
pub(super) const PASSED_ON: &str = "orch-passed-on";
/// Metadata of an error: nothing was done, and it may be asked again.
pub(super) const NOT_DONE: &str = "orch-not-done";
/// Metadata of an error: the caller was taken out of the cluster.
pub(super) const RETIRED: &str = "orch-retired";

/// A hung peer must not hold anything up for longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(4);
const WINDOW_BYTES: u32 = 8 << 20;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    Append,
    Heartbeat,
    Snapshot,
    Control,
}

/// The connections of one server; clones are the same ones.
#[derive(Debug, Clone)]
pub(super) struct Channels {
    net: SharedNet,
    known: Arc<Mutex<BTreeMap<(String, Line), Channel>>>,
}

impl Channels {
    pub(super) fn new(net: SharedNet) -> Self {
        Self { net, known: Arc::default() }
    }

    /// Connects when it is first used, and again whenever that is needed.
    fn channel(&self, addr: &str, line: Line) -> Result<Channel, CallError> {
        let mut channels = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (addr.to_owned(), line);
        if let Some(channel) = channels.get(&key) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{addr}"))
            .map_err(|error| CallError::Refused(format!("{addr:?} is no address: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
        let channel = net::channel(&self.net, &endpoint);
        channels.insert(key, channel.clone());
        Ok(channel)
    }

    pub(super) fn raft(&self, addr: &str, line: Line) -> Result<RaftClient<Channel>, CallError> {
        let client = RaftClient::new(self.channel(addr, line)?);
        Ok(client
            .max_decoding_message_size(RPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(RPC_MESSAGE_BYTES_MAX))
    }

    pub(super) fn cluster(&self, addr: &str) -> Result<ClusterClient<Channel>, CallError> {
        let client = ClusterClient::new(self.channel(addr, Line::Control)?);
        Ok(client
            .max_decoding_message_size(RPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(RPC_MESSAGE_BYTES_MAX))
    }
}

/// A request that says whom it means and where it comes from.
pub(super) fn addressed<T>(message: T, to: u64, cluster: u64) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(TO, to.into());
    request.metadata_mut().insert(CLUSTER, cluster.into());
    request
}

/// Whether the connection itself failed, so that nothing was sent.
pub(super) fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// A number from a request's metadata; 0 if it says none.
pub(super) fn number<T>(request: &Request<T>, name: &str) -> u64 {
    let value = request.metadata().get(name).and_then(|value| value.to_str().ok());
    value.and_then(|text| text.parse().ok()).unwrap_or(0)
}
