//! Every refusal as HTTP: the one place where codes meet statuses.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::view::problem::{FieldProblem, ProblemDetails};
use crate::consensus::{ProposeError, ReadError};
use crate::state::{Rejected, RejectedCode};

/// Seconds after which a client may try again when there is no leader: an election takes less.
const RETRY_AFTER_SECS: u32 = 1;

/// An answer that is an error.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub detail: String,
    /// Each thing wrong with an input.
    pub problems: Vec<FieldProblem>,
    /// The smallest index an event stream can be resumed after.
    pub oldest_index: Option<u64>,
}

impl Problem {
    /// An error without further parts.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), problems: Vec::new(), oldest_index: None }
    }

    /// The request makes no sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail)
    }

    /// A query parameter or header is wrong.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// No such thing.
    pub fn not_found(kind: &str, name: impl std::fmt::Display) -> Self {
        Rejected::not_found(kind, name).into()
    }

    /// A bound would be exceeded.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    /// This server can't do it now.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
    }

    /// A session's error frame.
    pub fn of_agent(code: &str, message: String) -> Self {
        match code {
            "not_found" => Self::new(StatusCode::NOT_FOUND, "not_found", message),
            "refused" => Self::new(StatusCode::CONFLICT, "agent_refused", message),
            "unreachable" => Self::unavailable("agent_unreachable", message),
            _ => Self::new(StatusCode::BAD_GATEWAY, "agent_failed", message),
        }
    }

    /// A defect of the server.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// An input with these problems.
    pub fn of_input(detail: impl Into<String>, problems: Vec<FieldProblem>) -> Self {
        Self { problems, ..Self::invalid(detail) }
    }

    /// The body of the answer.
    pub fn details(&self) -> ProblemDetails {
        ProblemDetails {
            r#type: format!("urn:orch:problem:{}", self.code),
            title: title(self.code).to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            code: self.code.to_owned(),
            problems: self.problems.clone(),
            oldest_index: self.oldest_index,
        }
    }
}

/// The kind of problem in words; the same for all of its kind, as RFC 9457 asks.
fn title(code: &str) -> &'static str {
    match code {
        "not_found" => "There is no such thing",
        "conflict" => "It is not as the request expects",
        "precondition_failed" => "It has changed since it was read",
        "invalid" => "The request makes no sense",
        "bad_request" => "A parameter or header is wrong",
        "too_large" => "A bound would be exceeded",
        "key_reused" => "The Idempotency-Key was used for another request",
        "name_taken" => "The name is taken",
        "no_leader" => "The cluster has no leader now",
        "outcome_unknown" => "It is unknown whether the request was carried out",
        "stopping" => "The server is stopping",
        "events_gone" => "The events are no longer kept",
        "too_many_streams" => "Too many streams are open",
        "unknown_route" => "There is no such route",
        "method_not_allowed" => "The route has no such method",
        "unsupported_media_type" => "The body's type is not one that is read here",
        "forbidden_origin" => "A web page of another origin may not do this",
        "agent_unreachable" => "The agent can't be reached",
        "agent_refused" => "The agent refused",
        "agent_failed" => "The agent failed",
        _ => "The server failed",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.details()).unwrap_or_default();
        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))],
            body,
        )
            .into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECS));
        }
        response
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let (status, code) = match rejected.code {
            RejectedCode::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            RejectedCode::Conflict => (StatusCode::CONFLICT, "conflict"),
            RejectedCode::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            RejectedCode::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            RejectedCode::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "key_reused"),
            RejectedCode::NameTaken => (StatusCode::CONFLICT, "name_taken"),
        };
        Self::new(status, code, rejected.message)
    }
}

impl From<ProposeError> for Problem {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Rejected(rejected) => rejected.into(),
            ProposeError::NoLeader(_) => Self::unavailable("no_leader", error.to_string()),
            ProposeError::Unknown(_) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "outcome_unknown",
                format!("{error}; look before you repeat it, or repeat it with an Idempotency-Key"),
            ),
            ProposeError::TooLarge(_) => Self::too_large(error.to_string()),
            ProposeError::Stopping(_) => Self::unavailable("stopping", error.to_string()),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoLeader(_) => Self::unavailable(
                "no_leader",
                format!("{error}; ?consistency=stale reads what this server has"),
            ),
            ReadError::Stopping(_) => Self::unavailable("stopping", error.to_string()),
        }
    }
}
