//! The REST API's client: servers tried in turn, writes repeated only under an Idempotency-Key.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::io::ReaderStream;

use super::failure::{Exit, Failure, root_cause};
use super::job_file::problem_lines;
use crate::api::view::Page;
use crate::api::view::problem::ProblemDetails;
use crate::clock::SharedClock;
use crate::limits::{API_BODY_BYTES_MAX, API_PAGE_ROWS_MAX};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an answer may take that is no stream. Covers a write's wait for a new leader.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a cluster without a leader is asked again.
const PATIENCE: Duration = Duration::from_secs(15);
/// Rows of all pages of a list together.
const ROWS_MAX: usize = 1_000_000;

/// A request before it is sent.
#[derive(Debug, Clone)]
pub(super) struct Call {
    method: Method,
    /// Parts of the path, not escaped.
    path: Vec<String>,
    query: Vec<(String, String)>,
    body: Body,
    /// Its answer goes on for as long as it likes.
    streams: bool,
    accept: Option<&'static str>,
    /// Carried out at most once, however often it is sent.
    key: Option<String>,
    /// The route takes no key.
    unkeyed: bool,
    /// What is asked for, to say which one there is none of.
    hint: String,
}

#[derive(Debug, Clone)]
enum Body {
    None,
    Bytes { bytes: Bytes, kind: &'static str },
    File(PathBuf),
}

impl Call {
    pub(super) fn new<'p>(method: Method, path: impl IntoIterator<Item = &'p str>) -> Self {
        Self {
            method,
            path: path.into_iter().map(str::to_owned).collect(),
            query: Vec::new(),
            body: Body::None,
            streams: false,
            accept: None,
            key: None,
            unkeyed: false,
            hint: String::new(),
        }
    }

    pub(super) fn get<'p>(path: impl IntoIterator<Item = &'p str>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Query parameters from the route's own type.
    pub(super) fn query(mut self, query: &impl Serialize) -> Self {
        self.query = pairs(query);
        self
    }

    /// A query parameter beside those of the route's type.
    pub(super) fn parameter(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn json(self, body: &impl Serialize) -> Result<Self, Failure> {
        let bytes = serde_json::to_vec(body)
            .map_err(|error| Failure::failed(format!("can't write JSON: {error}")))?;
        Ok(self.body(bytes, "application/json"))
    }

    pub(super) fn body(mut self, bytes: impl Into<Bytes>, kind: &'static str) -> Self {
        self.body = Body::Bytes { bytes: bytes.into(), kind };
        self
    }

    pub(super) fn file(mut self, path: PathBuf) -> Self {
        self.body = Body::File(path);
        self
    }

    pub(super) fn streaming(mut self, accept: &'static str) -> Self {
        self.streams = true;
        self.accept = Some(accept);
        self
    }

    /// Its answer may take as long as it likes.
    pub(super) fn unhurried(mut self) -> Self {
        self.streams = true;
        self
    }

    /// For a write that is no command to the state, which alone remembers keys.
    pub(super) fn without_key(mut self) -> Self {
        self.unkeyed = true;
        self
    }

    /// What to try if there is no such thing.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// The parameters that a query sets; defaults are left out.
pub(super) fn pairs(query: &impl Serialize) -> Vec<(String, String)> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(query) else {
        return Vec::new();
    };
    let mut pairs = Vec::new();
    for (name, value) in fields {
        match value {
            serde_json::Value::Null | serde_json::Value::Bool(false) => {}
            serde_json::Value::String(text) if name == "consistency" && text == "linearizable" => {}
            serde_json::Value::String(text) => pairs.push((name, text)),
            serde_json::Value::Array(items) => {
                for item in items {
                    if let serde_json::Value::String(text) = item {
                        pairs.push((name.clone(), text));
                    }
                }
            }
            other => pairs.push((name, other.to_string())),
        }
    }
    pairs
}

/// Talks to the first of several servers that answers. A clone is the same.
#[derive(Debug, Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    servers: Vec<Url>,
    /// The one that answered last.
    current: Arc<AtomicUsize>,
    clock: SharedClock,
}

impl Client {
    /// For `http://a:7400,http://b:7400`; without a scheme it is http.
    pub(super) fn new(addresses: &str, clock: SharedClock) -> Result<Self, Failure> {
        let servers = servers(addresses)?;
        super::command::install_crypto();
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                // A cluster is not behind the proxy for the world outside.
                .no_proxy()
                .user_agent(concat!("orch/", env!("CARGO_PKG_VERSION")))
        };
        // An image of the binary alone has no CA certificates, and http needs none.
        let http = builder()
            .build()
            .or_else(|_| builder().tls_certs_only([]).build())
            .map_err(|error| Failure::failed(format!("can't make a client: {error}")))?;
        Ok(Self { http, servers, current: Arc::default(), clock })
    }

    /// The servers, the one that answered last first.
    pub(super) fn servers_in_turn(&self) -> impl Iterator<Item = &Url> {
        let first = self.current.load(Ordering::Relaxed);
        let count = self.servers.len();
        (0..count).filter_map(move |i| self.servers.get((first + i) % count))
    }

    /// For what is no server of orch's.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The answer's JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call) -> Result<T, Failure> {
        let response = self.send(call).await?;
        let url = response.url().clone();
        let bytes = response
            .bytes()
            .await
            .map_err(|error| Failure::failed(format!("{url}: {}", root_cause(&error))).passing())?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::failed(format!("{url} answered with something else: {error}"))
                .hint("use the orch binary of the servers' own version")
        })
    }

    /// All pages of a list.
    pub(super) async fn list<T: DeserializeOwned>(&self, call: Call) -> Result<Vec<T>, Failure> {
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut call = call.clone();
            call.query.push(("limit".to_owned(), API_PAGE_ROWS_MAX.to_string()));
            call.query.extend(cursor.take().map(|cursor| ("cursor".to_owned(), cursor)));
            let page: Page<T> = self.json(call).await?;
            rows.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() || rows.len() >= ROWS_MAX {
                return Ok(rows);
            }
        }
    }

    /// The answer, once a server gives one that is no error. A cluster that is between leaders
    /// is asked again for a while.
    pub(super) async fn send(&self, mut call: Call) -> Result<Response, Failure> {
        if call.method != Method::GET && !call.unkeyed {
            let key = format!("{:016x}{:016x}", self.clock.random(), self.clock.random());
            call.key = Some(key);
        }
        let policy = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(1))
            .with_total_delay(Some(PATIENCE))
            .without_max_times();
        (|| self.try_each(&call)).retry(policy).when(|failure: &Failure| failure.passing).await
    }

    /// Sends a body that can be sent but once, to the server that answered last.
    pub(super) async fn upload(
        &self,
        call: Call,
        kind: &'static str,
        body: reqwest::Body,
    ) -> Result<Response, Failure> {
        let server = self.servers_in_turn().next();
        let server = server.ok_or_else(|| Failure::usage("no server is named"))?;
        let url = url(server, &call.path, &call.query);
        let request = self.http.request(call.method.clone(), url).header(CONTENT_TYPE, kind);
        let response = request
            .body(body)
            .send()
            .await
            .map_err(|error| Failure::failed(format!("{server}: {}", root_cause(&error))))?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refusal(response, &call).await)
        }
    }

    /// Each server once.
    async fn try_each(&self, call: &Call) -> Result<Response, Failure> {
        let first = self.current.load(Ordering::Relaxed);
        let mut unreachable = Vec::new();
        let mut passing = None;
        for i in 0..self.servers.len() {
            let at = (first + i) % self.servers.len();
            let Some(server) = self.servers.get(at) else { continue };
            match self.try_one(server, call).await {
                Ok(response) => {
                    self.current.store(at, Ordering::Relaxed);
                    return Ok(response);
                }
                Err(Attempt::Unreachable(why)) => unreachable.push(format!("{server}: {why}")),
                Err(Attempt::Failed(failure)) if failure.passing => passing = Some(failure),
                Err(Attempt::Failed(failure)) => return Err(failure),
            }
        }
        Err(passing.unwrap_or_else(|| {
            Failure::failed(format!("no server answers at {}", unreachable.join(", ")))
                .hint("is one running (orch dev, orch server)? ORCH_ADDR or --addr names others")
        }))
    }

    async fn try_one(&self, server: &Url, call: &Call) -> Result<Response, Attempt> {
        let url = url(server, &call.path, &call.query);
        let mut request = self.http.request(call.method.clone(), url);
        if !call.streams && !matches!(call.body, Body::File(_)) {
            request = request.timeout(ANSWER_TIMEOUT);
        }
        if let Some(accept) = call.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(key) = &call.key {
            request = request.header("Idempotency-Key", key);
        }
        request = match &call.body {
            Body::None => request,
            Body::Bytes { bytes, kind } => request.header(CONTENT_TYPE, *kind).body(bytes.clone()),
            Body::File(path) => {
                let file = tokio::fs::File::open(path).await.map_err(|error| {
                    Failure::failed(format!("can't read {}: {error}", path.display()))
                })?;
                request
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .body(reqwest::Body::wrap_stream(ReaderStream::new(file)))
            }
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return Err(Attempt::Unreachable(root_cause(&error)));
            }
            Err(error) => {
                let mut failure = Failure::failed(format!("{server}: {}", root_cause(&error)));
                failure.passing = !call.unkeyed;
                return Err(Attempt::Failed(failure));
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        Err(Attempt::Failed(refusal(response, call).await))
    }
}

enum Attempt {
    /// Nothing was sent.
    Unreachable(String),
    Failed(Failure),
}

impl From<Failure> for Attempt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// An answer's bytes as they come.
pub(super) fn byte_stream(
    response: Response,
) -> impl Stream<Item = Result<Bytes, Failure>> + Send + Unpin {
    response
        .bytes_stream()
        .map_err(|error| {
            Failure::failed(format!("the connection broke: {}", root_cause(&error))).passing()
        })
        .boxed()
}

fn servers(addresses: &str) -> Result<Vec<Url>, Failure> {
    let servers: Vec<Url> = addresses
        .split(',')
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .map(|address| {
            let full = if address.contains("://") {
                address.to_owned()
            } else {
                format!("http://{address}")
            };
            Url::parse(&full)
                .ok()
                .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
                .ok_or_else(|| {
                    Failure::usage(format!("{address:?} is no server's address"))
                        .hint("write it as http://127.0.0.1:7400; several go with commas")
                })
        })
        .collect::<Result<_, _>>()?;
    if servers.is_empty() {
        return Err(Failure::usage("no server is named")
            .hint("set ORCH_ADDR or --addr, as http://127.0.0.1:7400"));
    }
    Ok(servers)
}

/// The address of a route; parts of the path and parameters are escaped.
pub(super) fn url(server: &Url, path: &[String], query: &[(String, String)]) -> Url {
    let mut url = server.clone();
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().push("v1").extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

/// What an answer that is an error says.
async fn refusal(response: Response, call: &Call) -> Failure {
    let status = response.status();
    let url = response.url().clone();
    let mut body = Vec::new();
    let mut stream = byte_stream(response);
    while let Some(Ok(chunk)) = stream.next().await {
        body.extend_from_slice(&chunk);
        if body.len() > API_BODY_BYTES_MAX {
            break;
        }
    }
    let mut failure = refusal_of(status, url.as_str(), &body);
    if status == StatusCode::NOT_FOUND {
        failure.hint.clone_from(&call.hint);
    }
    // Without a key nobody can tell whether sending it again would do it twice.
    let repeatable = call.key.is_some() || call.method == Method::GET;
    failure.passing &= repeatable || status == StatusCode::SERVICE_UNAVAILABLE;
    failure
}

/// What an answer of this status and body says.
pub(super) fn refusal_of(status: StatusCode, url: &str, body: &[u8]) -> Failure {
    let Ok(problem) = serde_json::from_slice::<ProblemDetails>(body) else {
        return Failure::failed(format!("{url} answered {status}"))
            .hint("is that an orch server's API address?");
    };
    let mut failure = Failure::new(exit_of(status, &problem), problem.detail.clone());
    failure.details = problem_lines("", None, &problem.problems);
    failure.passing =
        matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT);
    failure
}

fn exit_of(status: StatusCode, problem: &ProblemDetails) -> Exit {
    if !problem.problems.is_empty() {
        // As for a file in which the same is found before it is sent.
        Exit::FAILED
    } else if status == StatusCode::NOT_FOUND {
        Exit::NOT_FOUND
    } else if status.is_client_error() {
        Exit::REFUSED
    } else {
        Exit::FAILED
    }
}

#[cfg(test)]
mod tests;
