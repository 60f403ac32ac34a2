//! What was measured of processes over time: as rows of a table, as small pictures, and judged.
//!
//! A quantity grows if a straight line through the second half of its curve (least squares; the
//! first half is for caches to fill) rises over that half by more than a tenth of the half's mean,
//! *and* by more than a floor of the quantity's own, *and* by more than the curve's scatter around
//! the line: what saws up and down without end is flat. No crate draws a line of blocks in less
//! than the dozen lines it takes here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Blocks of a picture.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Pictures are so many blocks wide.
const WIDTH: usize = 40;
/// What rises by less than this share of its mean is flat.
const SHARE: f64 = 0.10;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quantity {
    /// Resident memory, bytes.
    Memory,
    /// Open descriptors.
    Descriptors,
    /// Bytes of the data directory on disk.
    Disk,
    /// Index of the last entry of the log.
    LogIndex,
}

impl Quantity {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Descriptors, Self::Disk, Self::LogIndex];

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory_bytes",
            Self::Descriptors => "descriptors",
            Self::Disk => "disk_bytes",
            Self::LogIndex => "log_index",
        }
    }

    /// What may be more at the end without being growth; none: it grows by its nature.
    fn floor(self) -> Option<f64> {
        match self {
            Self::Memory => Some(f64::from(16 << 20)),
            Self::Descriptors => Some(16.0),
            // A log is cut after a snapshot, which is made at 64 MiB.
            Self::Disk => Some(f64::from(64 << 20)),
            Self::LogIndex => None,
        }
    }

    fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Memory | Self::Disk => ("MiB", f64::from(1 << 20)),
            Self::Descriptors | Self::LogIndex => ("", 1.0),
        }
    }
}

/// Curves of processes: seconds and values, in the order of time.
#[derive(Debug, Clone, Default)]
pub struct Curves {
    curves: BTreeMap<(String, Quantity), Vec<(f64, f64)>>,
}

/// A straight line through points.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Line {
    /// By how much it rises from the first point to the last.
    rise: f64,
    mean: f64,
    /// Standard deviation around it.
    scatter: f64,
}

impl Curves {
    /// Notes a value.
    pub fn note(&mut self, process: &str, quantity: Quantity, seconds: f64, value: f64) {
        self.curves.entry((process.to_owned(), quantity)).or_default().push((seconds, value));
    }

    /// Names of what grows.
    pub fn growing(&self) -> Vec<String> {
        let growing = self.curves.iter().filter(|((_, quantity), points)| grows(*quantity, points));
        growing.map(|((process, quantity), _)| format!("{process}: {}", quantity.name())).collect()
    }

    /// A table with pictures.
    pub fn table(&self) -> String {
        let mut table = format!(
            "{:<8} {:<14} {:>9} {:>9} {:>9} {:>12}  {:<8} curve from 0 to its highest\n",
            "process", "quantity", "first", "highest", "last", "rise, 2nd half", "verdict"
        );
        for ((process, quantity), points) in &self.curves {
            let (unit, per) = quantity.unit();
            let shown = |value: f64| format!("{:.1}", value / per);
            let values = || points.iter().map(|(_, value)| *value);
            let highest = values().fold(0.0, f64::max);
            let (first, last) =
                (values().next().unwrap_or(0.0), values().next_back().unwrap_or(0.0));
            let rise = line(second_half(points)).map_or(0.0, |line| line.rise);
            let verdict = match quantity.floor() {
                None => "-",
                Some(_) if grows(*quantity, points) => "GROWING",
                Some(_) => "flat",
            };
            let name = match unit {
                "" => quantity.name().to_owned(),
                unit => format!("{} {unit}", quantity.name().trim_end_matches("_bytes")),
            };
            let _ = writeln!(
                table,
                "{process:<8} {name:<14} {:>9} {:>9} {:>9} {:>14}  {verdict:<8} {}",
                shown(first),
                shown(highest),
                shown(last),
                format!("{:+.1}", rise / per),
                picture(points)
            );
        }
        table
    }
}

fn second_half(points: &[(f64, f64)]) -> &[(f64, f64)] {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return points };
    let middle = f64::midpoint(first.0, last.0);
    &points[points.partition_point(|(seconds, _)| *seconds < middle)..]
}

/// The line of least squares; none for fewer than three points.
fn line(points: &[(f64, f64)]) -> Option<Line> {
    if points.len() < 3 {
        return None;
    }
    let count = points.len() as f64;
    let mean_of = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean_of(&|point| point.0), mean_of(&|point| point.1));
    let variance = mean_of(&|point| (point.0 - x).powi(2));
    if variance == 0.0 {
        return None;
    }
    let slope = mean_of(&|point| (point.0 - x) * (point.1 - y)) / variance;
    let scatter = mean_of(&|point| (point.1 - y - slope * (point.0 - x)).powi(2)).sqrt();
    let length = points.last()?.0 - points.first()?.0;
    Some(Line { rise: slope * length, mean: y, scatter })
}

fn grows(quantity: Quantity, points: &[(f64, f64)]) -> bool {
    let (Some(floor), Some(line)) = (quantity.floor(), line(second_half(points))) else {
        return false;
    };
    line.rise > (SHARE * line.mean).max(floor).max(line.scatter)
}

fn picture(points: &[(f64, f64)]) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let highest = points.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let length = (last.0 - first.0).max(f64::MIN_POSITIVE);
    let place = |seconds: f64| ((seconds - first.0) / length * (WIDTH - 1) as f64).round() as usize;
    let mut columns = vec![(0.0, 0_u32); WIDTH];
    for (seconds, value) in points {
        let column = &mut columns[place(*seconds).min(WIDTH - 1)];
        *column = (column.0 + value, column.1 + 1);
    }
    let block = |(sum, count): (f64, u32)| match count {
        0 => ' ',
        count => {
            let share = sum / f64::from(count) / highest;
            BLOCKS[((share * 8.0).ceil() as usize).clamp(1, 8) - 1]
        }
    };
    columns.into_iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: f64 = (1 << 20) as f64;

    fn curve(value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        (0..400).map(|at| (f64::from(at) * 5.0, value(f64::from(at)))).collect()
    }

    #[test]
    fn a_leak_grows_and_a_cache_that_fills_does_not() {
        let grows = |points: &[(f64, f64)]| grows(Quantity::Memory, points);
        assert!(grows(&curve(|at| (80.0 + at / 5.0) * MIB)), "80 to 160 MiB");
        assert!(!grows(&curve(|at| (80.0 + at / 100.0) * MIB)), "4 MiB in all");
        assert!(!grows(&curve(|at| (80.0 + at.min(150.0)) * MIB)), "until it is full");
        assert!(!grows(&curve(|at| (80.0 + at % 50.0 * 2.0) * MIB)), "a saw");
        let leaking_saw = |at: f64| (80.0 + at % 50.0 * 2.0 + at) * MIB;
        assert!(grows(&curve(leaking_saw)), "a saw that climbs");
        assert!(!grows(&curve(|at| (500.0 - at) * MIB)), "down");
        assert!(!grows(&[(0.0, 1.0), (5.0, 900.0 * MIB)]), "too few points");
    }

    #[test]
    fn the_table_shows_what_grows() {
        let mut curves = Curves::default();
        for (seconds, value) in curve(|at| at) {
            curves.note("s1", Quantity::Descriptors, seconds, value);
            curves.note("s1", Quantity::Memory, seconds, 50.0 * MIB);
            curves.note("s1", Quantity::LogIndex, seconds, value);
        }
        assert_eq!(curves.growing(), ["s1: descriptors"]);
        let table = curves.table();
        let row = |name: &str| table.lines().find(|line| line.contains(name)).unwrap().to_owned();
        assert!(row("descriptors").contains("GROWING") && row("descriptors").contains("▁▁"));
        assert!(row("memory MiB").contains("flat") && row("memory MiB").contains("50.0"));
        assert!(row("memory MiB").ends_with(&"█".repeat(WIDTH)), "{table}");
        assert!(row("log_index").contains(" - "));
    }
}
