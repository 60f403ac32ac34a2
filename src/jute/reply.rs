//! What a server answers. A frame is a [`ReplyHeader`] and, if all went well, the record of the
//! operation; the answer to the first frame is a [`ConnectReply`] alone.

use super::codec::{Error, Field, Reader, records};
use super::data::{Acl, Id, Stat};
use super::op::Op;
use super::request::MultiHeader;

/// The answer to the first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectReply {
    /// Always 0.
    pub protocol_version: i32,
    /// The session time-out agreed on, in milliseconds; 0: the session has expired.
    pub timeout: i32,
    /// The session.
    pub session_id: i64,
    /// Its password.
    pub password: [u8; 16],
    /// Whether this server only reads; left out for clients that did not ask.
    pub read_only: Option<bool>,
}

impl ConnectReply {
    /// The session is not, or no longer, there.
    pub fn expired(read_only: Option<bool>) -> Self {
        Self { protocol_version: 0, timeout: 0, session_id: 0, password: [0; 16], read_only }
    }
}

impl Field<'_> for ConnectReply {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let (protocol_version, timeout, session_id) =
            (reader.field()?, reader.field()?, reader.field()?);
        let password: Option<&[u8]> = reader.field()?;
        let password = password.unwrap_or_default();
        let password = password
            .try_into()
            .map_err(|_| Error::Length(i32::try_from(password.len()).unwrap_or(i32::MAX)))?;
        let read_only = if reader.rest().is_empty() { None } else { Some(reader.field()?) };
        Ok(Self { protocol_version, timeout, session_id, password, read_only })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.protocol_version.write(out);
        self.timeout.write(out);
        self.session_id.write(out);
        Some(self.password.as_slice()).write(out);
        if let Some(read_only) = self.read_only {
            read_only.write(out);
        }
    }
}

records! {
    /// Before every answer but the first.
    #[derive(Copy)]
    ReplyHeader {
        /// The client's number for the request.
        xid: i32,
        /// The newest transaction that the server has applied.
        zxid: i64,
        /// See [`super::op::ErrorCode`].
        err: i32,
    }

    /// A node changed, or the connection's state did.
    WatcherEvent<'a> {
        /// 1 created, 2 deleted, 3 data, 4 children, -1 none, 5 to 7 a watch was removed.
        kind: i32,
        /// 3: connected.
        state: i32,
        /// Which node.
        path: &'a str,
    }

    /// `create`, `sync`.
    PathReply<'a> {
        /// The node's path.
        path: &'a str,
    }

    /// `create2` and its likes.
    CreateReply<'a> {
        /// The node's path.
        path: &'a str,
        /// Its stat.
        stat: Stat,
    }

    /// `exists`, `setData`, `setACL`.
    StatReply {
        /// The node's stat.
        stat: Stat,
    }

    /// `getData`.
    DataReply<'a> {
        /// The data.
        data: Option<&'a [u8]>,
        /// The node's stat.
        stat: Stat,
    }

    /// `getACL`.
    AclReply {
        /// Who may do what.
        acl: Vec<Acl>,
        /// The node's stat.
        stat: Stat,
    }

    /// `getChildren`, `getEphemerals`.
    NamesReply<'a> {
        /// Names, or paths.
        names: Vec<&'a str>,
    }

    /// `getChildren2`.
    ChildrenReply<'a> {
        /// Names.
        names: Vec<&'a str>,
        /// The node's stat.
        stat: Stat,
    }

    /// `getAllChildrenNumber`.
    NumberReply {
        /// How many.
        number: i32,
    }

    /// `whoAmI`.
    WhoAmIReply {
        /// Scheme and user of each identity.
        clients: Vec<Id>,
    }

    /// `addWatch`, and the error of an operation of a multi.
    ErrorReply {
        /// See [`super::op::ErrorCode`].
        err: i32,
    }

    /// `sasl`.
    SaslReply<'a> {
        /// A token.
        token: Option<&'a [u8]>,
    }
}

/// The answer to one operation of a `multi` or `multiRead`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiResult<'a> {
    /// It was not carried out, and why.
    Error(i32),
    /// `create`.
    Create(PathReply<'a>),
    /// `create2` and its likes.
    Create2(CreateReply<'a>),
    /// `delete`.
    Delete,
    /// `setData`.
    SetData(StatReply),
    /// `check`.
    Check,
    /// `getData`.
    GetData(DataReply<'a>),
    /// `getChildren`.
    GetChildren(NamesReply<'a>),
}

/// The answer to a `multi` or `multiRead`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiReply<'a> {
    /// One for each operation.
    pub results: Vec<MultiResult<'a>>,
}

impl<'a> Field<'a> for MultiReply<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mut results = Vec::new();
        loop {
            let header: MultiHeader = reader.field()?;
            if header.done {
                return Ok(Self { results });
            }
            results.push(match Op::of(header.op) {
                Some(Op::Error) => MultiResult::Error(reader.field::<ErrorReply>()?.err),
                Some(Op::Create) => MultiResult::Create(reader.field()?),
                Some(Op::Create2) => MultiResult::Create2(reader.field()?),
                Some(Op::Delete) => MultiResult::Delete,
                Some(Op::SetData) => MultiResult::SetData(reader.field()?),
                Some(Op::Check) => MultiResult::Check,
                Some(Op::GetData) => MultiResult::GetData(reader.field()?),
                Some(Op::GetChildren) => MultiResult::GetChildren(reader.field()?),
                _ => return Err(Error::Kind(header.op)),
            });
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let head = |op: Op, out: &mut Vec<u8>| {
            MultiHeader { op: op.number(), done: false, err: 0 }.write(out);
        };
        for result in &self.results {
            match result {
                MultiResult::Error(err) => {
                    MultiHeader { op: Op::Error.number(), done: false, err: *err }.write(out);
                    err.write(out);
                }
                MultiResult::Create(reply) => {
                    head(Op::Create, out);
                    reply.write(out);
                }
                MultiResult::Create2(reply) => {
                    head(Op::Create2, out);
                    reply.write(out);
                }
                MultiResult::Delete => head(Op::Delete, out),
                MultiResult::SetData(reply) => {
                    head(Op::SetData, out);
                    reply.write(out);
                }
                MultiResult::Check => head(Op::Check, out),
                MultiResult::GetData(reply) => {
                    head(Op::GetData, out);
                    reply.write(out);
                }
                MultiResult::GetChildren(reply) => {
                    head(Op::GetChildren, out);
                    reply.write(out);
                }
            }
        }
        MultiHeader::END.write(out);
    }
}
