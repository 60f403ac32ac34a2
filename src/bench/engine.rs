//! A Docker engine: changed by its own client, as its users do; read over its socket, which is
//! quick enough to be asked many times a second.

use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::process::Command;

use super::error::BenchError;

/// The longest that one command of the client may take.
const COMMAND: Duration = Duration::from_secs(120);
const REQUEST: Duration = Duration::from_secs(30);
const SOCKET: &str = "/var/run/docker.sock";

/// Runs the engine's client; what it printed comes back trimmed.
pub(super) async fn docker(args: &[&str]) -> Result<String, BenchError> {
    let failed = |message: String| BenchError::Docker {
        command: args.first().copied().unwrap_or_default().to_owned(),
        message,
    };
    let output = Command::new("docker").args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(COMMAND, output)
        .await
        .map_err(|_| failed(format!("no answer within {} s", COMMAND.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Reads from the engine's API.
#[derive(Debug, Clone)]
pub(super) struct Socket {
    http: reqwest::Client,
}

impl Socket {
    /// Of the engine of `DOCKER_HOST`, or this host's; opens nothing yet.
    pub(super) fn new() -> Result<Self, BenchError> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        let path = path(&host).ok_or_else(|| BenchError::Docker {
            command: "socket".to_owned(),
            message: format!("DOCKER_HOST is {host}; this needs the engine of this host"),
        })?;
        let http = reqwest::Client::builder()
            .tls_certs_only([])
            .timeout(REQUEST)
            .unix_socket(path)
            .build()
            .map_err(BenchError::api)?;
        Ok(Self { http })
    }

    /// `GET PATH?filters=...`; the filter is one name with one value.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        filter: (&str, &str),
    ) -> Result<Vec<T>, BenchError> {
        let filters = serde_json::json!({ filter.0: [filter.1] }).to_string();
        let mut url = url(path)?;
        url.query_pairs_mut().append_pair("filters", &filters);
        self.get(url).await
    }

    async fn get<T: DeserializeOwned>(&self, url: reqwest::Url) -> Result<T, BenchError> {
        let failed =
            |message: String| BenchError::Docker { command: url.path().to_owned(), message };
        let response =
            self.http.get(url.clone()).send().await.map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| failed(error.to_string()))?;
        if !status.is_success() {
            return Err(failed(format!("{status}: {}", String::from_utf8_lossy(&body).trim())));
        }
        serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
    }
}

fn url(path: &str) -> Result<reqwest::Url, BenchError> {
    reqwest::Url::parse(&format!("http://docker{path}")).map_err(BenchError::api)
}

/// Of the socket that `DOCKER_HOST` names; none if it is no socket.
fn path(host: &str) -> Option<&str> {
    match host {
        "" => Some(SOCKET),
        host => host.strip_prefix("unix://"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_the_one_that_the_client_takes() {
        assert_eq!(path(""), Some("/var/run/docker.sock"));
        assert_eq!(path("unix:///run/user/1000/docker.sock"), Some("/run/user/1000/docker.sock"));
        assert_eq!(path("tcp://10.0.0.1:2375"), None);
    }
}
