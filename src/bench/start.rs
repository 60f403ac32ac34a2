//! How fast containers start: a running cluster with one agent beside `docker run -d` on the same
//! engine, in the same run, turn by turn.

use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use super::cluster::{Cluster, POLL, WAIT};
use super::engine::docker;
use super::error::BenchError;
use super::{Spread, millis};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// A server's REST address, as `http://127.0.0.1:7400`.
    pub addr: String,
    /// An image that the engine has, with `sh`, `sleep` and `httpd`, as busybox.
    pub image: String,
    /// Containers started at once.
    pub containers: u32,
    /// `docker run` commands at the same time.
    pub parallel: usize,
    /// Times each measurement is taken.
    pub runs: u32,
}

/// One measurement.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was done.
    pub what: String,
    /// Milliseconds with `docker run`.
    pub docker_ms: Spread,
    /// Milliseconds with orch.
    pub orch_ms: Spread,
    /// Median of orch over median of docker.
    pub ratio: f64,
}

const JOB: &str = "bench-start";

/// Takes the measurements; what it started is gone afterwards.
///
/// # Errors
/// See [`BenchError`].
pub async fn run(options: &Options) -> Result<Vec<Row>, BenchError> {
    let bench = Bench { options, cluster: Cluster::new(&options.addr)? };
    let (mut docker_many, mut orch_many) = (Vec::new(), Vec::new());
    let (mut docker_one, mut orch_one) = (Vec::new(), Vec::new());
    for _ in 0..options.runs.max(1) {
        docker_many.push(bench.docker_many().await?);
        orch_many.push(bench.orch_many().await?);
        docker_one.push(bench.docker_one().await?);
        orch_one.push(bench.orch_one().await?);
    }
    let row = |what: String, docker: Vec<f64>, orch: Vec<f64>| {
        let (docker_ms, orch_ms) = (Spread::of(docker), Spread::of(orch));
        Row { what, docker_ms, orch_ms, ratio: orch_ms.median / docker_ms.median }
    };
    let many = format!(
        "{} containers running (docker run -d, {} at a time)",
        options.containers, options.parallel
    );
    Ok(vec![
        row(many, docker_many, orch_many),
        row("one container answering HTTP".to_owned(), docker_one, orch_one),
    ])
}

struct Bench<'o> {
    options: &'o Options,
    cluster: Cluster,
}

impl Bench<'_> {
    async fn docker_many(&self) -> Result<f64, BenchError> {
        let begin = Instant::now();
        let mut running = JoinSet::new();
        let mut ids = Vec::new();
        for _ in 0..self.options.containers {
            if running.len() >= self.options.parallel.max(1) {
                ids.extend(joined(running.join_next().await)?);
            }
            let image = self.options.image.clone();
            running.spawn(async move { docker(&["run", "-d", &image, "sleep", "600"]).await });
        }
        while let Some(done) = running.join_next().await {
            ids.extend(joined(Some(done))?);
        }
        let elapsed = millis(begin);
        remove(&ids).await?;
        Ok(elapsed)
    }

    async fn orch_many(&self) -> Result<f64, BenchError> {
        let file = json!({
            "job": JOB,
            "replicas": self.options.containers,
            "image": self.options.image,
            "command": ["sleep", "600"],
            "stop_signal": "SIGKILL",
            "resources": { "cpu": 0.02, "memory": "8Mi" },
        });
        let begin = Instant::now();
        self.cluster.submit(&file).await?;
        self.wait_for(self.options.containers as usize, "running").await?;
        let elapsed = millis(begin);
        self.cluster.purge(JOB).await?;
        Ok(elapsed)
    }

    async fn docker_one(&self) -> Result<f64, BenchError> {
        let begin = Instant::now();
        let serve = format!("mkdir /www; echo up > /www/index.html; exec {HTTPD}");
        let args = ["run", "-d", "-p", "127.0.0.1::8080", &self.options.image, "sh", "-c", &serve];
        let id = docker(&args).await?;
        let port = docker(&["port", &id, "8080"]).await?;
        let url = format!("http://{}/", port.lines().next().unwrap_or_default());
        while self.cluster.http().get(&url).send().await.is_err() {
            if begin.elapsed() > WAIT {
                return Err(BenchError::Slow("docker run".to_owned(), WAIT.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
        let elapsed = millis(begin);
        remove(&[id]).await?;
        Ok(elapsed)
    }

    async fn orch_one(&self) -> Result<f64, BenchError> {
        let file = json!({
            "job": JOB,
            "replicas": 1,
            "image": self.options.image,
            "command": ["sh", "-c", format!("mkdir /www; echo up > /www/index.html; exec {HTTPD}")],
            "stop_signal": "SIGKILL",
            "ports": { "http": 8080 },
            "healthcheck": { "http": "/", "port": "http" },
        });
        let begin = Instant::now();
        self.cluster.submit(&file).await?;
        self.wait_for(1, "healthy").await?;
        let elapsed = millis(begin);
        self.cluster.purge(JOB).await?;
        Ok(elapsed)
    }

    /// Waits until `count` allocations have that word as state or health.
    async fn wait_for(&self, count: usize, word: &str) -> Result<(), BenchError> {
        let begin = Instant::now();
        loop {
            let rows = self.cluster.copies(JOB).await?;
            let there = rows.iter().filter(|row| row.state == word || row.health == word);
            if there.count() == count {
                return Ok(());
            }
            if begin.elapsed() > WAIT {
                return Err(BenchError::Slow(format!("job {JOB}"), WAIT.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

const HTTPD: &str = "httpd -f -p 8080 -h /www";

fn joined(
    done: Option<Result<Result<String, BenchError>, tokio::task::JoinError>>,
) -> Result<Option<String>, BenchError> {
    match done {
        None => Ok(None),
        Some(Ok(result)) => result.map(Some),
        Some(Err(error)) => Err(BenchError::Api(error.to_string())),
    }
}

async fn remove(ids: &[String]) -> Result<(), BenchError> {
    let mut args = vec!["rm", "-f"];
    args.extend(ids.iter().map(String::as_str));
    docker(&args).await.map(drop)
}
