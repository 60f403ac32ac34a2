//! Fills what a server keeps for a while up to its bounds, quickly: a curve that is measured
//! afterwards shows what grows, not what is still being filled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use orch::jute::Op;
use orch::jute::request::SetDataRequest;
use orch::limits::{EVENTS_KEPT, ZK_CHANGES_KEPT};

use super::clients::{NODES, connect};
use super::servers::Doors;

/// Requests on their way at once.
const TOGETHER: usize = 64;

/// Writes one variable and one node until events and changes of nodes are as many as are kept.
pub fn fill(doors: &Doors) {
    let theirs = doors.clone();
    let filled = doors.runtime.spawn(async move {
        tokio::join!(fill_nodes(&theirs), fill_variables(&theirs));
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
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = format!("http://{}/v1/variables/filled", doors.servers[0].1);
    let left = Arc::new(AtomicUsize::new(EVENTS_KEPT));
    let writers = (0..TOGETHER).map(|_| {
        let (http, url, left) = (http.clone(), url.clone(), left.clone());
        tokio::spawn(async move {
            while left.fetch_sub(1, Ordering::Relaxed) <= EVENTS_KEPT {
                let written = http.put(&url).body("filled").send().await.unwrap();
                assert!(written.status().is_success(), "{written:?}");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}
