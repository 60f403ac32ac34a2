//! One child process, its log, and signals to it by PID.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::wait_until;

/// A running child. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("signal to {}: {error}", self.name));
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        wait_until(&what, deadline, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Everything it has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Shows the end of its log with a failed test.
    pub fn show_log(&self) {
        eprintln!("--- {} ({}) ---", self.name, self.log.display());
        let Ok(mut file) = File::open(&self.log) else { return };
        let length = file.metadata().map(|m| m.len()).unwrap_or(0);
        let mut bytes = Vec::new();
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(12 << 10)));
        let _ = file.read_to_end(&mut bytes);
        eprintln!("{}", String::from_utf8_lossy(&bytes));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process (SIGSTOP) dies of SIGKILL too.
        self.kill();
    }
}

/// Ends what the process runtime started: whatever works in or was told of a directory below
/// `path`, which is this test's own.
pub fn kill_processes_under(path: &Path) {
    let path = path.display().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        if pid == std::process::id() as i32 {
            continue;
        }
        let mentions = |file: &str| {
            std::fs::read(entry.path().join(file))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&path))
        };
        let inside = std::fs::read_link(entry.path().join("cwd"))
            .is_ok_and(|cwd| cwd.to_string_lossy().starts_with(&path));
        if (inside || mentions("environ") || mentions("cmdline"))
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Ids of the processes whose command line is exactly this, in order.
pub fn processes_with(words: &[&str]) -> Vec<u32> {
    let wanted: String = words.iter().map(|word| format!("{word}\0")).collect();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_string_lossy().parse().ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            (line == wanted.as_bytes()).then_some(pid)
        })
        .collect();
    found.sort_unstable();
    found
}
