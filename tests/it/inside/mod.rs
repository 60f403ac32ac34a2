//! Seeing inside what runs: its output, a terminal in it, its files, its ports, what it uses.

mod files;
mod logs;
mod ports;
mod terminal;
mod usage;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Cluster, LONG, command, wait_until};

/// A command that goes on; its output is gathered line by line.
struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    said: Arc<Mutex<Vec<String>>>,
}

impl Running {
    /// `orch ARGUMENTS` at a server.
    fn start(cluster: &Cluster, server: &str, arguments: &[&str]) -> Self {
        let address = format!("http://{}", cluster.api_address(server));
        let mut child = command(&[("ORCH_ADDR", &address)], arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = gather(child.stdout.take().unwrap());
        let said = gather(child.stderr.take().unwrap());
        Self { child, lines, said }
    }

    /// What it has printed.
    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// What it has said to people.
    fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// Waits until it has printed what is wanted.
    #[track_caller]
    fn wait(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        wait_until(what, LONG, || {
            let lines = self.lines();
            if wanted(&lines) {
                return Ok(lines);
            }
            let end = lines.len().saturating_sub(20);
            Err(format!("{} lines, at the end {:?}\n{}", lines.len(), &lines[end..], self.said()))
        })
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    /// Waits for its end; the exit code.
    #[track_caller]
    fn end(&mut self) -> i32 {
        wait_until("its end", LONG, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            _ => Err(format!("it runs; it said {}", self.said())),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn gather(from: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let to = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { break };
            to.lock().unwrap().push(line);
        }
    });
    lines
}
