//! A tree of nodes with data, wherever it is.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::error::SourceError;

/// The answer of a tree.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, SourceError>>;

/// A tree as ZooKeeper has it: each node has data, and children by name.
pub trait NodeSource: Send + Sync {
    /// The names of a node's children, in any order; none if there is no such node.
    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Vec<String>>>;

    /// A node's data; none if there is no such node.
    fn data<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Bytes>>;
}

/// A tree in memory.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    nodes: BTreeMap<String, Bytes>,
    children: BTreeMap<String, BTreeSet<String>>,
}

impl Memory {
    /// Puts a node there, and those above it if they are missing.
    pub fn put(&mut self, path: &str, data: impl Into<Bytes>) {
        self.nodes.insert(path.to_owned(), data.into());
        let mut path = path;
        while let Some((parent, name)) = path.rsplit_once('/').filter(|(_, name)| !name.is_empty())
        {
            let known = self.children.entry(parent.to_owned()).or_default();
            if !known.insert(name.to_owned()) {
                break;
            }
            if !parent.is_empty() {
                self.nodes.entry(parent.to_owned()).or_default();
            }
            path = parent;
        }
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl NodeSource for Memory {
    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Vec<String>>> {
        let path = path.trim_end_matches('/');
        let known = self.children.get(path);
        let none = || self.nodes.contains_key(path).then(Vec::new);
        let names = known.map(|names| names.iter().cloned().collect()).or_else(none);
        async move { Ok(names) }.boxed()
    }

    fn data<'a>(&'a self, path: &'a str) -> Answer<'a, Option<Bytes>> {
        let data = self.nodes.get(path).cloned();
        async move { Ok(data) }.boxed()
    }
}
