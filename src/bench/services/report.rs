//! What the measurements came to.

use serde::Serialize;

use super::measure::Measured;
use crate::bench::Spread;
use crate::bench::error::BenchError;
use crate::bench::facts::Facts;

/// All measurements, and what they were taken on.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The machine.
    pub facts: Facts,
    /// In the order of [`Part`].
    pub rows: Vec<Row>,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done.
    pub what: String,
    /// Milliseconds with Swarm; absent if it was not measured.
    pub swarm_ms: Option<Spread>,
    /// Milliseconds with orch; absent if it was not measured.
    pub orch_ms: Option<Spread>,
    /// Median of orch over median of Swarm.
    pub ratio: Option<f64>,
    /// The fewest healthy replicas that Swarm was seen with meanwhile, in any of the runs.
    pub swarm_least: Option<u32>,
    /// The same of orch.
    pub orch_least: Option<u32>,
    /// Why something was not measured; may be empty.
    pub note: String,
}

/// What one side's runs came to: as many values as runs, or why there are no more.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub(super) millis: Vec<f64>,
    pub(super) least: Option<u32>,
    pub(super) stopped: Option<String>,
}

impl Runs {
    pub(super) fn take(&mut self, outcome: Result<Measured, BenchError>) -> Result<(), BenchError> {
        match outcome {
            Ok(measured) => {
                self.millis.push(measured.millis);
                self.least = match (self.least, measured.least) {
                    (Some(a), Some(b)) => Some(a.min(b)),
                    (a, b) => a.or(b),
                };
            }
            Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
            Err(error) => self.stopped = Some(error.to_string()),
        }
        Ok(())
    }

    pub(super) fn spread(&self) -> Option<Spread> {
        (self.stopped.is_none() && !self.millis.is_empty()).then(|| Spread::of(self.millis.clone()))
    }
}

pub(super) fn row(what: String, swarm: &Runs, orch: &Runs) -> Row {
    let (swarm_ms, orch_ms) = (swarm.spread(), orch.spread());
    let ratio = swarm_ms.zip(orch_ms).map(|(swarm, orch)| orch.median / swarm.median);
    let reason = |runs: &Runs, name| runs.stopped.as_ref().map(|why| format!("{name}: {why}"));
    let note = [reason(swarm, "Swarm"), reason(orch, "orch")];
    Row {
        what,
        swarm_ms,
        orch_ms,
        ratio,
        swarm_least: swarm.least,
        orch_least: orch.least,
        note: note.into_iter().flatten().collect::<Vec<_>>().join("; "),
    }
}
