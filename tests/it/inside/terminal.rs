//! `orch exec`: a real terminal, on whatever host, through any server.

use std::io::{Read as _, Write as _};
use std::process::Child;
use std::sync::{Arc, Mutex};

use rustix::process::Signal;

use super::Running;
use crate::support::docker::need_image;
use crate::support::{Cluster, LONG, wait_until};

/// `orch` on a terminal.
pub(super) struct Terminal {
    child: Child,
    pty: Arc<pty_process::blocking::Pty>,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    pub(super) fn start(cluster: &Cluster, server: &str, arguments: &[&str]) -> Self {
        let (pty, far) = pty_process::blocking::open().unwrap();
        pty.resize(pty_process::Size::new(24, 80)).unwrap();
        let address = format!("http://{}", cluster.api_address(server));
        let child = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_orch"))
            .args(arguments)
            .env("ORCH_ADDR", address)
            .env("NO_COLOR", "1")
            .spawn(far)
            .unwrap();
        let pty = Arc::new(pty);
        let shown = Arc::new(Mutex::new(String::new()));
        let (from, to) = (pty.clone(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = (&*from).read(&mut bytes) {
                to.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        });
        Self { child, pty, shown }
    }

    pub(super) fn types(&self, text: &str) {
        (&*self.pty).write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is shown, and forgets what was shown before.
    #[track_caller]
    pub(super) fn shows(&self, text: &str) {
        wait_until(&format!("{text:?} on the terminal"), LONG, || {
            let mut shown = self.shown.lock().unwrap();
            match shown.find(text) {
                Some(at) => {
                    shown.drain(..at + text.len());
                    Ok(())
                }
                None => Err(format!("{shown:?}")),
            }
        });
    }

    #[track_caller]
    pub(super) fn end(&mut self) -> i32 {
        wait_until("its end", LONG, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status.code().unwrap_or(-1)),
            _ => Err(format!("it runs; it shows {:?}", self.shown.lock().unwrap())),
        })
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A leader, a server that follows, and two hosts with one copy each.
fn cluster(runtime: &str) -> (Cluster, String) {
    let mut cluster = Cluster::start(2);
    cluster.agent("n1", &["--runtime", runtime]);
    cluster.agent("n2", &["--runtime", runtime]);
    let image = match runtime {
        "docker" => format!("image: {}\n", need_image()),
        _ => String::new(),
    };
    cluster.run(&format!(
        "job: box\nreplicas: 2\n{image}command: [sh, -c, 'while :; do sleep 1; done']\n\
         stop_signal: SIGKILL\nplacement: {{ max_per_node: 1 }}\n"
    ));
    let leader = cluster.leader();
    let follower = cluster.servers().into_iter().find(|name| *name != leader).unwrap();
    (cluster, follower)
}

#[test]
fn a_shell_has_a_terminal_through_a_server_that_follows() {
    for runtime in ["docker", "process"] {
        let (cluster, follower) = cluster(runtime);
        for copy in ["box.0", "box.1"] {
            let mut shell = Terminal::start(
                &cluster,
                &follower,
                &["exec", "-it", copy, "--", "sh", "-c", "echo on $ORCH_NODE; exec sh"],
            );
            shell.shows("on n");
            shell.types("test -t 0 && test -t 1 && echo a terminal | tr a-z A-Z\n");
            shell.shows("A TERMINAL");
            shell.types("echo size $(stty size)\n");
            shell.shows("size 24 80");
            shell.pty.resize(pty_process::Size::new(33, 101)).unwrap();
            wait_until("the new size", LONG, || {
                shell.types("echo size $(stty size)\n");
                shell.shows("size ");
                shell.shows("\n");
                shell.types("echo again $(stty size)\n");
                shell.shows("again 33 101");
                Ok(())
            });
            // The key goes to what runs there, not to us; the shell survives it.
            let trap = "(trap 'echo caught | tr a-z A-Z; exit 9' INT; echo ready | tr a-z A-Z; sleep 1000)";
            shell.types(&format!("{trap}\n"));
            shell.shows("READY");
            shell.types("\x03");
            shell.shows("CAUGHT");
            shell.types("echo still here | tr a-z A-Z\n");
            shell.shows("STILL HERE");
            shell.types("exit 7\n");
            assert_eq!(shell.end(), 7, "{runtime} {copy}");
        }
    }
}

#[test]
fn an_interrupt_reaches_a_command_without_a_terminal() {
    for runtime in ["docker", "process"] {
        let (cluster, follower) = cluster(runtime);
        let script = "trap 'echo caught; exit 5' INT; echo begun; while :; do sleep 0.1; done";
        let mut trapped =
            Running::start(&cluster, &follower, &["exec", "box.0", "--", "sh", "-c", script]);
        trapped.wait("its begin", |lines| lines == ["begun"]);
        trapped.signal(Signal::INT);
        assert_eq!(trapped.end(), 5, "{runtime}: {}", trapped.said());
        assert_eq!(trapped.lines(), ["begun", "caught"]);

        // One that does not listen is left, and ended.
        let script =
            "trap '' INT; echo $$ >/tmp/orch-it-stubborn; echo begun; while :; do sleep 0.1; done";
        let mut stubborn =
            Running::start(&cluster, &follower, &["exec", "box.1", "--", "sh", "-c", script]);
        stubborn.wait("its begin", |lines| lines == ["begun"]);
        stubborn.signal(Signal::INT);
        stubborn.signal(Signal::INT);
        // Two signals of one moment may be taken for one.
        wait_until("it to leave", LONG, || match stubborn.child.try_wait() {
            Ok(Some(status)) => {
                assert_eq!(status.code(), Some(130), "{}", stubborn.said());
                Ok(())
            }
            _ => {
                stubborn.signal(Signal::INT);
                Err("it runs".to_owned())
            }
        });
        wait_until("the command's end", LONG, || {
            let there = cluster.orch(&[
                "exec",
                "box.1",
                "--",
                "sh",
                "-c",
                "kill -0 $(cat /tmp/orch-it-stubborn)",
            ]);
            if there.code == 0 { Err(there.to_string()) } else { Ok(()) }
        });
        let _ = std::fs::remove_file("/tmp/orch-it-stubborn");
    }
}
