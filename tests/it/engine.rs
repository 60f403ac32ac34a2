//! The Docker engine goes and comes: the agent waits, reconnects and converges. The engine is a
//! second one, started for the test, with its own files and no network of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::support::docker::{IMAGE, docker_at, make_image};
use crate::support::{Cluster, LONG, Process, wait_until};

struct Engine {
    directory: tempfile::TempDir,
    process: Option<Process>,
}

impl Engine {
    fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("orch-engine-").tempdir().unwrap();
        let mut engine = Self { directory, process: None };
        engine.up();
        engine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("socket")
    }

    fn up(&mut self) {
        // In a network of its own: an engine told to do without a bridge removes docker0.
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--", "dockerd"])
            .args(["--bridge=none", "--iptables=false", "--ip-masq=false"])
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()));
        self.process = Some(Process::start("dockerd", &mut command, &self.path("log")));
        let socket = self.socket();
        wait_until("the second engine", LONG, || docker_at(Some(&socket), &["version"]));
    }

    fn down(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal(Signal::TERM);
        process.wait(LONG);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let socket = self.socket();
        if let Ok(ids) = docker_at(Some(&socket), &["ps", "--all", "--quiet"]) {
            for id in ids.lines() {
                let _ = docker_at(Some(&socket), &["rm", "--force", id]);
            }
        }
        // In order, so that its containerd ends with it.
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.wait(LONG);
            if std::thread::panicking() {
                process.show_log();
            }
        }
        unmount_below(self.directory.path());
    }
}

/// An engine leaves mounts in its exec root.
fn unmount_below(path: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let path = path.display().to_string();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if mount.starts_with(&path) {
            let _ = Command::new("umount").args(["--lazy", mount]).output();
        }
    }
}

#[test]
fn an_engine_that_restarts_gets_its_work_back() {
    let mut engine = Engine::start();
    let socket = engine.socket();
    make_image(Some(&socket)).unwrap();
    let mut cluster = Cluster::start(1);
    let path = socket.display().to_string();
    cluster.agent("n1", &["--runtime", "docker", "--docker-socket", &path]);
    cluster.submit(&format!(
        "job: steady\nreplicas: 2\nimage: {IMAGE}\ncommand: sleep 100000\nstop_signal: SIGKILL\n\
         resources: {{ cpu: 0.1, memory: 16Mi }}\n"
    ));
    cluster.wait_healthy("steady", 2);
    engine.down();
    wait_until("the agent to notice", LONG, || {
        let output = cluster.orch(&["node", "status", "n1"]);
        let rows = cluster.ps("steady");
        let noticed = output.code == 0
            && (!output.stdout.contains("healthy")
                || rows.iter().any(|r| r["health"] != "healthy"));
        let logged = cluster.log("n1").to_lowercase().contains("engine");
        if noticed || logged { Ok(()) } else { Err(output.to_string()) }
    });
    assert!(cluster.process("n1").runs(), "the agent ended with the engine");
    engine.up();
    wait_until("two containers to run again", LONG, || {
        let running = docker_at(Some(&socket), &["ps", "--quiet"])?;
        if running.lines().count() == 2 { Ok(()) } else { Err(running) }
    });
    cluster.wait_healthy("steady", 2);
    cluster.orch(&["stop", "steady"]).ok();
    wait_until("them to end", LONG, || {
        let running = docker_at(Some(&socket), &["ps", "--quiet"])?;
        if running.is_empty() { Ok(()) } else { Err(running) }
    });
    drop(cluster);
    drop(engine);
}
