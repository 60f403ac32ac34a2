//! How long writes pause: clients write one after another, through reconnects, while somebody
//! else ends the leader; the longest time without an acknowledged write is the figure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::{Options, Target, ZkError};
use crate::bench::facts::Facts;
use crate::jute::{Acl, ErrorCode};
use crate::zookeeper::client::{self, Client, ClientError, Event, Events, Mode};

/// Asked for; the time without a word after which a client leaves a server is two thirds of it.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// Between tries to reach any server.
const PAUSE: Duration = Duration::from_millis(5);
/// A server that never comes back ends the measurement.
const GIVE_UP: Duration = Duration::from_secs(120);

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub struct GapReport {
    /// The machine that asked.
    pub facts: Facts,
    /// One for each target.
    pub rows: Vec<GapRow>,
}

/// What writers at one target have seen.
#[derive(Debug, Clone, Serialize)]
pub struct GapRow {
    /// The target's label.
    pub target: String,
    /// Clients that wrote, each one write after another.
    pub writers: usize,
    /// How long they wrote, in seconds.
    pub seconds: f64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Writes that were not: the connection broke, or the server refused them.
    pub failed: u64,
    /// Connections made after the first ones.
    pub reconnects: u64,
    /// Sessions that expired.
    pub expired: u64,
    /// The longest time in which no write was acknowledged to anybody, in milliseconds.
    pub gap_ms: f64,
    /// When that began, in milliseconds since the first write.
    pub gap_at_ms: f64,
    /// The longest time in which one writer had no acknowledged write, in milliseconds.
    pub writer_gap_ms: f64,
}

/// Writes at each target in turn for `options.run`.
///
/// # Errors
/// See [`ZkError`].
pub async fn gap(options: &Options, say: &dyn Fn(&str)) -> Result<GapReport, ZkError> {
    let facts = Facts::read(String::new());
    let mut rows = Vec::new();
    for target in &options.targets {
        let seconds = options.run.as_secs_f64();
        say(&format!("{}: writing for {seconds} s; end the leader meanwhile", target.label));
        rows.push(measure(target, options).await?);
    }
    Ok(GapReport { facts, rows })
}

async fn measure(target: &Target, options: &Options) -> Result<GapRow, ZkError> {
    let failed = |error| ZkError::Client { label: target.label.clone(), error };
    let top = format!("/orch-bench-{:016x}", crate::clock::random());
    let (client, _) = connect(target, 0).await.map_err(failed)?;
    client.create(&top, b"", vec![Acl::open()], Mode::Persistent).await.map_err(failed)?;
    let outcome = tokio::select! {
        row = write(target, options, &client, &top) => row,
        _ = tokio::signal::ctrl_c() => Err(ZkError::Interrupted),
    };
    let removed = remove(&client, &top, options.connections).await.map_err(failed);
    outcome.and_then(|row| removed.map(|()| row))
}

async fn write(
    target: &Target,
    options: &Options,
    client: &Client,
    top: &str,
) -> Result<GapRow, ZkError> {
    let failed = |error| ZkError::Client { label: target.label.clone(), error };
    let mut writers = Vec::new();
    for number in 0..options.connections {
        let path = format!("{top}/w{number}");
        let created = client.create(&path, b"", vec![Acl::open()], Mode::Persistent).await;
        created.map_err(failed)?;
        let (client, events) = connect(target, number).await.map_err(failed)?;
        let (target, value) = (target.clone(), vec![0x5a; options.value_bytes]);
        writers.push(Writer { target, number, client, events, path, value });
    }
    let acks = Arc::new(Acks::new());
    let until = Instant::now() + options.run;
    let mut tasks = JoinSet::new();
    for writer in writers {
        tasks.spawn(writer.write(acks.clone(), until));
    }
    while let Some(ended) = tasks.join_next().await {
        ended?.map_err(failed)?;
    }
    Ok(acks.row(target, options.connections))
}

async fn remove(client: &Client, top: &str, writers: usize) -> Result<(), ClientError> {
    let paths = (0..writers).map(|number| format!("{top}/w{number}"));
    for path in paths.chain([top.to_owned()]) {
        while let Err(error) = client.delete(&path, -1).await {
            match error {
                ClientError::Refused(ErrorCode::NoNode) => break,
                // Its connection, too, may have been to the server that has gone.
                ClientError::Lost => {}
                error => return Err(error),
            }
        }
    }
    client.clone().close().await
}

/// The client's first server is another for each `number`, so that they are spread.
async fn connect(target: &Target, number: usize) -> Result<(Client, Events), ClientError> {
    let mut ensemble = target.ensemble.clone();
    let servers = ensemble.servers.len();
    ensemble.servers.rotate_left(number % servers);
    let options = client::Options {
        timeout: SESSION_TIMEOUT,
        give_up: GIVE_UP,
        pause: PAUSE,
        ..client::Options::default()
    };
    Client::connect(&ensemble, options).await
}

/// When writes were acknowledged, to all writers together.
struct Acks {
    began: Instant,
    /// Microseconds from `began` to the latest.
    latest: AtomicU64,
    writes: AtomicU64,
    failed: AtomicU64,
    reconnects: AtomicU64,
    expired: AtomicU64,
    /// Microseconds of the longest gap, and its begin.
    longest: std::sync::Mutex<(u64, u64)>,
    longest_of_one: AtomicU64,
}

impl Acks {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            latest: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            longest: std::sync::Mutex::new((0, 0)),
            longest_of_one: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A gap has ended, for all: by a write, or by the end of the measurement.
    fn ended(&self, now: u64) {
        let before = self.latest.fetch_max(now, Ordering::Relaxed);
        let gap = now.saturating_sub(before);
        let mut longest = self.longest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if gap > longest.0 {
            *longest = (gap, before);
        }
    }

    fn row(&self, target: &Target, writers: usize) -> GapRow {
        let millis = |micros: u64| micros as f64 / 1000.0;
        let longest = *self.longest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        GapRow {
            target: target.label.clone(),
            writers,
            seconds: self.began.elapsed().as_secs_f64(),
            writes: self.writes.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            reconnects: self.reconnects.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            gap_ms: millis(longest.0),
            gap_at_ms: millis(longest.1),
            writer_gap_ms: millis(self.longest_of_one.load(Ordering::Relaxed)),
        }
    }
}

struct Writer {
    target: Target,
    number: usize,
    client: Client,
    events: Events,
    path: String,
    value: Vec<u8>,
}

impl Writer {
    async fn write(mut self, acks: Arc<Acks>, until: Instant) -> Result<(), ClientError> {
        let mut latest = acks.now();
        while Instant::now() < until {
            let written = self.client.set_data(&self.path, &self.value, -1).await;
            let now = acks.now();
            match written {
                Ok(_) => {
                    acks.writes.fetch_add(1, Ordering::Relaxed);
                    acks.ended(now);
                    let gap = now.saturating_sub(latest);
                    acks.longest_of_one.fetch_max(gap, Ordering::Relaxed);
                    latest = now;
                }
                Err(ClientError::Lost | ClientError::Refused(_)) => {
                    acks.failed.fetch_add(1, Ordering::Relaxed);
                }
                Err(ClientError::Expired) => {
                    acks.expired.fetch_add(1, Ordering::Relaxed);
                    (self.client, self.events) = connect(&self.target, self.number).await?;
                }
                Err(error) => return Err(error),
            }
            while let Some(event) = self.events.try_next() {
                if matches!(event, Event::Disconnected(_)) {
                    acks.reconnects.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        // Who waits still at the end has waited at least so long.
        let now = acks.now();
        acks.longest_of_one.fetch_max(now.saturating_sub(latest), Ordering::Relaxed);
        acks.ended(now);
        self.client.close().await.or(Ok(()))
    }
}
