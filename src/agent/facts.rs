//! What the agent finds out about its host.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::config::{AgentError, Config};
use crate::limits::{NODE_ATTRIBUTES_MAX, NODE_GPUS_MAX};
use crate::model::node::NodeSpec;
use crate::model::resources::Resources;
use crate::rpc::v1::NodeStats;

/// Whether the settings can be.
///
/// # Errors
/// The first that can't.
pub(super) fn check(config: &Config) -> Result<(), AgentError> {
    let bad = |text: String| Err(AgentError::Config(text));
    let (first, last) = config.port_range;
    if first == 0 || first > last {
        return bad(format!(
            "port range {first}-{last} is empty or begins with 0; write one like 20000-31999"
        ));
    }
    if config.servers.is_empty() {
        return bad("an agent needs the address of a server; name one with --join".to_owned());
    }
    if config.attributes.len() > NODE_ATTRIBUTES_MAX {
        let got = config.attributes.len();
        return bad(format!("{got} attributes are too many; the most is {NODE_ATTRIBUTES_MAX}"));
    }
    for root in &config.volume_roots {
        if !root.is_absolute() || !root.is_dir() {
            let root = root.display();
            return bad(format!("volume root {root} must be the absolute path of a directory"));
        }
    }
    Ok(())
}

/// What the agent says of its host. Runtimes are added as they answer.
pub(super) fn node_spec(config: &Config, agent_id: u64) -> NodeSpec {
    let mut attributes = attributes(config);
    attributes.extend(config.attributes.clone());
    NodeSpec {
        name: config.name.clone(),
        agent_id,
        address: config.address.clone(),
        class: config.class.clone(),
        attributes,
        resources: resources(config),
        runtimes: BTreeSet::new(),
        volume_roots: config.volume_roots.iter().map(|root| root.display().to_string()).collect(),
        port_range: config.port_range,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn attributes(config: &Config) -> BTreeMap<String, String> {
    let name = rustix::system::uname();
    let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    let mut attributes = BTreeMap::from([
        ("os".to_owned(), std::env::consts::OS.to_owned()),
        ("arch".to_owned(), std::env::consts::ARCH.to_owned()),
        ("kernel".to_owned(), text(name.release())),
        ("hostname".to_owned(), text(name.nodename())),
        ("cpus".to_owned(), cores().to_string()),
    ]);
    if config.runtime != super::config::RuntimeChoice::Docker
        && let Some(missing) = super::process::limits_missing()
    {
        tracing::warn!(missing, "processes can't be held to their limits");
        attributes.insert("process.limits".to_owned(), format!("no: {missing}"));
    }
    attributes
}

fn resources(config: &Config) -> Resources {
    let (own, overrides) = (&config.reserved, &config.resources);
    let detected = Resources {
        cpu_milli: u64::try_from(cores()).unwrap_or(1).saturating_mul(1000),
        memory: memory_info().0,
        disk: disk(&config.data_dir).map_or(0, |(total, _)| total),
        gpu: gpus(),
    };
    let offered = Resources {
        cpu_milli: overrides.cpu_milli.unwrap_or(detected.cpu_milli),
        memory: overrides.memory.unwrap_or(detected.memory),
        disk: overrides.disk.unwrap_or(detected.disk),
        gpu: overrides.gpu.unwrap_or(detected.gpu),
    };
    offered.minus(*own)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Total and available memory in bytes.
fn memory_info() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let number: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(number.saturating_mul(1024))
    };
    (of("MemTotal:").unwrap_or(0), of("MemAvailable:").unwrap_or(0))
}

/// Total and available bytes of the file system that holds `path`, or its nearest parent that
/// exists.
fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok())?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

/// NVIDIA's driver shows one device file for each.
fn gpus() -> u32 {
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let number = |name: std::ffi::OsString| -> Option<u32> {
        name.to_str()?.strip_prefix("nvidia")?.parse().ok()
    };
    let count = entries.filter_map(|entry| number(entry.file_name())).count();
    u32::try_from(count).unwrap_or(NODE_GPUS_MAX).min(NODE_GPUS_MAX)
}

/// What the host uses, measured from one heartbeat to the next.
#[derive(Debug)]
pub(super) struct Usage {
    data_dir: PathBuf,
    /// Busy and all processor time so far, in ticks.
    ticks: (u64, u64),
}

impl Usage {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), ticks: ticks() }
    }

    /// Since the last call; `cpu_used` in cores.
    pub(super) fn stats(&mut self, running: u32) -> NodeStats {
        let (total, available) = memory_info();
        let before = std::mem::replace(&mut self.ticks, ticks());
        let busy = self.ticks.0.saturating_sub(before.0) as f64;
        let all = self.ticks.1.saturating_sub(before.1) as f64;
        let (disk_total, disk_free) = disk(&self.data_dir).unwrap_or_default();
        NodeStats {
            memory_used: total.saturating_sub(available),
            disk_used: disk_total.saturating_sub(disk_free),
            cpu_used: if all > 0.0 { busy / all * cores() as f64 } else { 0.0 },
            containers_running: running,
            ..NodeStats::default()
        }
    }
}

fn ticks() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let all: u64 = fields.iter().take(8).sum();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (all.saturating_sub(idle), all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_described() {
        let config = Config::new("n1".parse().unwrap(), "/tmp".into(), vec!["s:1".to_owned()]);
        assert!(check(&config).is_ok());
        let spec = node_spec(&config, 7);
        assert!(spec.resources.cpu_milli >= 1000);
        assert!(spec.resources.memory > 0 && spec.resources.disk > 0);
        for key in ["os", "arch", "kernel", "hostname", "cpus"] {
            assert!(spec.attributes.get(key).is_some_and(|value| !value.is_empty()), "{key}");
        }
        let stats = Usage::new(Path::new("/tmp")).stats(3);
        assert!(stats.memory_used > 0 && stats.containers_running == 3);
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let mut config = Config::new("n1".parse().unwrap(), "/tmp".into(), vec!["s:1".to_owned()]);
        config.port_range = (9, 8);
        assert!(check(&config).unwrap_err().to_string().contains("9-8"));
        config.port_range = (8, 9);
        config.volume_roots = vec!["srv".into()];
        assert!(check(&config).unwrap_err().to_string().contains("srv"));
        config.volume_roots.clear();
        config.servers.clear();
        assert!(check(&config).unwrap_err().to_string().contains("--join"));
    }
}
