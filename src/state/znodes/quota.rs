//! Quotas: what is below a path is counted in a node under `/zookeeper/quota`, as ZooKeeper does:
//! only the nearest path above with a quota counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::node::Znode;
use super::tree::Tree;
use crate::jute::op::ErrorCode;
use crate::jute::path;
use crate::limits::{ZK_RECOUNTED_NODES_MAX, ZK_RECOUNTED_NODES_PER_SECOND};

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

/// What has been counted anew: a node for figures makes a server look at everything below a path,
/// and may be made again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Recounts {
    /// Nodes looked at that are not forgiven yet: [`ZK_RECOUNTED_NODES_PER_SECOND`] are.
    debt: u64,
    /// When that was, in milliseconds since 1970.
    at: i64,
    /// There are figures that were not counted here, but brought.
    owed: bool,
}

impl Recounts {
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    fn debt_at(&self, now: i64) -> u64 {
        let passed = u64::try_from(now.saturating_sub(self.at)).unwrap_or(0);
        self.debt.saturating_sub(passed.saturating_mul(ZK_RECOUNTED_NODES_PER_SECOND) / 1000)
    }
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

fn figures(count: i64, bytes: i64) -> String {
    format!("count={count},bytes={bytes}")
}

#[cfg(test)]
impl Recounts {
    /// So many nodes were looked at.
    pub(super) fn of(debt: u64, at: u64) -> Self {
        Self { debt, at: at as i64, owed: false }
    }
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
        self.set_own_data(&stats, figures(count, bytes).as_bytes());
    }

    /// The path that the node at `path` under `/zookeeper/quota` is about, and the node's name.
    fn quota_node(path: &str) -> Option<(&str, &str)> {
        let (parent, name) = path::split(path.strip_prefix(QUOTA)?)?;
        (parent.starts_with('/') && parent != "/").then_some((parent, name))
    }

    /// Whether a node may be made at `path` now: not one for figures, if counting took much lately.
    pub(super) fn quota_may_count(&self, path: &str, now: i64) -> Result<(), ErrorCode> {
        let counts = matches!(Self::quota_node(path), Some((_, STATS)));
        if counts && self.recounts.debt_at(now) >= ZK_RECOUNTED_NODES_MAX {
            return Err(ErrorCode::ThrottledOp);
        }
        Ok(())
    }

    /// Counts everything at and below a path, if the node just made is the one for its figures.
    pub(super) fn quota_count(&mut self, made: &str, now: i64) {
        let Some((top, STATS)) = Self::quota_node(made) else { return };
        let (mut count, mut bytes) = (0_i64, 0_i64);
        for (_, node) in self.walk(top) {
            count += 1;
            bytes += node.data_len() as i64;
        }
        self.set_own_data(made, figures(count, bytes).as_bytes());
        let debt = self.recounts.debt_at(now).saturating_add(count as u64);
        self.recounts = Recounts { debt, at: now, owed: false };
    }

    /// Counts anew what has a quota, if figures came from elsewhere.
    pub(super) fn quota_settle(&mut self) {
        if self.recounts.owed {
            self.quota_count_all();
        }
    }

    /// Counts anew whatever has a quota, in one walk: for trees that come from a server which
    /// counted for itself.
    pub(super) fn quota_count_all(&mut self) {
        self.recounts.owed = false;
        if self.quotas.is_empty() {
            return;
        }
        let mut found: BTreeMap<Arc<str>, (i64, i64)> = BTreeMap::new();
        for top in &self.quotas {
            found.insert(top.clone(), (0, 0));
        }
        // The quotas that hold where the walk is, the outermost first, and what was found below
        // the next.
        let mut open: Vec<(Arc<str>, i64, i64)> = Vec::new();
        let mut close = |open: &mut Vec<(Arc<str>, i64, i64)>| {
            let Some((top, count, bytes)) = open.pop() else { return };
            if let Some((_, above_count, above_bytes)) = open.last_mut() {
                *above_count += count;
                *above_bytes += bytes;
            }
            found.insert(top, (count, bytes));
        };
        for (path, node) in self.walk("/") {
            while open.last().is_some_and(|(top, ..)| !path::is_within(path, top)) {
                close(&mut open);
            }
            if let Some(top) = self.quotas.get(path) {
                open.push((top.clone(), 0, 0));
            }
            if let Some((_, count, bytes)) = open.last_mut() {
                *count += 1;
                *bytes += node.data_len() as i64;
            }
        }
        while !open.is_empty() {
            close(&mut open);
        }
        for (top, (count, bytes)) in found {
            self.set_own_data(&stats_path(&top), figures(count, bytes).as_bytes());
        }
    }

    /// Notes that there is a node at `path`, without counting it: all trees know their quotas.
    pub(super) fn quota_note(&mut self, path: &str) {
        if let Some((top, LIMITS)) = Self::quota_node(path) {
            self.quotas.insert(Arc::from(top));
        }
    }

    pub(super) fn quota_after_insert(&mut self, path: &Arc<str>) {
        if let Some((_, STATS)) = Self::quota_node(path) {
            // A client's is counted at once, one that was brought with the others.
            self.recounts.owed = true;
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
