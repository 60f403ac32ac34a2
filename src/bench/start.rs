//! How fast containers start: a running cluster with one agent beside `docker run -d` on the same
//! engine, in the same run, turn by turn.

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::Spread;
use crate::api::view::Page;
use crate::api::view::allocation::AllocationRow;

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

/// Why it could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine's client failed.
    #[error("docker {command}: {message}")]
    Docker {
        /// What it was asked.
        command: String,
        /// What it said.
        message: String,
    },
    /// The cluster's API failed.
    #[error("{0}")]
    Api(String),
    /// What should have started did not.
    #[error("{0} did not come up within {1} s")]
    Slow(String, u64),
}

const WAIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(10);
const JOB: &str = "bench-start";

/// Takes the measurements; what it started is gone afterwards.
///
/// # Errors
/// See [`StartError`].
pub async fn run(options: &Options) -> Result<Vec<Row>, StartError> {
    let bench = Bench { options, http: client()? };
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

fn client() -> Result<reqwest::Client, StartError> {
    reqwest::Client::builder()
        .tls_certs_only([])
        .build()
        .map_err(|error| StartError::Api(error.to_string()))
}

struct Bench<'o> {
    options: &'o Options,
    http: reqwest::Client,
}

impl Bench<'_> {
    async fn docker_many(&self) -> Result<f64, StartError> {
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

    async fn orch_many(&self) -> Result<f64, StartError> {
        let file = json!({
            "job": JOB,
            "replicas": self.options.containers,
            "image": self.options.image,
            "command": ["sleep", "600"],
            "stop_signal": "SIGKILL",
            "resources": { "cpu": 0.02, "memory": "8Mi" },
        });
        let begin = Instant::now();
        self.submit(&file).await?;
        self.wait_for(self.options.containers as usize, "running").await?;
        let elapsed = millis(begin);
        self.purge().await?;
        Ok(elapsed)
    }

    async fn docker_one(&self) -> Result<f64, StartError> {
        let begin = Instant::now();
        let serve = format!("mkdir /www; echo up > /www/index.html; exec {HTTPD}");
        let args = ["run", "-d", "-p", "127.0.0.1::8080", &self.options.image, "sh", "-c", &serve];
        let id = docker(&args).await?;
        let port = docker(&["port", &id, "8080"]).await?;
        let url = format!("http://{}/", port.lines().next().unwrap_or_default());
        while self.http.get(&url).send().await.is_err() {
            if begin.elapsed() > WAIT {
                return Err(StartError::Slow("docker run".to_owned(), WAIT.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
        let elapsed = millis(begin);
        remove(&[id]).await?;
        Ok(elapsed)
    }

    async fn orch_one(&self) -> Result<f64, StartError> {
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
        self.submit(&file).await?;
        self.wait_for(1, "healthy").await?;
        let elapsed = millis(begin);
        self.purge().await?;
        Ok(elapsed)
    }

    async fn submit(&self, file: &serde_json::Value) -> Result<(), StartError> {
        let url = format!("{}/v1/jobs", self.options.addr);
        self.checked(self.http.post(url).json(file)).await.map(drop)
    }

    async fn checked(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, StartError> {
        let api = |error: reqwest::Error| StartError::Api(error.to_string());
        let response = request.send().await.map_err(api)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.text().await.map_err(api)?;
        Err(StartError::Api(format!("{status}: {body}")))
    }

    /// Waits until `count` allocations have that word as state or health.
    async fn wait_for(&self, count: usize, word: &str) -> Result<(), StartError> {
        let begin = Instant::now();
        loop {
            let rows = self.rows().await?;
            let there = rows
                .iter()
                .filter(|row| row.id.is_some() && (row.state == word || row.health == word));
            if there.count() == count {
                return Ok(());
            }
            if begin.elapsed() > WAIT {
                return Err(StartError::Slow(format!("job {JOB}"), WAIT.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn rows(&self) -> Result<Vec<AllocationRow>, StartError> {
        let url =
            format!("{}/v1/allocations?job={JOB}&limit=1000&consistency=stale", self.options.addr);
        let page: Page<AllocationRow> = self
            .checked(self.http.get(url))
            .await?
            .json()
            .await
            .map_err(|error| StartError::Api(error.to_string()))?;
        Ok(page.items)
    }

    /// Stops the job and waits until nothing of it is left.
    async fn purge(&self) -> Result<(), StartError> {
        let url = format!("{}/v1/jobs/{JOB}?purge=true", self.options.addr);
        self.checked(self.http.delete(&url)).await?;
        let begin = Instant::now();
        let job = format!("{}/v1/jobs/{JOB}?consistency=stale", self.options.addr);
        loop {
            let api = |error: reqwest::Error| StartError::Api(error.to_string());
            let response = self.http.get(&job).send().await.map_err(api)?;
            if response.status() == reqwest::StatusCode::NOT_FOUND {
                return Ok(());
            }
            if begin.elapsed() > WAIT {
                return Err(StartError::Slow(format!("the end of job {JOB}"), WAIT.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

const HTTPD: &str = "httpd -f -p 8080 -h /www";

fn millis(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}

fn joined(
    done: Option<Result<Result<String, StartError>, tokio::task::JoinError>>,
) -> Result<Option<String>, StartError> {
    match done {
        None => Ok(None),
        Some(Ok(result)) => result.map(Some),
        Some(Err(error)) => Err(StartError::Api(error.to_string())),
    }
}

async fn remove(ids: &[String]) -> Result<(), StartError> {
    let mut args = vec!["rm", "-f"];
    args.extend(ids.iter().map(String::as_str));
    docker(&args).await.map(drop)
}

/// Runs the engine's client; what it printed comes back trimmed.
async fn docker(args: &[&str]) -> Result<String, StartError> {
    let failed = |message: String| StartError::Docker {
        command: args.first().copied().unwrap_or_default().to_owned(),
        message,
    };
    let output = Command::new("docker")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
