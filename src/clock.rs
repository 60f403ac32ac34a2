//! The only reader of time and randomness.

use std::cell::Cell;
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

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A random number for those who can't be handed a [`Clock`]: from this thread's seed if
/// [`seed_thread`] gave it one, from the machine otherwise.
pub fn random() -> u64 {
    match SEED.get() {
        Some(state) => {
            // SplitMix64.
            let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            SEED.set(Some(state));
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
        None => SystemClock.random(),
    }
}

/// From here on [`random`] is a function of `seed` on this thread: for simulations.
pub fn seed_thread(seed: u64) {
    SEED.set(Some(seed));
}
