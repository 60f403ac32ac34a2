//! The door to agents, as the API needs it; the server room is behind it in life.

use std::fmt;

use axum::http::StatusCode;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::error::Problem;
use crate::model::name::NodeName;
use crate::rpc::v1::{NodeStats, SessionFrame, SessionRequest};

/// A session with an agent: logs or exec.
#[derive(Debug)]
pub struct AgentSession {
    /// To the agent.
    pub to: mpsc::Sender<SessionFrame>,
    /// From the agent; ends with an exit or an error.
    pub from: mpsc::Receiver<SessionFrame>,
}

/// Why there is no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AgentError {
    /// `not_found`, `refused`, `unreachable`, `failed`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Reaches agents from any server.
pub trait Agents: Send + Sync + fmt::Debug {
    /// Opens a session with the agent of the node that the request names.
    fn open_session(
        &self,
        request: SessionRequest,
    ) -> BoxFuture<'_, Result<AgentSession, AgentError>>;

    /// What a node's agent measured last, if it is connected to this server.
    fn node_stats(&self, node: &NodeName) -> Option<NodeStats>;
}

impl From<AgentError> for Problem {
    fn from(error: AgentError) -> Self {
        let (status, code) = match error.code.as_str() {
            "not_found" => (StatusCode::NOT_FOUND, "not_found"),
            "refused" => (StatusCode::CONFLICT, "agent_refused"),
            "unreachable" => (StatusCode::SERVICE_UNAVAILABLE, "agent_unreachable"),
            _ => (StatusCode::BAD_GATEWAY, "agent_failed"),
        };
        Self::new(status, code, error.message)
    }
}
