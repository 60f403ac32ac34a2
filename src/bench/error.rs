//! What goes wrong when a benchmark asks a cluster or an engine.

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The engine's client or the engine failed.
    #[error("docker {command}: {message}")]
    Docker {
        /// What it was asked.
        command: String,
        /// What it said.
        message: String,
    },
    /// The cluster's API failed.
    #[error("orch: {0}")]
    Api(String),
    /// What should have happened did not.
    #[error("{0} did not happen within {1} s")]
    Slow(String, u64),
    /// There is nothing to measure it with.
    #[error("{0}")]
    Missing(String),
    /// The user has had enough.
    #[error("interrupted; what it had started is gone again")]
    Interrupted,
}

impl BenchError {
    pub(super) fn api(error: impl std::fmt::Display) -> Self {
        Self::Api(error.to_string())
    }
}
