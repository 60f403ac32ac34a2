//! A tree to measure with: a thousand nodes below each of as many others as it takes.

use crate::jute::StatPersisted;
use crate::jute::file::{NodeRow, OPEN_ACL_KEY};
use crate::jute::rows::Row;
use crate::migrate::zookeeper::chunks::{Chunks, FIRST_NODES, RowTooLarge};

/// Nodes below one other.
const TOGETHER: usize = 1000;
/// When all of it was made: some milliseconds of 2023.
const MADE_AT: i64 = 1_700_000_000_000;

/// The tree.
#[derive(Debug, Clone)]
pub(in crate::bench) struct Nodes {
    /// The node that all others are below.
    pub(super) top: String,
    /// Nodes with data; those above them come on top.
    pub(super) count: usize,
    /// The data of each.
    pub(super) value: Vec<u8>,
}

impl Nodes {
    pub(in crate::bench) fn new(top: String, count: usize, value_bytes: usize) -> Self {
        Self { top, count, value: vec![0x5a; value_bytes] }
    }

    /// Nodes above those with data, but for the topmost.
    pub(super) fn parents(&self) -> usize {
        self.count.div_ceil(TOGETHER)
    }

    pub(super) fn parent(&self, number: usize) -> String {
        format!("{}/d{number:05}", self.top)
    }

    /// The path of one with data.
    pub(super) fn path(&self, number: usize) -> String {
        format!("{}/d{:05}/n{number:08}", self.top, number / TOGETHER)
    }

    /// How many nodes a server has that has nothing else.
    pub(in crate::bench) fn total(&self) -> usize {
        FIRST_NODES.len() + 1 + self.parents() + self.count
    }

    /// One of them all, with its data; those above come before those below.
    fn at(&self, place: usize) -> (String, &[u8]) {
        let Some(place) = place.checked_sub(FIRST_NODES.len()) else {
            return (FIRST_NODES[place].to_owned(), &[]);
        };
        match place.checked_sub(1 + self.parents()) {
            Some(number) => (self.path(number), &self.value),
            None if place == 0 => (self.top.clone(), &[]),
            None => (self.parent(place - 1), &[]),
        }
    }

    /// Hands the rows of some of them all to `put`, as a snapshot of transaction `zxid` has them.
    pub(super) fn rows<E>(
        &self,
        places: std::ops::Range<usize>,
        zxid: i64,
        mut put: impl FnMut(NodeRow<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let made = StatPersisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: MADE_AT,
            mtime: MADE_AT,
            ..StatPersisted::default()
        };
        for place in places {
            let (path, data) = self.at(place);
            let stat = if place < FIRST_NODES.len() { StatPersisted::default() } else { made };
            put(NodeRow { path: &path, data: Some(data), acl: OPEN_ACL_KEY, stat })?;
        }
        Ok(())
    }

    /// Hands all rows to `put`, as lots of an import; bytes of all paths and data come back.
    pub(in crate::bench) fn lots<E: From<RowTooLarge>>(
        &self,
        zxid: i64,
        mut put: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let (mut chunks, mut bytes) = (Chunks::default(), 0);
        self.rows(0..self.total(), zxid, |row| {
            bytes += row.path.len() + row.data.map_or(0, <[u8]>::len);
            match chunks.add(&Row::Node(row))? {
                Some(lot) => put(lot),
                None => Ok(()),
            }
        })?;
        if let Some(lot) = chunks.finish() {
            put(lot)?;
        }
        Ok(bytes)
    }
}
