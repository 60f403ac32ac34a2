//! The move of a job from one version to the next.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::JobId;
use super::time::Timestamp;

/// A deployment, cluster-wide and for ever: a counter of the replicated state, never used twice.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
pub struct DeploymentId(pub u64);

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self.0)
    }
}

/// A text that is no deployment id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no deployment id; one looks like d17")]
pub struct DeploymentIdError(pub String);

impl FromStr for DeploymentId {
    type Err = DeploymentIdError;
    fn from_str(text: &str) -> Result<Self, DeploymentIdError> {
        text.strip_prefix('d')
            .filter(|digits| !digits.starts_with('+'))
            .and_then(|digits| digits.parse().ok())
            .map(Self)
            .ok_or_else(|| DeploymentIdError(text.to_owned()))
    }
}

/// The move of a service or system job from one version to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Never used twice.
    pub id: DeploymentId,
    /// Whose.
    pub job: JobId,
    /// The version that comes.
    pub version: u64,
    /// The last version that was healthy, which it leaves and goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// How far it is.
    pub status: DeploymentStatus,
    /// When a canary or second set was found good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_at: Option<Timestamp>,
    /// Why it is in this status; may be empty.
    #[serde(default)]
    pub reason: String,
    /// The failed deployment that this one takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts: Option<DeploymentId>,
    /// The version's submission.
    pub started_at: Timestamp,
    /// The last change of its status.
    pub changed_at: Timestamp,
    /// The last time that a replica of the new version became ready for the first time, or that
    /// someone let it go on.
    pub progress_at: Timestamp,
}

impl Deployment {
    /// It is neither done nor given up.
    pub fn active(&self) -> bool {
        matches!(self.status, DeploymentStatus::Running | DeploymentStatus::Paused)
    }
}

/// How far a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeploymentStatus {
    /// It goes on by itself, or waits for its promotion.
    Running,
    /// Somebody held it.
    Paused,
    /// All replicas run the version and are ready.
    Successful,
    /// It did not get there.
    Failed,
    /// A newer submission took its place.
    Superseded,
}

impl DeploymentStatus {
    /// The word users know it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Successful => "successful",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}
