//! Limits by control groups, of both versions.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::agent::meter::{ROOT, Sample};

/// Of the scheduler, in microseconds.
const CPU_PERIOD: u64 = 100_000;

/// What a task may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Limits {
    /// Bytes.
    pub(super) memory: Option<u64>,
    /// Thousandths of a core.
    pub(super) cpu_milli: Option<u64>,
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Where this program's groups go: one place, or one for each controller.
fn parents() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if is_v2() {
        vec![root.join("orch")]
    } else {
        // Where the time is counted may be a place of its own.
        let controllers = ["memory", "cpu", "cpuacct"].map(|controller| root.join(controller));
        let there = |dir: &PathBuf| !dir.ends_with("cpuacct") || dir.exists();
        controllers.into_iter().filter(there).map(|controller| controller.join("orch")).collect()
    }
}

/// Why limits can't be held here; none if they can.
pub(in crate::agent) fn limits_missing() -> Option<String> {
    for parent in parents() {
        if let Err(error) = make(&parent) {
            return Some(format!("{}: {error}", parent.display()));
        }
    }
    None
}

fn make(dir: &Path) -> io::Result<()> {
    if is_v2() {
        // Controllers are handed down level by level.
        for above in [Some(Path::new(ROOT)), dir.parent()].into_iter().flatten() {
            let _ = fs::write(above.join("cgroup.subtree_control"), "+memory +cpu");
        }
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Makes the groups of a task, in which its use is counted, and sets its limits.
///
/// # Errors
/// If that can't be done; the text says what.
pub(super) fn prepare(name: &str, limits: Limits) -> Result<Vec<PathBuf>, String> {
    let mut groups = Vec::new();
    for parent in parents() {
        let group = parent.join(name);
        let text = |error: io::Error| format!("{}: {error}", group.display());
        make(&parent).and_then(|()| make(&group)).map_err(text)?;
        if let Some(bytes) = limits.memory
            && (is_v2() || group.starts_with(Path::new(ROOT).join("memory")))
        {
            let file = if is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
            fs::write(group.join(file), bytes.to_string()).map_err(text)?;
            // Without swap the limit is one; hosts without it have no such file.
            let _ = match is_v2() {
                true => fs::write(group.join("memory.swap.max"), "0"),
                false => fs::write(group.join("memory.memsw.limit_in_bytes"), bytes.to_string()),
            };
        }
        if let Some(milli) = limits.cpu_milli
            && (is_v2() || group.starts_with(Path::new(ROOT).join("cpu")))
        {
            let quota = (milli.saturating_mul(CPU_PERIOD) / 1000).max(1000);
            let (file, value) = match is_v2() {
                true => ("cpu.max", format!("{quota} {CPU_PERIOD}")),
                false => ("cpu.cfs_quota_us", quota.to_string()),
            };
            fs::write(group.join(file), value).map_err(text)?;
        }
        groups.push(group);
    }
    Ok(groups)
}

/// What a task has used; none if it is in no group.
pub(super) fn sample(name: &str) -> Option<Sample> {
    let root = Path::new(ROOT);
    match is_v2() {
        true => Sample::of_v2(&root.join("orch").join(name)),
        false => Sample::of_v1(
            &root.join("memory/orch").join(name),
            &root.join("cpuacct/orch").join(name),
        ),
    }
}

/// Removes the groups of a task that has ended.
pub(super) fn remove(name: &str) {
    for parent in parents() {
        let _ = fs::remove_dir(parent.join(name));
    }
}

/// Puts this process into the groups.
///
/// # Errors
/// If it can't enter one.
pub(super) fn enter(groups: &[PathBuf]) -> io::Result<()> {
    groups.iter().try_for_each(|group| fs::write(group.join("cgroup.procs"), "0"))
}

/// The groups this process is in, of the controllers that are used here.
pub(super) fn own() -> Vec<PathBuf> {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let mut controllers = controllers.split(',');
        let place = match is_v2() {
            true => controllers.all(str::is_empty).then_some(""),
            false => controllers.find(|name| ["memory", "cpu", "cpuacct"].contains(name)),
        }?;
        Some(Path::new(ROOT).join(place).join(path.trim_start_matches('/')))
    };
    text.lines().filter_map(group).collect()
}

/// Processes that were killed in the groups for want of memory.
pub(super) fn oom_kills(groups: &[PathBuf]) -> u64 {
    let files = groups
        .iter()
        .flat_map(|group| [group.join("memory.events"), group.join("memory.oom_control")]);
    let count = |file: PathBuf| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
        line.trim().parse::<u64>().ok()
    };
    files.filter_map(count).sum()
}
