//! Writers at full speed that remember what was acknowledged to them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a writer waits for one answer before it asks another server.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after a refusal, so that a cluster without a leader isn't flooded.
const PAUSE: Duration = Duration::from_millis(10);

/// Writers that each put one variable after another under paths of their own.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    runtime: tokio::runtime::Runtime,
}

/// A write that was acknowledged.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// Path of the variable.
    pub path: String,
    /// When it was sent.
    pub sent: Instant,
    /// When the answer came.
    pub answered: Instant,
}

impl Writers {
    /// Starts `count` of them against servers at these API addresses.
    pub fn start(count: usize, servers: &[String]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let tasks = (0..count)
            .map(|writer| {
                let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
                runtime.spawn(write(writer, servers.to_vec(), stop, acknowledged))
            })
            .collect();
        Self { stop, acknowledged, tasks, runtime }
    }

    /// How many writes were acknowledged so far.
    pub fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Ends them; everything that was acknowledged, in the order of the answers.
    pub fn finish(self) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            self.runtime.block_on(task).unwrap();
        }
        std::mem::take(&mut *self.acknowledged.lock().unwrap())
    }
}

async fn write(
    writer: usize,
    servers: Vec<String>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
) {
    let client =
        reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(PATIENCE).build().unwrap();
    let mut at = writer;
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let path = format!("w{writer}/{number}");
        let server = &servers[at % servers.len()];
        let sent = Instant::now();
        let answer = client
            .put(format!("http://{server}/v1/variables/{path}"))
            .body(number.to_string())
            .send()
            .await;
        match answer {
            Ok(response) if response.status().is_success() => {
                let answered = Instant::now();
                acknowledged.lock().unwrap().push(Acknowledged { path, sent, answered });
            }
            // Unknown or refused: it may be there or not. The next write has another path.
            _ => {
                at += 1;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Time from each moment to the first acknowledgement of a write that was sent after it.
pub fn gaps(acknowledged: &[Acknowledged], moments: &[Instant]) -> Vec<Duration> {
    moments
        .iter()
        .filter_map(|moment| {
            acknowledged
                .iter()
                .filter(|write| write.sent > *moment)
                .map(|write| write.answered - *moment)
                .min()
        })
        .collect()
}

/// Median, 99th percentile and the longest of some times.
pub fn figures(what: &str, times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    match sorted.len() {
        0 => format!("{what}: none"),
        n => format!("{what}: n {n}, median {:?}, p99 {:?}, max {:?}", at(0.5), at(0.99), at(1.0)),
    }
}

/// All variables of a server by path with their sizes, read locally.
#[track_caller]
pub fn stored(http: &super::Http) -> BTreeMap<String, u64> {
    let mut rows = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page =
            http.get(&format!("/v1/variables?consistency=stale&limit=1000{cursor}")).ok().value();
        for row in page["items"].as_array().expect("items") {
            rows.insert(row["path"].as_str().unwrap().to_owned(), row["size"].as_u64().unwrap());
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}
