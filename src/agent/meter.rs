//! What tasks use, out of their control groups of either version.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tokio::time::Instant;

use super::order::TaskKey;
use crate::limits::HEARTBEAT_ALLOCS_MAX;
use crate::rpc::v1::AllocUsage;

/// Where the kernel shows control groups.
pub(super) const ROOT: &str = "/sys/fs/cgroup";
/// What the kernel has for no limit is larger than any host's memory.
const NO_LIMIT: u64 = 1 << 60;

/// What a task has used, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Nanoseconds of all cores together, since it began.
    pub cpu: u64,
    /// Bytes, without what the kernel could drop at once.
    pub memory: u64,
    /// Bytes; 0: none.
    pub memory_limit: u64,
}

impl Sample {
    /// Of a group of version 2.
    pub(super) fn of_v2(group: &Path) -> Option<Self> {
        let cpu = field(&fs::read_to_string(group.join("cpu.stat")).ok()?, "usage_usec")?;
        let memory = number(&group.join("memory.current")).unwrap_or_default();
        let inactive = inactive(group, "inactive_file");
        let memory_limit = limit(number(&group.join("memory.max")));
        Some(Self {
            cpu: cpu.saturating_mul(1000),
            memory: memory.saturating_sub(inactive),
            memory_limit,
        })
    }

    /// Of groups of version 1.
    pub(super) fn of_v1(memory: &Path, cpuacct: &Path) -> Option<Self> {
        let cpu = number(&cpuacct.join("cpuacct.usage"))?;
        let used = number(&memory.join("memory.usage_in_bytes")).unwrap_or_default();
        let inactive = inactive(memory, "total_inactive_file");
        let memory_limit = limit(number(&memory.join("memory.limit_in_bytes")));
        Some(Self { cpu, memory: used.saturating_sub(inactive), memory_limit })
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// Pages of files that nobody has touched for a while.
fn inactive(group: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    field(&text, name).unwrap_or_default()
}

fn limit(limit: Option<u64>) -> u64 {
    limit.filter(|limit| *limit < NO_LIMIT).unwrap_or_default()
}

/// Makes rates of samples.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: BTreeMap<TaskKey, (Instant, u64)>,
}

impl Meter {
    /// What each allocation uses, from the samples of its tasks. Cores are those since the last
    /// samples; a task that has none yet counts with its memory alone.
    pub(super) fn take(&mut self, at: Instant, samples: &[(TaskKey, Sample)]) -> Vec<AllocUsage> {
        let mut allocs: BTreeMap<u64, AllocUsage> = BTreeMap::new();
        let mut unlimited = Vec::new();
        let mut next = BTreeMap::new();
        for (key, sample) in samples {
            let before = self.last.get(key).filter(|(then, cpu)| *then < at && *cpu <= sample.cpu);
            let cores = before.map_or(0.0, |(then, cpu)| {
                (sample.cpu - cpu) as f64 / at.duration_since(*then).as_nanos() as f64
            });
            next.insert(key.clone(), (at, sample.cpu));
            let id = key.alloc.0;
            let alloc =
                allocs.entry(id).or_insert(AllocUsage { alloc: id, ..AllocUsage::default() });
            alloc.cpu += cores;
            alloc.memory = alloc.memory.saturating_add(sample.memory);
            alloc.memory_limit = alloc.memory_limit.saturating_add(sample.memory_limit);
            if sample.memory_limit == 0 {
                unlimited.push(id);
            }
        }
        for id in unlimited {
            if let Some(alloc) = allocs.get_mut(&id) {
                alloc.memory_limit = 0;
            }
        }
        self.last = next;
        allocs.into_values().take(HEARTBEAT_ALLOCS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::name::AllocId;

    fn key(alloc: u64, task: &str) -> TaskKey {
        TaskKey { alloc: AllocId(alloc), task: task.parse().unwrap() }
    }

    #[test]
    fn cores_are_those_since_the_last_samples() {
        let mut meter = Meter::default();
        let begin = Instant::now();
        let sample = |cpu, memory, memory_limit| Sample { cpu, memory, memory_limit };
        let first = meter.take(begin, &[(key(1, "a"), sample(5_000_000_000, 10, 100))]);
        assert_eq!((first[0].cpu, first[0].memory, first[0].memory_limit), (0.0, 10, 100));
        let later = begin + Duration::from_secs(2);
        let second = meter.take(
            later,
            &[
                (key(1, "a"), sample(6_000_000_000, 20, 100)),
                (key(1, "b"), sample(9_000_000_000, 5, 0)),
                (key(2, "a"), sample(1, 7, 50)),
            ],
        );
        assert_eq!((second[0].cpu, second[0].memory, second[0].memory_limit), (0.5, 25, 0));
        assert_eq!((second[1].alloc, second[1].memory), (2, 7));
        // A task that began anew counts from its begin.
        let third = meter.take(later + Duration::from_secs(1), &[(key(1, "a"), sample(3, 1, 100))]);
        assert_eq!((third.len(), third[0].cpu), (1, 0.0));
    }

    #[test]
    fn groups_of_both_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("cpuacct.usage", "123\n");
        write("memory.usage_in_bytes", "1000\n");
        write("memory.limit_in_bytes", "9223372036854771712\n");
        write("memory.stat", "cache 5\ninactive_file 30\ntotal_inactive_file 400\n");
        let v1 = Sample::of_v1(dir.path(), dir.path()).unwrap();
        assert_eq!(v1, Sample { cpu: 123, memory: 600, memory_limit: 0 });
        write("cpu.stat", "usage_usec 7\nuser_usec 3\n");
        write("memory.current", "1000\n");
        write("memory.max", "4096\n");
        let v2 = Sample::of_v2(dir.path()).unwrap();
        assert_eq!(v2, Sample { cpu: 7000, memory: 970, memory_limit: 4096 });
        write("memory.max", "max\n");
        assert_eq!(Sample::of_v2(dir.path()).unwrap().memory_limit, 0);
        assert_eq!(Sample::of_v2(Path::new("/no/such")), None);
    }
}
