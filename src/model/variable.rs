//! Small pieces of configuration that a project keeps in the cluster.

use serde::{Deserialize, Serialize};

use super::name::ProjectName;
use super::time::Timestamp;
use crate::limits::VARIABLE_PATH_BYTES_MAX;

/// Why a text is no path of a variable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no variable path; use 1 to {VARIABLE_PATH_BYTES_MAX} bytes of letters, digits, \
     '.', '_', '-' and '/', without an empty part"
)]
pub struct VariablePathError(pub String);

/// A path: `db/host`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VariablePath(std::sync::Arc<str>);

impl VariablePath {
    /// The path's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for VariablePath {
    type Error = VariablePathError;
    fn try_from(text: String) -> Result<Self, VariablePathError> {
        let fine = text.len() <= VARIABLE_PATH_BYTES_MAX
            && text.split('/').all(|part| {
                !part.is_empty()
                    && part != "."
                    && part != ".."
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            });
        if fine { Ok(Self(text.into())) } else { Err(VariablePathError(text)) }
    }
}

impl From<VariablePath> for String {
    fn from(path: VariablePath) -> String {
        path.0.as_ref().to_owned()
    }
}

impl std::fmt::Display for VariablePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// A variable's place: project and path.
pub type VariableKey = (ProjectName, VariablePath);

/// A variable's value with its history's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// The value.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
    /// Index of the last write's event, which no other write has: what compare-and-set compares.
    pub modified_index: u64,
    /// Time of the last write.
    pub modified_at: Timestamp,
}
