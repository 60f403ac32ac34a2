//! A blocking HTTP client for one server.

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
});

/// A client of the API at one address.
#[derive(Debug, Clone)]
pub struct Http {
    base: String,
    client: reqwest::Client,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub headers: reqwest::header::HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Http {
    /// A client of `http://ADDRESS`.
    pub fn new(address: impl std::fmt::Display) -> Self {
        // Fails if it is installed already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        Self { base: format!("http://{address}"), client }
    }

    /// The same with another limit on the whole exchange.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(timeout)
            .build()
            .unwrap();
        self
    }

    /// One exchange. `Err` if there was no answer.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Reply, String> {
        let method = method.parse::<reqwest::Method>().unwrap();
        let mut request = self.client.request(method, format!("{}{path}", self.base)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        RUNTIME.block_on(async {
            let response = request.send().await.map_err(|error| format!("{error:?}"))?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = response.bytes().await.map_err(|error| format!("{error:?}"))?.to_vec();
            Ok(Reply { status, headers, body })
        })
    }

    /// GET. `Err` if there was no answer.
    pub fn try_get(&self, path: &str) -> Result<Reply, String> {
        self.send("GET", path, &[], Vec::new())
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Reply {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Any method with a JSON body.
    #[track_caller]
    pub fn json(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.send(method, path, &[("content-type", "application/json")], body.to_string().into())
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// The same, if the status is 2xx.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "status {}: {}", self.status, self.text());
        self
    }
}
