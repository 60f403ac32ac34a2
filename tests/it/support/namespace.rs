//! Network namespaces: hosts of their own on this machine, with wires between them. No address or
//! interface appears outside of them.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::command;

fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| format!("ip can't be run ({error}); apt-get install iproute2"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(format!(
        "ip {}: {said}; network namespaces need root (CAP_NET_ADMIN and CAP_SYS_ADMIN)",
        arguments.join(" ")
    ))
}

/// A network namespace; removed when dropped.
#[derive(Debug)]
pub struct Namespace(String);

impl Namespace {
    /// A new one, with its own loopback interface.
    #[track_caller]
    pub fn new(side: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("orch-it-{}-{count}-{side}", std::process::id());
        let namespace = Self(name);
        ip(&["netns", "add", &namespace.0]).unwrap_or_else(|error| panic!("{error}"));
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Its name, once on this machine.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// `ip ARGUMENTS` within it.
    #[track_caller]
    pub fn ip(&self, arguments: &[&str]) {
        let all = [&["-n", &self.0], arguments].concat();
        ip(&all).unwrap_or_else(|error| panic!("{error}"));
    }

    /// A command within it, ready to start.
    pub fn command(&self, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.0]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// Runs a program within it to its end.
    #[track_caller]
    pub fn call(&self, program: &str, arguments: &[&str]) {
        let done = self.command(Command::new(program).args(arguments)).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{program} {}: {said}", arguments.join(" "));
    }

    /// `orch ARGUMENTS` within it, ready to start.
    pub fn orch(&self, arguments: &[&str]) -> Command {
        self.command(&command(&[("ORCH_LOG", "info,openraft=error,sled=warn")], arguments))
    }

    /// A runtime whose threads live in it. What is spawned there connects there; what it is only
    /// made to wait for (`block_on`) does not.
    pub fn runtime(&self) -> tokio::runtime::Runtime {
        let link = Arc::new(File::open(format!("/var/run/netns/{}", self.0)).unwrap());
        let enter = move || {
            move_into_link_name_space(link.as_fd(), Some(LinkNameSpaceType::Network))
                .unwrap_or_else(|error| panic!("a thread can't enter the namespace: {error}"));
        };
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .on_thread_start(enter)
            .build()
            .unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.0]);
    }
}
