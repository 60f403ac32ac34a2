//! What was measured, and how the first target compares with the last.

use serde::Serialize;

use super::load::{Measured, Workload};
use super::{Facts, Options};
use crate::bench::Spread;

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The machine that asked.
    pub facts: Facts,
    /// Whom it asked.
    pub servers: Vec<ServerFacts>,
    /// One for each workload and target.
    pub rows: Vec<Row>,
    /// The first target beside the last, if there are several; one for each workload.
    pub ratios: Vec<Ratio>,
}

/// What a target says of itself.
#[derive(Debug, Clone, Serialize)]
pub struct ServerFacts {
    /// Its label.
    pub label: String,
    /// The addresses of its servers.
    pub addr: String,
    /// Its version, if a server answers `srvr`.
    pub version: Option<String>,
    /// `leader`, `follower`, `standalone` for each server, or `unknown`.
    pub modes: Vec<String>,
}

/// One workload at one target; medians of its runs.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The target's label.
    pub target: String,
    /// What was asked.
    pub workload: Workload,
    /// Connections.
    pub connections: usize,
    /// Requests on their way on each.
    pub outstanding: usize,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// Replies in a second.
    pub per_second: Spread,
    /// Microseconds from request to reply: half took less.
    pub p50_us: Spread,
    /// Microseconds from request to reply: 99 of 100 took less.
    pub p99_us: Spread,
}

/// The first target's medians by the last one's.
#[derive(Debug, Clone, Serialize)]
pub struct Ratio {
    /// What was asked.
    pub workload: Workload,
    /// Of replies in a second: above 1 the first is faster.
    pub per_second: f64,
    /// Of the time that half took less than: below 1 the first is faster.
    pub p50: f64,
    /// Of the time that 99 of 100 took less than: below 1 the first is faster.
    pub p99: f64,
}

/// The runs of one workload at one target.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    per_second: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
}

impl Runs {
    pub(super) fn add(&mut self, Measured { seconds, took_us }: Measured) {
        let at = |share: usize| took_us.get(took_us.len() * share / 100).copied();
        self.per_second.push(took_us.len() as f64 / seconds);
        self.p50_us.push(f64::from(at(50).unwrap_or_default()));
        self.p99_us.push(f64::from(at(99).unwrap_or_default()));
    }

    pub(super) fn row(self, target: &str, workload: Workload, options: &Options) -> Row {
        let (connections, outstanding) = match workload.is_alone() {
            true => (1, 1),
            false => (options.connections, options.outstanding),
        };
        Row {
            target: target.to_owned(),
            workload,
            connections,
            outstanding,
            value_bytes: options.value_bytes,
            per_second: Spread::of(self.per_second),
            p50_us: Spread::of(self.p50_us),
            p99_us: Spread::of(self.p99_us),
        }
    }
}

/// Of rows that stand together by workload, in the order of the targets.
pub(super) fn ratios(rows: &[Row]) -> Vec<Ratio> {
    let same = rows.chunk_by(|one, next| one.workload == next.workload);
    let ratio = |rows: &[Row]| match rows {
        [first, .., last] => Some(Ratio {
            workload: first.workload,
            per_second: first.per_second.median / last.per_second.median,
            p50: first.p50_us.median / last.p50_us.median,
            p99: first.p99_us.median / last.p99_us.median,
        }),
        _ => None,
    };
    same.filter_map(ratio).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_the_first_are_held_against_those_of_the_last() {
        let options = Options {
            targets: Vec::new(),
            connections: 8,
            outstanding: 32,
            value_bytes: 512,
            run: std::time::Duration::from_secs(1),
            runs: 3,
            workloads: Vec::new(),
        };
        let runs = |took_us: u32| {
            let mut runs = Runs::default();
            for seconds in [1.0, 3.0, 2.0] {
                runs.add(Measured { seconds, took_us: vec![took_us; 600] });
            }
            runs
        };
        let rows: Vec<_> = [Workload::Set, Workload::GetAlone]
            .into_iter()
            .flat_map(|workload| {
                [("a", 10), ("b", 99), ("c", 40)]
                    .map(|(label, took)| runs(took).row(label, workload, &options))
            })
            .collect();
        assert_eq!((rows[0].per_second.median, rows[0].outstanding), (300.0, 32));
        assert_eq!((rows[3].connections, rows[3].outstanding), (1, 1));
        let ratios = ratios(&rows);
        assert_eq!(ratios.len(), 2);
        assert_eq!((ratios[0].per_second, ratios[0].p50, ratios[1].p99), (1.0, 0.25, 0.25));
        assert!(super::ratios(&rows[..1]).is_empty());
    }
}
