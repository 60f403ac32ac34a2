//! The command line, as a user types it.

use std::process::{Command, Stdio};

use serde_json::Value;

/// What a command left behind.
#[derive(Debug, Clone)]
pub struct Output {
    /// The words it was called with.
    pub command: String,
    /// Exit code; 128 + N after signal N.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `orch ARGUMENTS` to its end with a clean environment.
pub fn orch(arguments: &[&str]) -> Output {
    orch_with(&[], arguments, b"")
}

/// The same with environment variables and standard input.
pub fn orch_with(environment: &[(&str, &str)], arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(environment, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A child that ends without reading leaves a broken pipe: its business.
    let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), input);
    Output::of(arguments, child.wait_with_output().unwrap())
}

/// `orch ARGUMENTS` ready to start, with no settings but those given.
pub fn command(environment: &[(&str, &str)], arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_orch"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ORCH_")) {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1").envs(environment.iter().copied()).args(arguments);
    command
}

impl Output {
    /// What `orch ARGUMENTS` left behind.
    pub fn of(arguments: &[&str], done: std::process::Output) -> Self {
        let signal = std::os::unix::process::ExitStatusExt::signal(&done.status);
        Self {
            command: format!("orch {}", arguments.join(" ")),
            code: done.status.code().unwrap_or(128 + signal.unwrap_or(0)),
            stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    }

    /// Fails the test unless the command ended with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// Fails the test unless the command ended with `code`.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert!(self.code == code, "expected exit code {code}:\n{self}");
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}):\n{self}"))
    }

    /// Fails the test unless the output holds each of `parts` somewhere.
    #[track_caller]
    pub fn says(self, parts: &[&str]) -> Self {
        let all = format!("{}{}", self.stdout, self.stderr);
        for part in parts {
            assert!(all.contains(part), "expected {part:?} in:\n{self}");
        }
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "$ {}\nexit code {}", self.command, self.code)?;
        writeln!(f, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr)
    }
}
