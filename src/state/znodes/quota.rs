//! Quotas: what is below a path is counted in a node under `/zookeeper/quota`, as ZooKeeper does:
//! only the nearest path above with a quota counts.

use std::sync::Arc;

use super::node::Znode;
use super::tree::Tree;
use crate::jute::op::ErrorCode;
use crate::jute::path;

const QUOTA: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// What is allowed, or what there is; -1: not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Figures {
    count: i64,
    bytes: i64,
    hard_count: i64,
    hard_bytes: i64,
}

/// Reads `count=1,bytes=2` with `=` or `;` and more behind it.
fn read(text: &[u8]) -> Figures {
    let mut figures = Figures { count: -1, bytes: -1, hard_count: -1, hard_bytes: -1 };
    let text = std::str::from_utf8(text).unwrap_or_default();
    for field in text.split([',', ';']) {
        let Some((name, value)) = field.split_once('=') else { continue };
        let value = value.trim_end_matches('=').parse().unwrap_or(-1);
        match name {
            "count" => figures.count = value,
            "bytes" => figures.bytes = value,
            "countHardLimit" => figures.hard_count = value,
            "byteHardLimit" => figures.hard_bytes = value,
            _ => {}
        }
    }
    figures
}

fn stats_path(top: &str) -> String {
    format!("{QUOTA}{top}/{STATS}")
}

impl Tree {
    /// The nearest path with a quota at or above `path`.
    fn quota_over(&self, path: &str) -> Option<Arc<str>> {
        if self.quotas.is_empty() {
            return None;
        }
        let mut at = path;
        while at != "/" {
            if let Some(found) = self.quotas.get(at) {
                return Some(found.clone());
            }
            at = path::split(at)?.0;
        }
        None
    }

    fn quota_add(&mut self, path: &str, count: i64, bytes: i64) {
        let Some(top) = self.quota_over(path) else { return };
        let stats = stats_path(&top);
        let Some(node) = self.get(&stats) else { return };
        let had = read(node.data().unwrap_or_default());
        let (count, bytes) = (had.count.saturating_add(count), had.bytes.saturating_add(bytes));
        self.set_own_data(&stats, format!("count={count},bytes={bytes}").as_bytes());
    }

    /// Counts everything at and below `top` anew.
    fn quota_recount(&mut self, top: &str) {
        let (mut count, mut bytes) = (0_i64, 0_i64);
        for (_, node) in self.walk(top) {
            count += 1;
            bytes += node.data_len() as i64;
        }
        self.set_own_data(&stats_path(top), format!("count={count},bytes={bytes}").as_bytes());
    }

    /// The path that the node at `path` under `/zookeeper/quota` is about, and the node's name.
    fn quota_node(path: &str) -> Option<(&str, &str)> {
        let (parent, name) = path::split(path.strip_prefix(QUOTA)?)?;
        (parent != "/").then_some((parent, name))
    }

    /// Finds all quotas and counts anew: for trees that come from a server which counted for
    /// itself.
    pub(super) fn quota_find(&mut self) {
        self.quota_index();
        for top in self.quotas.clone() {
            self.quota_recount(&top);
        }
    }

    /// Finds all quotas.
    pub(super) fn quota_index(&mut self) {
        let limits = self.walk(QUOTA).filter_map(|(path, _)| match Self::quota_node(path) {
            Some((top, LIMITS)) => Some(Arc::from(top)),
            _ => None,
        });
        self.quotas = limits.collect();
    }

    pub(super) fn quota_after_insert(&mut self, path: &Arc<str>) {
        match Self::quota_node(path) {
            Some((top, LIMITS)) => {
                self.quotas.insert(Arc::from(top));
            }
            Some((top, STATS)) => self.quota_recount(top),
            _ => {}
        }
        let bytes = self.get(path).map_or(0, |node| node.data_len());
        self.quota_add(path, 1, bytes as i64);
    }

    pub(super) fn quota_after_remove(&mut self, path: &Arc<str>, node: &Znode) {
        if let Some((top, LIMITS)) = Self::quota_node(path) {
            self.quotas.remove(top);
        }
        self.quota_add(path, -1, -(node.data_len() as i64));
    }

    pub(super) fn quota_after_set(&mut self, path: &Arc<str>, before: usize, after: usize) {
        if before != after {
            self.quota_add(path, 0, after as i64 - before as i64);
        }
    }

    /// Whether that many more nodes and bytes at `path` are within the hard limits.
    pub(super) fn quota_check(&self, path: &str, count: i64, bytes: i64) -> Result<(), ErrorCode> {
        let Some(top) = self.quota_over(path) else { return Ok(()) };
        let figures = |name| {
            let node = self.get(&format!("{QUOTA}{top}/{name}"));
            node.map(|node| read(node.data().unwrap_or_default()))
        };
        let (Some(limits), Some(stats)) = (figures(LIMITS), figures(STATS)) else { return Ok(()) };
        let over = |limit: i64, now: i64, more: i64| {
            more > 0 && limit > -1 && now.saturating_add(more) > limit
        };
        if over(limits.hard_count, stats.count, count)
            || over(limits.hard_bytes, stats.bytes, bytes)
        {
            return Err(ErrorCode::QuotaExceeded);
        }
        Ok(())
    }
}
