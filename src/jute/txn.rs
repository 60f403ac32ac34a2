//! Transactions, as logs hold them and as learners get them: a header, the record of the change,
//! and since 3.6 the digest of the tree after it.

use super::codec::{Error, Field, Reader, records};
use super::data::Acl;
use super::op::Op;
use super::path::shown;

records! {
    /// Before every transaction.
    #[derive(Copy)]
    TxnHeader {
        /// The session that asked for it.
        client_id: i64,
        /// That session's number for the request.
        cxid: i32,
        /// The transaction's number.
        zxid: i64,
        /// When, in milliseconds since 1970.
        time: i64,
        /// See [`Op`].
        op: i32,
    }

    /// The digest of the tree after the transaction.
    #[derive(Copy)]
    TxnDigest {
        /// Of the formula; 2 is known.
        version: i32,
        /// The digest.
        digest: i64,
    }

    /// `setData`, `reconfig`.
    SetDataTxn<'a> {
        /// Which node.
        path: &'a str,
        /// The data.
        data: Option<&'a [u8]>,
        /// The version that it has now.
        version: i32,
    }

    /// `setACL`.
    SetAclTxn<'a> {
        /// Which node.
        path: &'a str,
        /// Who may do what.
        acl: Vec<Acl>,
        /// The `aversion` that it has now.
        version: i32,
    }

    /// `check`.
    #[derive(Copy)]
    CheckTxn<'a> {
        /// Which node.
        path: &'a str,
        /// The version that it had to have.
        version: i32,
    }

    /// One change of a `multi`.
    SubTxn<'a> {
        /// See [`Op`].
        op: i32,
        /// Its record.
        data: Option<&'a [u8]>,
    }
}

/// A node was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTxn<'a> {
    /// Which node; a number is already behind it.
    pub path: &'a str,
    /// The data.
    pub data: Option<&'a [u8]>,
    /// Who may do what.
    pub acl: Vec<Acl>,
    /// Whom it belongs to.
    pub kind: CreateKind,
    /// The parent's `cversion` now; -1 (or not said, in old logs): one more than before.
    pub parent_cversion: i32,
}

/// Whom a node that was made belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateKind {
    /// Nobody.
    Persistent,
    /// The session in the transaction's header.
    Ephemeral,
    /// A container.
    Container,
    /// It has a time to live, in milliseconds.
    Ttl(i64),
}

/// The record of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Txn<'a> {
    /// A node was made.
    Create(CreateTxn<'a>),
    /// A node was removed.
    Delete(&'a str),
    /// A node's data were replaced.
    SetData(SetDataTxn<'a>),
    /// A node's access list was replaced.
    SetAcl(SetAclTxn<'a>),
    /// A session began, with that time-out in milliseconds.
    CreateSession(i32),
    /// A session ended; its nodes, if they are listed.
    CloseSession(Option<Vec<&'a str>>),
    /// A request failed, with that code.
    Error(i32),
    /// A version was compared.
    Check(CheckTxn<'a>),
    /// Several changes at once; if one is an error, none took place.
    Multi(Vec<SubTxn<'a>>),
}

impl<'a> Txn<'a> {
    /// Reads the record of that kind; `body` holds nothing else, but for what follows an old
    /// `create` or a `closeSession` without a list.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(op: i32, reader: &mut Reader<'a>) -> Result<Self, Error> {
        Ok(match Op::of(op) {
            Some(Op::Create | Op::Create2) => {
                let (path, data, acl) = (reader.field()?, reader.field()?, reader.field()?);
                let ephemeral: bool = reader.field()?;
                let kind = if ephemeral { CreateKind::Ephemeral } else { CreateKind::Persistent };
                // Logs from before 3.4 end here.
                let parent_cversion = if reader.rest().len() < 4 { -1 } else { reader.field()? };
                Self::Create(CreateTxn { path, data, acl, kind, parent_cversion })
            }
            Some(Op::CreateContainer) => {
                let (path, data, acl) = (reader.field()?, reader.field()?, reader.field()?);
                let (kind, parent_cversion) = (CreateKind::Container, reader.field()?);
                Self::Create(CreateTxn { path, data, acl, kind, parent_cversion })
            }
            Some(Op::CreateTtl) => {
                let (path, data, acl) = (reader.field()?, reader.field()?, reader.field()?);
                let parent_cversion = reader.field()?;
                let kind = CreateKind::Ttl(reader.field()?);
                Self::Create(CreateTxn { path, data, acl, kind, parent_cversion })
            }
            Some(Op::Delete | Op::DeleteContainer) => Self::Delete(reader.field()?),
            Some(Op::SetData | Op::Reconfig) => Self::SetData(reader.field()?),
            Some(Op::SetAcl) => Self::SetAcl(reader.field()?),
            Some(Op::CreateSession) => Self::CreateSession(reader.field()?),
            Some(Op::CloseSession) if reader.rest().len() < 4 => Self::CloseSession(None),
            Some(Op::CloseSession) => {
                // Without a list the digest follows at once: 12 bytes that begin with its version,
                // which are no list of two paths, for these have at least a letter each.
                let mut ahead = reader.clone();
                match ahead.field::<Vec<&str>>() {
                    Ok(paths)
                        if matches!(ahead.rest().len(), 0 | DIGEST_BYTES)
                            && paths.iter().all(|path| !path.is_empty()) =>
                    {
                        *reader = ahead;
                        Self::CloseSession(Some(paths))
                    }
                    _ => Self::CloseSession(None),
                }
            }
            Some(Op::Error) => Self::Error(reader.field()?),
            Some(Op::Check) => Self::Check(reader.field()?),
            Some(Op::Multi) => Self::Multi(reader.field()?),
            _ => return Err(Error::Kind(op)),
        })
    }

    /// Appends the record to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Create(create) => {
                create.path.write(out);
                create.data.write(out);
                create.acl.write(out);
                match create.kind {
                    CreateKind::Persistent | CreateKind::Ephemeral => {
                        (create.kind == CreateKind::Ephemeral).write(out);
                        create.parent_cversion.write(out);
                    }
                    CreateKind::Container => create.parent_cversion.write(out),
                    CreateKind::Ttl(ttl) => {
                        create.parent_cversion.write(out);
                        ttl.write(out);
                    }
                }
            }
            Self::Delete(path) => path.write(out),
            Self::SetData(set) => set.write(out),
            Self::SetAcl(set) => set.write(out),
            Self::CreateSession(timeout) => timeout.write(out),
            Self::CloseSession(paths) => {
                if let Some(paths) = paths {
                    paths.write(out);
                }
            }
            Self::Error(code) => code.write(out),
            Self::Check(check) => check.write(out),
            Self::Multi(changes) => changes.write(out),
        }
    }
}

const DIGEST_BYTES: usize = 12;

/// A whole transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// Its header.
    pub header: TxnHeader,
    /// Its record.
    pub txn: Txn<'a>,
    /// The digest of the tree after it, if it was written.
    pub digest: Option<TxnDigest>,
}

impl<'a> Field<'a> for Transaction<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let header: TxnHeader = reader.field()?;
        let txn = Txn::read(header.op, reader)?;
        let digest = match reader.rest().len() {
            0 => None,
            _ => Some(reader.field()?),
        };
        Ok(Self { header, txn, digest })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.header.write(out);
        self.txn.write(out);
        if let Some(digest) = &self.digest {
            digest.write(out);
        }
    }
}

/// Whether nothing is missing between two transactions: they count on, or a new epoch begins. What
/// may be missing at the end of the old epoch can't be told by the numbers.
pub fn follows(last: i64, next: i64) -> bool {
    next == last.wrapping_add(1) || (next >> 32 > last >> 32 && next & 0xffff_ffff == 1)
}

/// Names the transaction `zxid`, for people, with the node that it is about as far as that can be
/// read.
pub fn describe(zxid: i64, bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let op = TxnHeader::read(&mut reader).ok().and_then(|header| Op::of(header.op));
    let path = match op {
        Some(Op::Multi) => first_odd_path(&mut reader),
        op => op.and_then(|op| path_of(op, reader.rest())),
    };
    match path {
        Some(path) => format!("the transaction {zxid:#x} (node {})", shown(&path)),
        None => format!("the transaction {zxid:#x}"),
    }
}

/// The path that a record of that kind begins with.
fn path_of(op: Op, record: &[u8]) -> Option<String> {
    let has_one = matches!(
        op,
        Op::Create
            | Op::Create2
            | Op::CreateContainer
            | Op::CreateTtl
            | Op::Delete
            | Op::DeleteContainer
            | Op::SetData
            | Op::Reconfig
            | Op::SetAcl
            | Op::Check
    );
    let path: Result<&str, _> = Reader::new(record).field();
    path.ok().filter(|_| has_one).map(str::to_owned)
}

/// The path of the first change that can't be read, or else of the first one that has a path.
fn first_odd_path(reader: &mut Reader<'_>) -> Option<String> {
    let changes: Vec<SubTxn<'_>> = reader.field().ok()?;
    let odd = changes.iter().find(|change| {
        Txn::read(change.op, &mut Reader::new(change.data.unwrap_or_default())).is_err()
    });
    odd.into_iter().chain(&changes).find_map(|change| {
        Op::of(change.op).and_then(|op| path_of(op, change.data.unwrap_or_default()))
    })
}
