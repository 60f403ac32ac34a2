//! Fills what a server keeps for a while up to its bounds, quickly: a curve that is measured
//! afterwards shows what grows, not what is still being filled.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;
use orch::consensus::Tuning;
use orch::jute::Op;
use orch::jute::request::SetDataRequest;
use orch::limits::{EVENTS_KEPT, ZK_CHANGES_KEPT};

use super::clients::{NODES, connect};
use super::servers::Doors;

/// Requests on their way at once.
const TOGETHER: usize = 64;
/// The same, where each is to be an entry of the log of its own.
const ALONE: usize = 3;

/// Writes one variable and one node until events and changes of nodes are as many as are kept; then
/// until the log was cut behind a snapshot twice.
pub fn fill(doors: &Doors) {
    let theirs = doors.clone();
    let filled = doors.runtime.spawn(async move {
        tokio::join!(fill_nodes(&theirs), fill_variables(&theirs));
        fill_log(&theirs).await;
    });
    doors.runtime.block_on(filled).unwrap();
}

async fn fill_nodes(doors: &Doors) {
    let client = connect(doors, 0).await.expect("servers are there");
    for _ in 0..ZK_CHANGES_KEPT / TOGETHER + 1 {
        let mut pending = Vec::new();
        for _ in 0..TOGETHER {
            let request = SetDataRequest { path: NODES, data: Some(b"filled"), version: -1 };
            pending.push(client.request(Op::SetData.number(), &request).await.unwrap());
        }
        for reply in pending {
            reply.await.unwrap().done().unwrap();
        }
    }
    client.close().await.unwrap();
}

async fn fill_variables(doors: &Doors) {
    let left = AtomicUsize::new(EVENTS_KEPT);
    // Below zero it begins at the top again.
    write_while(doors, TOGETHER, |_| left.fetch_sub(1, Ordering::Relaxed) <= EVENTS_KEPT).await;
}

async fn fill_log(doors: &Doors) {
    let upto = 2 * Tuning::default().snapshot_entries + Tuning::default().keep_entries;
    write_while(doors, ALONE, |index| index < upto).await;
}

/// Writes one variable, so many at once, as long as its index is good for it.
async fn write_while(doors: &Doors, together: usize, goes_on: impl Fn(u64) -> bool) {
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = &format!("http://{}/v1/variables/filled", doors.servers[0].1);
    let writers = (0..together).map(async |_| {
        let mut index = 0;
        while goes_on(index) {
            let written = http.put(url).body("filled").send().await.unwrap();
            let written = written.error_for_status().unwrap();
            let written: serde_json::Value = written.json().await.unwrap();
            index = written["index"].as_u64().unwrap();
        }
    });
    join_all(writers).await;
}
