//! Processes that are surely the same: a number alone may belong to another one by now.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

/// A process: its number, when it started, and in which life of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ident {
    pub(super) pid: i32,
    /// Clock ticks since the host started.
    start: u64,
    boot: String,
}

impl Ident {
    /// The process that has the number now.
    pub(super) fn of(pid: i32) -> Option<Self> {
        Some(Self { pid, start: stat(pid)?.start, boot: boot() })
    }

    /// Its number, if it is still there and is no zombie.
    pub(super) fn alive(&self) -> Option<Pid> {
        let stat = stat(self.pid)?;
        let same = stat.start == self.start && stat.state != 'Z' && boot() == self.boot;
        Pid::from_raw(self.pid).filter(|_| same)
    }
}

struct Stat {
    state: char,
    parent: i32,
    start: u64,
}

/// See proc(5): the second field is in parentheses and may hold anything.
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<_> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

fn boot() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

/// Registers a descriptor with the reactor.
///
/// # Errors
/// If the reactor can't watch it.
#[allow(
    deprecated,
    reason = "an owned descriptor keeps the promise that the newer, unsafe form asks for"
)]
pub(super) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}

/// The processes whose parent is `parent`.
pub(super) fn children(parent: i32) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent))
        .filter_map(Pid::from_raw)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_of_the_same_number() {
        let own = i32::try_from(std::process::id()).unwrap();
        let ident = Ident::of(own).unwrap();
        assert!(ident.alive().is_some());
        assert!(Ident { start: ident.start + 1, ..ident.clone() }.alive().is_none());
        assert!(Ident { boot: "another".to_owned(), ..ident }.alive().is_none());
    }
}
