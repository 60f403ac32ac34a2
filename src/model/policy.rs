//! What a job asks for when things change or go wrong: restart, reschedule, update, disconnect.

use serde::{Deserialize, Serialize};

use super::time::Millis;

/// What happens on its node when a task ends that should not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPolicy {
    /// Restarts on the node before the allocation has failed and is placed anew.
    pub attempts: u32,
    /// Time over which they are counted.
    pub within: Millis,
    /// Wait before the second restart; the first has none. Doubles each time.
    pub delay_min: Millis,
    /// The longest wait.
    pub delay_max: Millis,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            attempts: 3,
            within: Millis::from_secs(300),
            delay_min: Millis::from_secs(1),
            delay_max: Millis::from_secs(30),
        }
    }
}

/// What happens when a node has given up on a replica of a service or system job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReschedulePolicy {
    /// Times that it is placed anew before it stays failed; none: without end.
    pub attempts: Option<u32>,
    /// Time over which they are counted.
    pub within: Millis,
    /// Wait before the first; doubles each time.
    pub delay_min: Millis,
    /// The longest wait.
    pub delay_max: Millis,
}

impl Default for ReschedulePolicy {
    /// Long enough to sit out the outage of something that the job depends on: about four hours.
    fn default() -> Self {
        Self {
            attempts: Some(50),
            within: Millis::from_secs(24 * 60 * 60),
            delay_min: Millis::from_secs(5),
            delay_max: Millis::from_secs(300),
        }
    }
}

/// What happens while a node and the servers don't hear each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct DisconnectPolicy {
    /// How long the allocations of a lost node keep their places before they are replaced.
    pub replace_after: Millis,
    /// How long the agent keeps them running without a server; none: without end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<Millis>,
}

/// How a new version replaces the old one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdatePolicy {
    /// In which steps.
    pub strategy: UpdateStrategy,
    /// Replicas replaced at the same time.
    pub max_parallel: u32,
    /// How long a new replica must be ready before it counts.
    pub min_healthy: Millis,
    /// Which of the two comes first; the job's nature decides if absent, see `JobSpec::order`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<UpdateOrder>,
    /// The longest time without progress before the deployment has failed.
    pub deadline: Millis,
    /// A failed deployment goes back to the last version that was healthy.
    pub auto_revert: bool,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        Self {
            strategy: UpdateStrategy::Rolling,
            max_parallel: 1,
            min_healthy: Millis(0),
            order: None,
            deadline: Millis::from_secs(300),
            auto_revert: true,
        }
    }
}

/// In which steps a new version comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateStrategy {
    /// `max_parallel` replicas at a time.
    Rolling,
    /// A few beside the old version first; once promoted, the rest as with `Rolling`.
    Canary {
        /// How many.
        count: u32,
        /// When the rest follows.
        promote: Promotion,
    },
    /// A full second set, which takes over at once when it is promoted.
    BlueGreen {
        /// When it takes over.
        promote: Promotion,
        /// How long the old set is kept running afterwards.
        keep_old: Millis,
    },
}

impl UpdateStrategy {
    /// The word users know it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Canary { .. } => "canary",
            Self::BlueGreen { .. } => "blue-green",
        }
    }

    /// When it goes on, if it waits at all.
    pub fn promotion(self) -> Option<Promotion> {
        match self {
            Self::Rolling => None,
            Self::Canary { promote, .. } | Self::BlueGreen { promote, .. } => Some(promote),
        }
    }
}

/// What makes a canary or a second set the one that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promotion {
    /// Somebody says so.
    Manual,
    /// It has been ready for that long, after `min_healthy`.
    After(Millis),
}

/// Whether a replica's successor starts before or after it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The new one is ready before the old one stops.
    StartFirst,
    /// The old one has ended before the new one starts.
    StopFirst,
}

impl UpdateOrder {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::StartFirst => "start-first",
            Self::StopFirst => "stop-first",
        }
    }
}
