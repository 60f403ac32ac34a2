//! Figures of different kinds in one table.

use serde::Serialize;

/// One figure, or the distribution of one.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured.
    pub what: &'static str,
    /// `s`, `ms`, `1/s`, `cores`, `MiB`, `B` or empty.
    pub unit: &'static str,
    /// The figure; the median of a distribution.
    pub value: f64,
    /// 99 of 100 are no larger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99: Option<f64>,
    /// The largest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// One figure.
pub(super) fn figure(what: &'static str, unit: &'static str, value: f64) -> Row {
    Row { what, unit, value, p99: None, max: None }
}

/// The distribution of several; zeros if there are none.
pub(super) fn distribution(what: &'static str, unit: &'static str, mut values: Vec<f64>) -> Row {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let place = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
        values.get(place).copied().unwrap_or_default()
    };
    Row { what, unit, value: at(0.5), p99: Some(at(0.99)), max: Some(at(1.0)) }
}

/// Memory of this process, in MiB.
pub(super) fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or_default() as f64 / 1024.0
}
