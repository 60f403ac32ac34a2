//! Why a command was not carried out. Codes are stable: programs branch on them.

use serde::{Deserialize, Serialize};

/// A command was refused and changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Rejected {
    /// For programs.
    pub code: RejectedCode,
    /// For people: what is wrong and what to do.
    pub message: String,
}

/// Stable codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectedCode {
    /// No such thing.
    NotFound,
    /// It is not in the version or state that the caller expects.
    Conflict,
    /// The request makes no sense.
    Invalid,
    /// A bound would be exceeded.
    TooLarge,
    /// The same `Idempotency-Key` was used for another request.
    KeyReused,
    /// Another agent with the same node name is connected.
    NameTaken,
}

impl Rejected {
    /// A refusal with its reason.
    pub fn new(code: RejectedCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Nothing of that kind and name.
    pub fn not_found(kind: &str, name: impl std::fmt::Display) -> Self {
        Self::new(RejectedCode::NotFound, format!("there is no {kind} {name}"))
    }
}
