//! Numbers by chance, which the seed decides.

use std::time::Duration;

use orch::clock;

/// One from 0 on, below `bound`.
pub fn below(bound: u64) -> u64 {
    clock::random() % bound.max(1)
}

/// A length from `least` milliseconds on, below `most`.
pub fn between(least: u64, most: u64) -> Duration {
    Duration::from_millis(least + below(most - least))
}
