//! The door to agents, as the API needs it; in life the server room is behind it.

use std::fmt;

use axum::http::StatusCode;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::error::Problem;
use crate::model::name::NodeName;
use crate::rpc::v1::{NodeStats, SessionRequest};
use crate::server::{ServerHandle, Session, SessionError};

/// Reaches agents from any server.
pub trait Agents: Send + Sync + fmt::Debug {
    /// Opens a session (logs, exec) with the agent of the node that the request names.
    fn open_session(&self, request: SessionRequest)
    -> BoxFuture<'_, Result<Session, SessionError>>;

    /// What a node's agent measured last, if this server knows.
    fn node_stats(&self, node: &NodeName) -> Option<NodeStats>;
}

impl Agents for ServerHandle {
    fn open_session(
        &self,
        request: SessionRequest,
    ) -> BoxFuture<'_, Result<Session, SessionError>> {
        ServerHandle::open_session(self, request).boxed()
    }

    fn node_stats(&self, node: &NodeName) -> Option<NodeStats> {
        ServerHandle::node_stats(self, node)?.stats
    }
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        let detail = error.to_string();
        match error {
            SessionError::Invalid(_) => Self::invalid(detail),
            SessionError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, "not_found", detail),
            SessionError::NotConnected { .. } | SessionError::TooSlow { .. } => {
                Self::unavailable("agent_unreachable", detail)
            }
            SessionError::TooMany { .. } | SessionError::Busy => {
                Self::unavailable("too_many_streams", detail)
            }
            SessionError::Unavailable(_) => Self::unavailable("no_leader", detail),
        }
    }
}
