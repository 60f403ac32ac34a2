//! The door to agents, as the API needs it; in life the server room is behind it.

use std::fmt;

use axum::http::StatusCode;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::error::Problem;
use crate::model::name::NodeName;
use crate::rpc::v1::SessionRequest;
use crate::server::{ServerHandle, Session, SessionError, Usage};

/// Reaches agents from any server.
pub trait Agents: Send + Sync + fmt::Debug {
    /// Opens a session (logs, exec) with the agent of the node that the request names.
    fn open_session(&self, request: SessionRequest)
    -> BoxFuture<'_, Result<Session, SessionError>>;

    /// What agents measured last and when they were heard, of one node or of all; nothing if no
    /// leader answers soon.
    fn usage<'a>(&'a self, node: Option<&'a NodeName>) -> BoxFuture<'a, Option<Usage>>;
}

impl Agents for ServerHandle {
    fn open_session(
        &self,
        request: SessionRequest,
    ) -> BoxFuture<'_, Result<Session, SessionError>> {
        ServerHandle::open_session(self, request).boxed()
    }

    fn usage<'a>(&'a self, node: Option<&'a NodeName>) -> BoxFuture<'a, Option<Usage>> {
        ServerHandle::usage(self, node).boxed()
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
