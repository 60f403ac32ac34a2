//! Problem details (RFC 9457): the body of every answer that is an error.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a request was not carried out; `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// `urn:orch:problem:` and the code.
    pub r#type: String,
    /// The kind of problem, in words.
    pub title: String,
    /// The HTTP status again.
    pub status: u16,
    /// What is wrong here, and what to try.
    pub detail: String,
    /// Stable, for programs: `not_found`, `conflict`, `invalid`, `too_large`, `key_reused`,
    /// `name_taken`, `no_leader`, `outcome_unknown`, `stopping`, …
    pub code: String,
    /// Each thing wrong with a job file or a body, with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<FieldProblem>,
    /// Of an event stream that can't be resumed: the smallest index that can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_index: Option<u64>,
}

/// One thing wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldProblem {
    /// Line, counted from 1; 0 if the input has no lines.
    #[serde(default)]
    pub line: u32,
    /// Column in characters, counted from 1; 0 if the input has no lines.
    #[serde(default)]
    pub column: u32,
    /// Path of the field, as `tasks.web.ports[1]`; empty for the whole.
    #[serde(default)]
    pub field: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl From<crate::model::problem::Problem> for FieldProblem {
    fn from(problem: crate::model::problem::Problem) -> Self {
        let crate::model::problem::Problem { line, column, field, message } = problem;
        Self { line, column, field, message }
    }
}
