//! A running cluster, over its REST API.

use std::time::{Duration, Instant};

use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::BenchError;
use crate::api::view::Page;
use crate::api::view::allocation::AllocationRow;
use crate::api::view::deployment::DeploymentRow;
use crate::api::view::job::SubmitReply;
use crate::api::view::node::NodeRow;

/// Between two looks at what is waited for.
pub(super) const POLL: Duration = Duration::from_millis(10);
/// The longest that anything is waited for.
pub(super) const WAIT: Duration = Duration::from_secs(300);
const REQUEST: Duration = Duration::from_secs(30);

/// A client of one server.
#[derive(Debug, Clone)]
pub(super) struct Cluster {
    addr: String,
    http: Client,
}

impl Cluster {
    /// Of the first of the addresses, as `http://127.0.0.1:7400`.
    pub(super) fn new(addrs: &str) -> Result<Self, BenchError> {
        let addr = addrs.split(',').next().unwrap_or_default().trim();
        let http = Client::builder()
            .tls_certs_only([])
            .timeout(REQUEST)
            .build()
            .map_err(BenchError::api)?;
        Ok(Self { addr: addr.trim_end_matches('/').to_owned(), http })
    }

    /// The client itself, for other addresses.
    pub(super) fn http(&self) -> &Client {
        &self.http
    }

    fn url(&self, path: &str) -> String {
        format!("{}/v1/{path}", self.addr)
    }

    async fn checked(&self, request: RequestBuilder) -> Result<Response, BenchError> {
        let response = request.send().await.map_err(BenchError::api)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.map_err(BenchError::api)?;
        Err(BenchError::Api(format!("{status}: {body}")))
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, BenchError> {
        let response = self.checked(self.http.get(self.url(path))).await?;
        response.json().await.map_err(BenchError::api)
    }

    /// Submits a job file; the job's version now.
    pub(super) async fn submit(&self, file: &Value) -> Result<u64, BenchError> {
        let response = self.checked(self.http.post(self.url("jobs")).json(file)).await?;
        let reply: SubmitReply = response.json().await.map_err(BenchError::api)?;
        Ok(reply.jobs.first().map_or(0, |job| job.version))
    }

    /// A job's placed copies; at most 1000.
    pub(super) async fn copies(&self, job: &str) -> Result<Vec<AllocationRow>, BenchError> {
        let path = format!("allocations?job={job}&limit=1000&consistency=stale");
        let mut page: Page<AllocationRow> = self.read(&path).await?;
        page.items.retain(|row| row.id.is_some());
        Ok(page.items)
    }

    /// A job's newest deployments.
    pub(super) async fn deployments(&self, job: &str) -> Result<Vec<DeploymentRow>, BenchError> {
        let path = format!("deployments?job={job}&limit=100&consistency=stale");
        let page: Page<DeploymentRow> = self.read(&path).await?;
        Ok(page.items)
    }

    /// Up to 1000 nodes.
    pub(super) async fn nodes(&self) -> Result<Vec<NodeRow>, BenchError> {
        let page: Page<NodeRow> = self.read("nodes?limit=1000").await?;
        Ok(page.items)
    }

    /// Moves work away from a node.
    pub(super) async fn drain(&self, node: &str) -> Result<(), BenchError> {
        let url = self.url(&format!("nodes/{node}/drain"));
        self.checked(self.http.post(url).json(&json!({}))).await.map(drop)
    }

    /// Lets work on a node again.
    pub(super) async fn make_eligible(&self, node: &str) -> Result<(), BenchError> {
        let url = self.url(&format!("nodes/{node}/eligibility"));
        self.checked(self.http.post(url).json(&json!({ "eligible": true }))).await.map(drop)
    }

    /// Stops a job, if it is there, and waits until nothing of it is left.
    pub(super) async fn purge(&self, job: &str) -> Result<(), BenchError> {
        let url = self.url(&format!("jobs/{job}?purge=true"));
        let response = self.http.delete(&url).send().await.map_err(BenchError::api)?;
        let status = response.status();
        if !status.is_success() && status != StatusCode::NOT_FOUND {
            let body = response.text().await.map_err(BenchError::api)?;
            return Err(BenchError::Api(format!("{status}: {body}")));
        }
        let begin = Instant::now();
        let url = self.url(&format!("jobs/{job}?consistency=stale"));
        loop {
            let response = self.http.get(&url).send().await.map_err(BenchError::api)?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(());
            }
            if begin.elapsed() > WAIT {
                return Err(BenchError::Slow(format!("the end of job {job}"), WAIT.as_secs()));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
