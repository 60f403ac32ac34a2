//! Who wants to know when which node changes. Pure: a change goes in, events come out.
//!
//! As in ZooKeeper there are two tables: one for a node's data and its coming and going, one for
//! its children. A persistent watch is in both; one that holds for everything below is in the
//! first alone, so that it never says "children". A connection may have watches of every mode on
//! one node at once; a change is told to it once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::jute::path;
use crate::state::znodes::ZnodeChangeKind;

/// Number of a connection on this server.
pub(super) type ConnId = u64;

/// How a watch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Once.
    Once,
    /// Until it is taken away.
    Persistent,
    /// Until it is taken away, for everything below as well.
    Recursive,
}

impl Mode {
    fn bit(self) -> u8 {
        match self {
            Self::Once => 1,
            Self::Persistent => 2,
            Self::Recursive => 4,
        }
    }
}

/// Which of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    /// A node's data, and whether it is there.
    Data,
    /// Names of its children.
    Child,
}

/// What a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EventKind {
    Created = 1,
    Deleted = 2,
    Data = 3,
    Children = 4,
}

/// An event for some connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fired {
    pub(super) kind: EventKind,
    pub(super) path: Arc<str>,
    pub(super) to: Vec<ConnId>,
}

/// Which watches a client asks about or takes away; numbers as on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Children = 1,
    Data = 2,
    Any = 3,
    Persistent = 4,
    Recursive = 5,
}

impl Which {
    pub(super) fn of(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Children,
            2 => Self::Data,
            3 => Self::Any,
            4 => Self::Persistent,
            5 => Self::Recursive,
            _ => return None,
        })
    }

    /// The modes that are meant in a table.
    fn bits(self, table: Table) -> u8 {
        match (self, table) {
            (Self::Children, Table::Data) | (Self::Data, Table::Child) => 0,
            (Self::Children, Table::Child) | (Self::Data, Table::Data) => Mode::Once.bit(),
            (Self::Any, _) => u8::MAX,
            (Self::Persistent, _) => Mode::Persistent.bit(),
            (Self::Recursive, _) => Mode::Recursive.bit(),
        }
    }
}

/// All watches on one server.
#[derive(Debug, Default)]
pub(super) struct Watches {
    data: BTreeMap<Arc<str>, BTreeMap<ConnId, u8>>,
    child: BTreeMap<Arc<str>, BTreeMap<ConnId, u8>>,
    of_conn: BTreeMap<ConnId, BTreeSet<(Table, Arc<str>)>>,
    recursive: usize,
    /// Entries of `of_conn`.
    count: usize,
    /// Bytes of each connection's paths.
    bytes: BTreeMap<ConnId, usize>,
}

impl Watches {
    fn table(&mut self, table: Table) -> &mut BTreeMap<Arc<str>, BTreeMap<ConnId, u8>> {
        match table {
            Table::Data => &mut self.data,
            Table::Child => &mut self.child,
        }
    }

    /// Sets a watch in one table.
    pub(super) fn add(&mut self, conn: ConnId, table: Table, path: &str, mode: Mode) {
        let known = self.table(table).get_key_value(path).map(|(path, _)| path.clone());
        let path = known.unwrap_or_else(|| Arc::from(path));
        let modes = self.table(table).entry(path.clone()).or_default().entry(conn).or_default();
        let new = *modes & mode.bit() == 0;
        *modes |= mode.bit();
        self.recursive += usize::from(new && mode == Mode::Recursive);
        let length = path.len();
        if self.of_conn.entry(conn).or_default().insert((table, path)) {
            *self.bytes.entry(conn).or_default() += length;
            self.count += 1;
        }
    }

    /// Sets a watch that stays.
    pub(super) fn add_persistent(&mut self, conn: ConnId, path: &str, mode: Mode) {
        self.add(conn, Table::Data, path, mode);
        if mode != Mode::Recursive {
            self.add(conn, Table::Child, path, mode);
        }
    }

    /// How many a connection has.
    pub(super) fn count_of(&self, conn: ConnId) -> usize {
        self.of_conn.get(&conn).map_or(0, BTreeSet::len)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Bytes of the paths that a connection watches, about.
    pub(super) fn bytes_of(&self, conn: ConnId) -> usize {
        self.bytes.get(&conn).copied().unwrap_or(0)
    }

    /// How many there are, and on how many paths and connections.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        let paths: BTreeSet<&Arc<str>> = self.data.keys().chain(self.child.keys()).collect();
        (self.len(), paths.len(), self.of_conn.len())
    }

    /// Paths that a connection watches.
    pub(super) fn paths_of(&self, conn: ConnId) -> impl Iterator<Item = &Arc<str>> {
        self.of_conn.get(&conn).into_iter().flatten().map(|(_, path)| path)
    }

    /// All connections with watches.
    pub(super) fn conns(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.of_conn.keys().copied()
    }

    /// Whether a connection has such a watch.
    pub(super) fn has(&self, conn: ConnId, path: &str, which: Which) -> bool {
        let in_table = |table: &BTreeMap<Arc<str>, BTreeMap<ConnId, u8>>, bits: u8| {
            table
                .get(path)
                .and_then(|conns| conns.get(&conn))
                .is_some_and(|modes| modes & bits != 0)
        };
        in_table(&self.data, which.bits(Table::Data))
            || in_table(&self.child, which.bits(Table::Child))
    }

    /// Takes such watches away; says whether there were any.
    pub(super) fn remove(&mut self, conn: ConnId, path: &str, which: Which) -> bool {
        let had = self.has(conn, path, which);
        for table in [Table::Data, Table::Child] {
            self.clear(conn, table, path, which.bits(table));
        }
        had
    }

    /// Clears modes of one watch, and forgets it if none is left.
    fn clear(&mut self, conn: ConnId, table: Table, path: &str, bits: u8) {
        let Some(conns) = self.table(table).get_mut(path) else { return };
        let Some(modes) = conns.get_mut(&conn) else { return };
        let cleared = *modes & bits;
        *modes &= !bits;
        if *modes == 0 {
            conns.remove(&conn);
            let empty = conns.is_empty();
            let key = self.table(table).get_key_value(path).map(|(path, _)| path.clone());
            if empty {
                self.table(table).remove(path);
            }
            if let (Some(key), Some(of_conn)) = (key, self.of_conn.get_mut(&conn)) {
                if of_conn.remove(&(table, key)) {
                    self.count -= 1;
                    if let Some(bytes) = self.bytes.get_mut(&conn) {
                        *bytes -= path.len();
                    }
                }
                if of_conn.is_empty() {
                    self.of_conn.remove(&conn);
                }
            }
        }
        self.recursive -= usize::from(cleared & Mode::Recursive.bit() != 0);
    }

    /// Takes all watches of a connection away.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.bytes.remove(&conn);
        let watched = self.of_conn.remove(&conn).unwrap_or_default();
        self.count -= watched.len();
        for (table, path) in watched {
            self.clear(conn, table, &path, u8::MAX);
        }
    }

    /// What a change means for whom, in the order in which it is told.
    pub(super) fn fire(&mut self, path: &Arc<str>, change: ZnodeChangeKind, out: &mut Vec<Fired>) {
        if self.of_conn.is_empty() {
            return;
        }
        match change {
            ZnodeChangeKind::Created => {
                self.fire_in(Table::Data, path, EventKind::Created, &[], out);
            }
            ZnodeChangeKind::Data => {
                self.fire_in(Table::Data, path, EventKind::Data, &[], out);
                return;
            }
            ZnodeChangeKind::Deleted => {
                let told = self.fire_in(Table::Data, path, EventKind::Deleted, &[], out);
                self.fire_in(Table::Child, path, EventKind::Deleted, &told, out);
            }
        }
        if let Some((parent, _)) = path::split(path)
            && let Some(parent) = self.child.get_key_value(parent).map(|(key, _)| key.clone())
        {
            self.fire_in(Table::Child, &parent, EventKind::Children, &[], out);
        }
    }

    fn fire_in(
        &mut self,
        table: Table,
        path: &Arc<str>,
        kind: EventKind,
        told: &[ConnId],
        out: &mut Vec<Fired>,
    ) -> Vec<ConnId> {
        let mut to: Vec<ConnId> = Vec::new();
        let here = self.table(table).get(path.as_ref());
        to.extend(here.into_iter().flat_map(|conns| conns.keys().copied()));
        for conn in to.clone() {
            self.clear(conn, table, path, Mode::Once.bit());
        }
        if self.recursive > 0 && table == Table::Data {
            let mut above = path::split(path);
            while let Some((parent, _)) = above {
                let conns = self.data.get(parent).into_iter().flatten();
                let recursive = conns.filter(|(_, modes)| *modes & Mode::Recursive.bit() != 0);
                to.extend(recursive.map(|(conn, _)| *conn));
                above = path::split(parent);
            }
            to.sort_unstable();
            to.dedup();
        }
        let tell: Vec<ConnId> = to.iter().copied().filter(|conn| !told.contains(conn)).collect();
        if !tell.is_empty() {
            out.push(Fired { kind, path: path.clone(), to: tell });
        }
        to
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fire(
        watches: &mut Watches,
        path: &str,
        change: ZnodeChangeKind,
    ) -> Vec<(EventKind, String, Vec<ConnId>)> {
        let mut out = Vec::new();
        watches.fire(&Arc::from(path), change, &mut out);
        out.into_iter().map(|fired| (fired.kind, fired.path.to_string(), fired.to)).collect()
    }

    #[test]
    fn a_plain_watch_is_told_once() {
        let mut watches = Watches::default();
        watches.add(1, Table::Data, "/a", Mode::Once);
        let told = fire(&mut watches, "/a", ZnodeChangeKind::Data);
        assert_eq!(told, [(EventKind::Data, "/a".to_owned(), vec![1])]);
        assert_eq!(fire(&mut watches, "/a", ZnodeChangeKind::Data), []);
        assert_eq!(watches.counts(), (0, 0, 0));
    }

    #[test]
    fn a_removal_is_told_once_to_who_watches_data_and_children() {
        let mut watches = Watches::default();
        watches.add(1, Table::Data, "/a/b", Mode::Once);
        watches.add(1, Table::Child, "/a/b", Mode::Once);
        watches.add(2, Table::Child, "/a/b", Mode::Once);
        watches.add(3, Table::Child, "/a", Mode::Once);
        let told = fire(&mut watches, "/a/b", ZnodeChangeKind::Deleted);
        assert_eq!(
            told,
            [
                (EventKind::Deleted, "/a/b".to_owned(), vec![1]),
                (EventKind::Deleted, "/a/b".to_owned(), vec![2]),
                (EventKind::Children, "/a".to_owned(), vec![3]),
            ]
        );
        assert_eq!(watches.counts(), (0, 0, 0));
    }

    #[test]
    fn a_persistent_watch_stays_and_a_recursive_one_never_says_children() {
        let mut watches = Watches::default();
        watches.add_persistent(1, "/a", Mode::Persistent);
        watches.add_persistent(2, "/a", Mode::Recursive);
        for _ in 0..2 {
            let told = fire(&mut watches, "/a/b", ZnodeChangeKind::Created);
            assert_eq!(
                told,
                [
                    (EventKind::Created, "/a/b".to_owned(), vec![2]),
                    (EventKind::Children, "/a".to_owned(), vec![1]),
                ]
            );
        }
        assert!(watches.has(1, "/a", Which::Persistent) && watches.has(2, "/a", Which::Recursive));
        assert!(!watches.has(1, "/a", Which::Data));
        assert!(watches.remove(2, "/a", Which::Any) && !watches.remove(2, "/a", Which::Any));
        assert_eq!(watches.len(), 2, "in both tables");
        watches.add(1, Table::Data, "/a", Mode::Once);
        assert_eq!(watches.len(), 2);
        watches.forget(1);
        assert_eq!(watches.counts(), (0, 0, 0));
        assert_eq!(watches.recursive, 0);
    }

    #[test]
    fn modes_on_one_node_are_apart() {
        let mut watches = Watches::default();
        watches.add(1, Table::Data, "/a", Mode::Once);
        watches.add_persistent(1, "/a", Mode::Persistent);
        assert_eq!(fire(&mut watches, "/a", ZnodeChangeKind::Data).len(), 1);
        assert!(!watches.has(1, "/a", Which::Data) && watches.has(1, "/a", Which::Persistent));
        assert_eq!(fire(&mut watches, "/a", ZnodeChangeKind::Data).len(), 1);
    }
}
