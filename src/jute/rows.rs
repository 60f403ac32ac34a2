//! The rows of a tree that is written out: sessions, access lists, nodes. Snapshot files have them
//! between head and seal, the stream to a learner has nothing else.
//!
//! [`Decoder`] does no input of its own: files and sockets feed it alike. It says how many bytes the
//! next row has, and refuses lengths beyond the bounds before anybody waits for them.

use super::codec::{self, Field};
use super::file::{AclRow, NODES_END, NodeRow, SessionRow};
use crate::limits::{ZK_ACL_BYTES_MAX, ZK_DATA_BYTES_MAX, ZK_PATH_BYTES_MAX};

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row<'a> {
    /// A session.
    Session(SessionRow),
    /// An access list. Nodes may name one that never came: a server writes while it changes.
    Acl(AclRow),
    /// A node; its path and the numbers in it are as they were written.
    Node(NodeRow<'a>),
}

/// Of what kind a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// See [`SessionRow`].
    Session,
    /// See [`AclRow`].
    Acl,
    /// See [`NodeRow`].
    Node,
}

impl Kind {
    /// Reads a row of that kind, which `bytes` hold and nothing else.
    ///
    /// # Errors
    /// A field that can't be read.
    pub fn read(self, bytes: &[u8]) -> Result<Row<'_>, RowError> {
        let (what, row) = match self {
            Self::Session => ("a session", Field::from_bytes(bytes).map(Row::Session)),
            Self::Acl => (ACL_ROW, Field::from_bytes(bytes).map(Row::Acl)),
            Self::Node => ("a node", Field::from_bytes(bytes).map(Row::Node)),
        };
        row.map_err(|error| RowError::Field { what, error })
    }
}

/// Some rows in a piece, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    bytes: Vec<u8>,
    /// Kind and end of each.
    ends: Vec<(Kind, usize)>,
}

impl Rows {
    /// Appends a row of that kind.
    pub fn push(&mut self, kind: Kind, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.ends.push((kind, self.bytes.len()));
    }

    /// Kind and bytes of each.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(kind, end)| {
            let row = &self.bytes[start..*end];
            start = *end;
            (*kind, row)
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Not enough yet: at least so many bytes are needed.
    Need(usize),
    /// So many bytes that are no row: step over them.
    Skip(usize),
    /// A row of so many bytes, for [`Decoder::read`].
    Row(usize),
    /// The end, of so many bytes; nothing comes after it.
    End(usize),
}

/// Why bytes are no rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RowError {
    /// A count below nothing.
    #[error("{count} {what}: a count can't be negative")]
    Count {
        /// Of what.
        what: &'static str,
        /// The count.
        count: i32,
    },
    /// A length below nothing, or beyond the bound.
    #[error("{what} of {length} bytes: it can have 0 to {max}")]
    Length {
        /// Of what.
        what: &'static str,
        /// The length.
        length: i32,
        /// The bound.
        max: usize,
    },
    /// The first node is not the root, or the root comes again.
    #[error("the first node must be the root, and no other one")]
    Root,
    /// A field that can't be read.
    #[error("{what}: {error}")]
    Field {
        /// In which row.
        what: &'static str,
        /// Why.
        error: codec::Error,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    SessionCount,
    Sessions(i32),
    AclCount,
    Acls(i32),
    Root,
    Nodes,
    End,
}

/// Where in the rows one is.
#[derive(Debug, Clone)]
pub struct Decoder {
    at: At,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { at: At::SessionCount }
    }
}

/// Bytes of a session.
const SESSION: usize = 8 + 4;
/// Bytes of a node behind its data: key of the access list, and stat.
const NODE_TAIL: usize = 8 + 60;

impl Decoder {
    /// Says what comes next in `bytes`, which begin where the last row ended.
    ///
    /// # Errors
    /// See [`RowError`]; there is no way on after one.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Next, RowError> {
        match self.at {
            At::Sessions(0) => self.at = At::AclCount,
            At::Acls(0) => self.at = At::Root,
            _ => {}
        }
        let next = match self.at {
            At::SessionCount | At::AclCount => {
                let Some(count) = int(bytes, 0) else { return Ok(Next::Need(4)) };
                let (what, next): (_, fn(i32) -> At) = match self.at {
                    At::SessionCount => ("sessions", At::Sessions),
                    _ => ("access lists", At::Acls),
                };
                if count < 0 {
                    return Err(RowError::Count { what, count });
                }
                self.at = next(count);
                return Ok(Next::Skip(4));
            }
            At::Sessions(_) => Next::Row(SESSION),
            At::Acls(_) => access_list(bytes)?,
            At::Root | At::Nodes => self.node(bytes)?,
            At::End => return Ok(Next::End(0)),
        };
        match next {
            Next::Row(size) if bytes.len() < size => Ok(Next::Need(size)),
            Next::End(_) => {
                self.at = At::End;
                Ok(next)
            }
            next => Ok(next),
        }
    }

    fn node(&self, bytes: &[u8]) -> Result<Next, RowError> {
        let Some(length) = int(bytes, 0) else { return Ok(Next::Need(4)) };
        let path = bounded("a path", length, ZK_PATH_BYTES_MAX)?;
        if self.at == At::Nodes && path == NODES_END.len() {
            match bytes.get(4..4 + path) {
                None => return Ok(Next::Need(4 + path)),
                Some(end) if end == NODES_END.as_bytes() => return Ok(Next::End(4 + path)),
                Some(_) => {}
            }
        }
        if (path == 0) != (self.at == At::Root) {
            return Err(RowError::Root);
        }
        let Some(length) = int(bytes, 4 + path) else { return Ok(Next::Need(8 + path)) };
        let data = if length == -1 { 0 } else { bounded("data", length, ZK_DATA_BYTES_MAX)? };
        Ok(Next::Row(8 + path + data + NODE_TAIL))
    }

    /// Reads the row that [`Self::next`] said is there: `bytes` are as many as it said.
    ///
    /// # Errors
    /// A field that can't be read.
    pub fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<Row<'a>, RowError> {
        self.pass().read(bytes)
    }

    /// Passes over the row that [`Self::next`] said is there, and says of what kind it is.
    pub fn pass(&mut self) -> Kind {
        let (kind, next) = match self.at {
            At::Sessions(left) => (Kind::Session, At::Sessions(left.saturating_sub(1))),
            At::Acls(left) => (Kind::Acl, At::Acls(left.saturating_sub(1))),
            _ => (Kind::Node, At::Nodes),
        };
        self.at = next;
        kind
    }

    /// What is being read, for messages.
    pub fn place(&self) -> &'static str {
        match self.at {
            At::SessionCount | At::Sessions(_) => "the sessions",
            At::AclCount | At::Acls(_) => "the access lists",
            At::Root | At::Nodes | At::End => "the nodes",
        }
    }
}

const ACL_ROW: &str = "an access list";

/// Size of an access list under its key.
fn access_list(bytes: &[u8]) -> Result<Next, RowError> {
    let Some(count) = int(bytes, 8) else { return Ok(Next::Need(12)) };
    if count < -1 {
        return Err(RowError::Count { what: "entries of an access list", count });
    }
    let mut size = 12;
    for _ in 0..count {
        // The permissions, then scheme and identity.
        size += 4;
        for _ in 0..2 {
            let Some(length) = int(bytes, size) else { return Ok(Next::Need(size + 4)) };
            let length = if length == -1 { 0 } else { length };
            size += 4 + bounded("an identity", length, ZK_ACL_BYTES_MAX)?;
        }
        if size > ZK_ACL_BYTES_MAX {
            let length = i32::try_from(size).unwrap_or(i32::MAX);
            return Err(RowError::Length { what: ACL_ROW, length, max: ZK_ACL_BYTES_MAX });
        }
    }
    Ok(Next::Row(size))
}

fn int(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn bounded(what: &'static str, length: i32, max: usize) -> Result<usize, RowError> {
    usize::try_from(length).ok().filter(|length| *length <= max).ok_or(RowError::Length {
        what,
        length,
        max,
    })
}

/// Appends the tables that come before the nodes.
pub fn write_tables<'s, 'a>(
    sessions: impl ExactSizeIterator<Item = &'s SessionRow>,
    acls: impl ExactSizeIterator<Item = &'a AclRow>,
    out: &mut Vec<u8>,
) {
    count(sessions.len()).write(out);
    sessions.for_each(|session| session.write(out));
    count(acls.len()).write(out);
    acls.for_each(|acl| acl.write(out));
}

fn count(rows: usize) -> i32 {
    i32::try_from(rows).unwrap_or(i32::MAX)
}
