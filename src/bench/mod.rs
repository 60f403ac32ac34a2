//! `orch bench`: load and scheduling benchmarks that operators can run too.
//!
//! Each returns rows; printing is the command line's part. Start at the file of the benchmark.

mod cluster;
mod engine;
pub mod error;
pub mod facts;
pub mod figures;
pub mod migrate;
pub mod nodes;
pub mod schedule;
pub mod services;
pub mod start;
pub mod store;
pub mod tree;
pub mod zk;

use std::time::Instant;

use serde::Serialize;

/// The middle one of several measurements, and their ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half were smaller.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of `values`; zeros if there are none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |i: usize| values.get(i).copied().unwrap_or_default();
        Self { median: at(values.len() / 2), min: at(0), max: at(values.len().saturating_sub(1)) }
    }
}

/// Since then, in milliseconds.
fn millis(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}
