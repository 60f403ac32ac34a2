//! What a measurement was taken on: figures mean nothing without it.

use serde::Serialize;

/// The machine, and the program that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The processor's name.
    pub cpu: String,
    /// Its threads.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The engine's release; empty if none was asked.
    pub engine: String,
    /// Processes that wanted to run before it began, over the last minute: a busy machine
    /// measures its other work.
    pub load: f64,
    /// This program's release.
    pub orch: &'static str,
    /// What it was built from, if the build said so in `ORCH_COMMIT`.
    pub commit: Option<&'static str>,
    /// Whether it was built to run, not to be debugged.
    pub optimised: bool,
}

impl Facts {
    /// Of this machine, now.
    pub fn read(engine: String) -> Self {
        let file = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            cpu: value(&file("/proc/cpuinfo"), "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: kibibytes(&file("/proc/meminfo"), "MemTotal") * 1024,
            kernel: file("/proc/sys/kernel/osrelease").trim().to_owned(),
            engine,
            load: first_number(&file("/proc/loadavg")),
            orch: env!("CARGO_PKG_VERSION"),
            commit: option_env!("ORCH_COMMIT"),
            optimised: !cfg!(debug_assertions),
        }
    }

    /// In one line for people.
    pub fn line(&self) -> String {
        let build = if self.optimised { "" } else { ", debug build" };
        let commit = self.commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
        let engine = match self.engine.as_str() {
            "" => String::new(),
            engine => format!(", Docker {engine}"),
        };
        let memory = self.memory as f64 / f64::from(1 << 30);
        format!(
            "orch {}{commit}{build}{engine}; {} x {}, {memory:.1} GiB, Linux {}, load {:.1}",
            self.orch, self.cores, self.cpu, self.kernel, self.load
        )
    }
}

/// The first `KEY : VALUE` of that key.
fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.trim() == key)
        .map(|(_, value)| value.trim())
}

fn kibibytes(text: &str, key: &str) -> u64 {
    value(text, key)
        .and_then(|value| value.strip_suffix("kB"))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or_default()
}

fn first_number(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_the_kernels_files() {
        let cpu = "processor\t: 0\nmodel name\t: A Chip @ 2 GHz\nprocessor\t: 1\nmodel name\t: B\n";
        assert_eq!(value(cpu, "model name"), Some("A Chip @ 2 GHz"));
        assert_eq!(value("", "model name"), None);
        assert_eq!(
            kibibytes("MemTotal:       24680136 kB\nMemFree: 1 kB\n", "MemTotal"),
            24_680_136
        );
        assert_eq!(kibibytes("MemTotal: lots\n", "MemTotal"), 0);
        assert!((first_number("11.18 7.63 5.41 3/400 1\n") - 11.18).abs() < 1e-9);
    }

    #[test]
    fn the_line_says_what_must_be_known_of_a_figure() {
        let facts = Facts {
            cpu: "A Chip".into(),
            cores: 2,
            memory: 3 << 29,
            kernel: "6.1".into(),
            engine: "20.10.24".into(),
            load: 0.25,
            orch: "1.2.3",
            commit: Some("abc1234"),
            optimised: false,
        };
        assert_eq!(
            facts.line(),
            "orch 1.2.3 (abc1234), debug build, Docker 20.10.24; 2 x A Chip, 1.5 GiB, Linux 6.1, \
             load 0.2"
        );
    }
}
