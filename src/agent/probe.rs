//! Health checks: asks a task again and again how it is, and tells what becomes different.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::converge;
use super::keeper::Event;
use super::order::TaskKey;
use super::runtime::{ExecOrder, Runtime};
use crate::model::allocation::Health;
use crate::model::job::{HealthCheck, Probe};
use crate::model::name::PortName;
use crate::model::time::Millis;

/// Between checks until the first one passes, if the interval is longer: what comes up is seen
/// soon. Grows to the interval, so that what never comes up is not asked in haste for ever.
const FIRST_PAUSE: Millis = Millis(50);
/// Bytes of a status line that is waited for.
const STATUS_LINE_MAX: usize = 64;

/// What is checked.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) key: TaskKey,
    /// Its run: what is said of an earlier one is void.
    pub(super) run: u64,
    pub(super) handle: String,
    /// Host ports by name.
    pub(super) ports: BTreeMap<PortName, u16>,
    /// Where they are published.
    pub(super) bind_address: IpAddr,
    pub(super) runtime: Option<Arc<dyn Runtime>>,
    /// How long it has run already.
    pub(super) running_for: Millis,
}

/// When to check, and what the results come to. Pure.
#[derive(Debug)]
pub(super) struct Schedule {
    check: HealthCheck,
    /// Since the task's start.
    now: Millis,
    pause: Millis,
    passed: bool,
    failures: u32,
    /// Checks in haste don't count each: a failure counts from then on.
    counts_from: Millis,
    said: Option<Health>,
}

impl Schedule {
    /// For a task that has run for `running_for`.
    pub(super) fn new(check: HealthCheck, running_for: Millis) -> Self {
        let pause = FIRST_PAUSE.min(check.interval);
        let counts_from =
            Millis(running_for.max(check.start_period).0.saturating_add(check.interval.0));
        Self { check, now: running_for, pause, passed: false, failures: 0, counts_from, said: None }
    }

    /// Takes a result in, `took` after the end of the pause before it; says what is to be told
    /// if it is new, and how long to wait before the next check.
    pub(super) fn result(&mut self, took: Millis, passed: bool) -> (Option<Health>, Millis) {
        self.now = Millis(self.now.0.saturating_add(took.0));
        let health = if passed {
            self.passed = true;
            self.failures = 0;
            Some(Health::Healthy)
        } else {
            if self.passed || self.now >= self.counts_from {
                self.failures += 1;
                self.counts_from = Millis(self.now.0.saturating_add(self.check.interval.0));
            }
            (self.failures >= self.check.retries.max(1)).then_some(Health::Unhealthy)
        };
        let said = health.filter(|health| self.said != Some(*health));
        if said.is_some() {
            self.said = said;
        }
        let pause = if self.passed { self.check.interval } else { self.pause };
        self.pause = Millis((self.pause.0 * 5).div_ceil(4)).min(self.check.interval);
        self.now = Millis(self.now.0.saturating_add(pause.0));
        (said, pause)
    }
}

/// Checks until it is dropped; one check at a time.
pub(super) async fn watch(target: Target, check: HealthCheck, events: mpsc::Sender<Event>) {
    let mut schedule = Schedule::new(check.clone(), target.running_for);
    let limit = check.timeout.as_duration();
    loop {
        let began = tokio::time::Instant::now();
        let outcome = match tokio::time::timeout(limit, ask(&target, &check.probe)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {}", check.timeout)),
        };
        let took = Millis(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX));
        let (said, pause) = schedule.result(took, outcome.is_ok());
        if let Some(health) = said {
            let message = outcome.err().unwrap_or_default();
            let (key, run) = (target.key.clone(), target.run);
            let event = converge::Event::Health { key, run, health, message };
            if events.send(Event::Work(event)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(pause.as_duration()).await;
    }
}

async fn ask(target: &Target, probe: &Probe) -> Result<(), String> {
    match probe {
        Probe::Http { path, port } => {
            let address = address(target, port)?;
            let status = http_status(address, path)
                .await
                .map_err(|error| format!("GET {path} on port {}: {error}", address.port()))?;
            match status {
                200..=399 => Ok(()),
                status => Err(format!("GET {path} answered {status}")),
            }
        }
        Probe::Tcp { port } => {
            let address = address(target, port)?;
            match TcpStream::connect(address).await {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("port {}: {error}", address.port())),
            }
        }
        Probe::Command { command } => run(target, command).await,
    }
}

fn address(target: &Target, port: &PortName) -> Result<SocketAddr, String> {
    let number = target.ports.get(port).ok_or_else(|| format!("there is no port {port}"))?;
    let ip = match target.bind_address {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, *number))
}

/// The status of a GET. Only the status line is read: a check must stay cheap however much the
/// page holds.
async fn http_status(address: SocketAddr, path: &str) -> Result<u16, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let request = format!(
        "GET {slash}{path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: orch\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut line = Vec::with_capacity(STATUS_LINE_MAX);
    while !line.contains(&b'\n') && line.len() < STATUS_LINE_MAX {
        let mut piece = [0; STATUS_LINE_MAX];
        let read = stream.read(&mut piece).await.map_err(|error| error.to_string())?;
        if read == 0 {
            break;
        }
        line.extend_from_slice(&piece[..read]);
    }
    let text = String::from_utf8_lossy(&line);
    let mut words = text.split_whitespace();
    match (words.next(), words.next().and_then(|status| status.parse().ok())) {
        (Some(version), Some(status)) if version.starts_with("HTTP/") => Ok(status),
        (None, _) => Err("the connection was closed without an answer".to_owned()),
        _ => Err("the answer is not HTTP".to_owned()),
    }
}

async fn run(target: &Target, command: &[String]) -> Result<(), String> {
    let runtime = target.runtime.as_ref().ok_or("its runtime does not answer")?;
    let order = ExecOrder { command: command.to_vec(), ..ExecOrder::default() };
    // Held to the end: dropping it would end the command.
    let (_input, input_end) = mpsc::channel(1);
    let (output, mut lines) = mpsc::channel(8);
    let drain = async { while lines.recv().await.is_some() {} };
    let run = runtime.exec(&target.key, &target.handle, order, input_end, output);
    let (code, ()) = futures::future::join(run, drain).await;
    match code {
        Ok(0) => Ok(()),
        Ok(code) => Err(format!("{} ended with exit code {code}", command.join(" "))),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(interval: u64, retries: u32, start_period: u64) -> HealthCheck {
        HealthCheck {
            probe: Probe::Tcp { port: "http".parse().unwrap() },
            interval: Millis(interval),
            timeout: Millis(1000),
            retries,
            start_period: Millis(start_period),
        }
    }

    #[test]
    fn what_comes_up_is_seen_soon_and_then_asked_at_its_interval() {
        let mut schedule = Schedule::new(check(5000, 3, 0), Millis(0));
        let (said, pause) = schedule.result(Millis(1), false);
        assert_eq!((said, pause), (None, Millis(50)));
        let (said, pause) = schedule.result(Millis(1), true);
        assert_eq!((said, pause), (Some(Health::Healthy), Millis(5000)));
        assert_eq!(schedule.result(Millis(1), true).0, None);
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_once() {
        let mut schedule = Schedule::new(check(100, 3, 0), Millis(0));
        schedule.result(Millis(1), true);
        assert_eq!(schedule.result(Millis(1), false).0, None);
        assert_eq!(schedule.result(Millis(1), true).0, None);
        let said: Vec<_> = (0..5).map(|_| schedule.result(Millis(1), false).0).collect();
        assert_eq!(said, [None, None, Some(Health::Unhealthy), None, None]);
        assert_eq!(schedule.result(Millis(1), true).0, Some(Health::Healthy));
    }

    #[test]
    fn what_never_comes_up_is_unhealthy_after_its_start_period_and_retries() {
        let mut schedule = Schedule::new(check(1000, 2, 3000), Millis(0));
        let mut at = 0;
        let unhealthy_at = loop {
            let (said, pause) = schedule.result(Millis(0), false);
            if said == Some(Health::Unhealthy) {
                break at;
            }
            at += pause.0;
            assert!(at < 60_000, "never unhealthy");
        };
        assert!((3000 + 1000..3000 + 4000).contains(&unhealthy_at), "{unhealthy_at}");
    }
}
