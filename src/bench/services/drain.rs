//! A node of the cluster is emptied. Two agents on one engine will do; one is not enough.

use std::collections::BTreeMap;
use std::time::Instant;

use super::super::cluster::{POLL, WAIT};
use super::super::error::BenchError;
use super::super::millis;
use super::measure::{Measured, Part, SEVERAL, ready, started};
use super::orch::{JOB, Orch, copy};
use super::sides::Side;
use crate::api::view::allocation::AllocationRow;
use crate::api::view::node::NodeRow;

/// From the order until the node is empty and all replicas are healthy elsewhere.
pub(super) async fn measure(orch: &Orch) -> Result<Measured, BenchError> {
    orch.remove().await?;
    let measured = take(orch).await;
    orch.remove().await.and(measured)
}

async fn take(orch: &Orch) -> Result<Measured, BenchError> {
    orch.submit(Part::Drain.service(SEVERAL)).await?;
    started(orch, SEVERAL).await?;
    let rows = orch.cluster.copies(JOB).await?;
    let node = busiest(&orch.cluster.nodes().await?, &rows)?;
    orch.will_drain(&node);
    let measured = drain(orch, &node).await;
    orch.end_drain().await.and(measured)
}

async fn drain(orch: &Orch, node: &str) -> Result<Measured, BenchError> {
    let begin = Instant::now();
    orch.cluster.drain(node).await?;
    let mut least = SEVERAL;
    loop {
        let rows = orch.cluster.copies(JOB).await?;
        let copies: Vec<_> = rows.iter().cloned().map(copy).collect();
        least = least.min(ready(&copies));
        let there = rows.iter().zip(&copies).any(|(row, copy)| !copy.ended && on(row, node));
        if !there && ready(&copies) == SEVERAL {
            return Ok(Measured { millis: millis(begin), least: Some(least) });
        }
        if begin.elapsed() > WAIT {
            return Err(BenchError::Slow(format!("the drain of {node}"), WAIT.as_secs()));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn on(row: &AllocationRow, node: &str) -> bool {
    row.node.as_deref() == Some(node)
}

/// The node with most of the replicas; it must have nothing else, and there must be another.
pub(super) fn busiest(nodes: &[NodeRow], rows: &[AllocationRow]) -> Result<String, BenchError> {
    let usable: Vec<&NodeRow> =
        nodes.iter().filter(|node| node.state == "ready" && node.eligible).collect();
    if usable.len() < 2 {
        let count = usable.len();
        return Err(BenchError::Missing(format!(
            "a drain needs two ready nodes, there are {count}"
        )));
    }
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.node.as_deref().unwrap_or_default()).or_default() += 1;
    }
    let most = usable
        .iter()
        .filter_map(|node| counts.get(node.name.as_str()).map(|&count| (count, *node)))
        .max_by_key(|(count, _)| *count);
    match most {
        None => Err(BenchError::Missing("the replicas are on no ready node".to_owned())),
        Some((count, node)) if node.allocations > count => Err(BenchError::Missing(format!(
            "{} has other work, which a drain would move",
            node.name
        ))),
        Some((_, node)) => Ok(node.name.clone()),
    }
}
