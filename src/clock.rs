//! The only reader of time and randomness.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::time::Timestamp;

/// Where time and random numbers come from: the machine in life, a seed in simulation.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Time of day.
    fn now(&self) -> Timestamp;
    /// A random number, never 0.
    fn random(&self) -> u64;
}

/// A clock that rooms share.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// For sharing.
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    #[allow(clippy::disallowed_methods, reason = "this is the place")]
    fn random(&self) -> u64 {
        rand::random::<u64>().max(1)
    }
}

/// Nanoseconds since 1970, for the lines of a log. Nothing is decided by it.
#[allow(clippy::disallowed_methods, reason = "this is the place")]
pub fn wall_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
