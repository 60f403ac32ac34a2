//! Why a source can't be read.

use crate::marathon::StoredError;

/// Why a source can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It is not there, or does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// It asks who is there, or does not let them.
    #[error("{0}")]
    Refused(String),
    /// A Marathon is changing the layout of this storage, or stopped half-way.
    #[error(
        "{path} is there: a Marathon is changing the layout of its storage, or was ended in the \
         middle of that; let one of the newer version start up fully first"
    )]
    MigrationInProgress {
        /// The node that says so.
        path: String,
    },
    /// There is nothing of Marathon's.
    #[error("{0}")]
    NotMarathon(String),
    /// Something in it is not what it should be.
    #[error("{place}: {why}")]
    Malformed {
        /// Where it is in the source.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// Larger than anything that Marathon keeps.
    #[error("{place} is larger than the {most} {unit} that are read")]
    TooLarge {
        /// Where it is in the source.
        place: String,
        /// The most.
        most: u64,
        /// Of what.
        unit: &'static str,
    },
}

impl SourceError {
    pub(super) fn malformed(place: impl Into<String>, why: impl ToString) -> Self {
        Self::Malformed { place: place.into(), why: why.to_string() }
    }

    pub(super) fn stored(place: impl Into<String>, error: StoredError) -> Self {
        Self::malformed(place, error)
    }
}
