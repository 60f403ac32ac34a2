//! What clients ask. A frame is a [`RequestHeader`] and the record of its operation; the first
//! frame of a connection is a [`ConnectRequest`] alone.

use super::codec::{Error, Field, Reader, records};
use super::data::Acl;
use super::op::Op;

/// The first frame: a session is wanted, or one goes on here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Always 0.
    pub protocol_version: i32,
    /// The newest transaction that the client has seen.
    pub last_zxid_seen: i64,
    /// The session time-out asked for, in milliseconds.
    pub timeout: i32,
    /// The session; 0: a new one.
    pub session_id: i64,
    /// Its password; 16 bytes.
    pub password: Vec<u8>,
    /// Whether a server that only reads will do; clients before 3.4 don't say.
    pub read_only: Option<bool>,
}

impl Field<'_> for ConnectRequest {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            protocol_version: reader.field()?,
            last_zxid_seen: reader.field()?,
            timeout: reader.field()?,
            session_id: reader.field()?,
            password: reader.field::<Option<&[u8]>>()?.unwrap_or_default().to_vec(),
            read_only: if reader.rest().is_empty() { None } else { Some(reader.field()?) },
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.protocol_version.write(out);
        self.last_zxid_seen.write(out);
        self.timeout.write(out);
        self.session_id.write(out);
        Some(self.password.as_slice()).write(out);
        if let Some(read_only) = self.read_only {
            read_only.write(out);
        }
    }
}

records! {
    /// Before every request but the first.
    #[derive(Copy)]
    RequestHeader {
        /// The client's number for it; the reply has the same.
        xid: i32,
        /// See [`Op`].
        op: i32,
    }

    /// `create`, `create2`, `createContainer`.
    CreateRequest<'a> {
        /// Where; with a sequential flag, what the number is put behind.
        path: &'a str,
        /// The data.
        data: Option<&'a [u8]>,
        /// Who may do what.
        acl: Vec<Acl>,
        /// See [`super::op::CreateMode`].
        flags: i32,
    }

    /// `createTTL`.
    CreateTtlRequest<'a> {
        /// As in [`CreateRequest`].
        path: &'a str,
        /// As in [`CreateRequest`].
        data: Option<&'a [u8]>,
        /// As in [`CreateRequest`].
        acl: Vec<Acl>,
        /// As in [`CreateRequest`].
        flags: i32,
        /// Time to live, in milliseconds.
        ttl: i64,
    }

    /// `delete`, `check`.
    VersionRequest<'a> {
        /// Which node.
        path: &'a str,
        /// Only in this version; -1: in any.
        version: i32,
    }

    /// `setData`.
    SetDataRequest<'a> {
        /// Which node.
        path: &'a str,
        /// The data.
        data: Option<&'a [u8]>,
        /// Only in this version; -1: in any.
        version: i32,
    }

    /// `setACL`.
    SetAclRequest<'a> {
        /// Which node.
        path: &'a str,
        /// Who may do what.
        acl: Vec<Acl>,
        /// Only in this `aversion`; -1: in any.
        version: i32,
    }

    /// `exists`, `getData`, `getChildren`, `getChildren2`.
    WatchRequest<'a> {
        /// Which node.
        path: &'a str,
        /// Tell once when it changes.
        watch: bool,
    }

    /// `getACL`, `sync`, `getEphemerals`, `getAllChildrenNumber`, `deleteContainer`.
    PathRequest<'a> {
        /// Which node, or the beginning of its path.
        path: &'a str,
    }

    /// `setWatches`.
    SetWatchesRequest<'a> {
        /// The newest transaction that the client has seen.
        relative_zxid: i64,
        /// Watches on data.
        data: Vec<&'a str>,
        /// Watches on nodes that were not there.
        exist: Vec<&'a str>,
        /// Watches on children.
        child: Vec<&'a str>,
    }

    /// `setWatches2`.
    SetWatches2Request<'a> {
        /// As in [`SetWatchesRequest`].
        relative_zxid: i64,
        /// As in [`SetWatchesRequest`].
        data: Vec<&'a str>,
        /// As in [`SetWatchesRequest`].
        exist: Vec<&'a str>,
        /// As in [`SetWatchesRequest`].
        child: Vec<&'a str>,
        /// Persistent ones.
        persistent: Vec<&'a str>,
        /// Persistent ones that hold for everything below as well.
        persistent_recursive: Vec<&'a str>,
    }

    /// `addWatch`.
    AddWatchRequest<'a> {
        /// Which node.
        path: &'a str,
        /// 0: persistent, 1: persistent and recursive.
        mode: i32,
    }

    /// `reconfig`.
    ReconfigRequest<'a> {
        /// Servers to add, as `server.N=…`, with commas.
        joining: &'a str,
        /// Numbers of servers to take out, with commas.
        leaving: &'a str,
        /// All servers, in the place of those that are known.
        new_members: &'a str,
        /// Only in this version; -1: in any.
        config_id: i64,
    }

    /// `checkWatches`, `removeWatches`.
    RemoveWatchesRequest<'a> {
        /// Which node.
        path: &'a str,
        /// 1 children, 2 data, 3 any, 4 persistent, 5 persistent and recursive.
        kind: i32,
    }

    /// `auth`.
    AuthPacket<'a> {
        /// Always 0.
        kind: i32,
        /// The scheme.
        scheme: &'a str,
        /// What proves the identity.
        auth: Option<&'a [u8]>,
    }

    /// `sasl`.
    SaslRequest<'a> {
        /// A token.
        token: Option<&'a [u8]>,
    }

    /// Before each operation of a `multi`, and after the last one.
    #[derive(Copy)]
    MultiHeader {
        /// See [`Op`]; -1 at the end.
        op: i32,
        /// Whether this is the end.
        done: bool,
        /// -1, or in replies the error.
        err: i32,
    }
}

impl MultiHeader {
    /// Before an operation.
    pub fn before(op: Op) -> Self {
        Self { op: op.number(), done: false, err: -1 }
    }

    /// After the last one.
    pub const END: Self = Self { op: -1, done: true, err: -1 };
}

/// An operation of a `multi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MultiOp<'a> {
    /// Make a node.
    Create(CreateRequest<'a>),
    /// Make a node; the stat comes back as well.
    Create2(CreateRequest<'a>),
    /// Make a container.
    CreateContainer(CreateRequest<'a>),
    /// Make a node with a time to live.
    CreateTtl(CreateTtlRequest<'a>),
    /// Remove a node.
    Delete(VersionRequest<'a>),
    /// Replace data.
    SetData(SetDataRequest<'a>),
    /// Compare a version.
    Check(VersionRequest<'a>),
}

impl MultiOp<'_> {
    /// Which it is.
    pub fn op(&self) -> Op {
        match self {
            Self::Create(_) => Op::Create,
            Self::Create2(_) => Op::Create2,
            Self::CreateContainer(_) => Op::CreateContainer,
            Self::CreateTtl(_) => Op::CreateTtl,
            Self::Delete(_) => Op::Delete,
            Self::SetData(_) => Op::SetData,
            Self::Check(_) => Op::Check,
        }
    }
}

/// `multi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiRequest<'a> {
    /// In the order in which they are carried out.
    pub ops: Vec<MultiOp<'a>>,
}

impl<'a> Field<'a> for MultiRequest<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mut ops = Vec::new();
        loop {
            let header: MultiHeader = reader.field()?;
            if header.done {
                return Ok(Self { ops });
            }
            ops.push(match Op::of(header.op) {
                Some(Op::Create) => MultiOp::Create(reader.field()?),
                Some(Op::Create2) => MultiOp::Create2(reader.field()?),
                Some(Op::CreateContainer) => MultiOp::CreateContainer(reader.field()?),
                Some(Op::CreateTtl) => MultiOp::CreateTtl(reader.field()?),
                Some(Op::Delete) => MultiOp::Delete(reader.field()?),
                Some(Op::SetData) => MultiOp::SetData(reader.field()?),
                Some(Op::Check) => MultiOp::Check(reader.field()?),
                _ => return Err(Error::Kind(header.op)),
            });
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        for op in &self.ops {
            MultiHeader::before(op.op()).write(out);
            match op {
                MultiOp::Create(create)
                | MultiOp::Create2(create)
                | MultiOp::CreateContainer(create) => create.write(out),
                MultiOp::CreateTtl(create) => create.write(out),
                MultiOp::Delete(request) | MultiOp::Check(request) => request.write(out),
                MultiOp::SetData(request) => request.write(out),
            }
        }
        MultiHeader::END.write(out);
    }
}

/// `multiRead`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MultiReadRequest<'a> {
    /// `getData` or `getChildren`, in order.
    pub ops: Vec<(Op, WatchRequest<'a>)>,
}

impl<'a> Field<'a> for MultiReadRequest<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let mut ops = Vec::new();
        loop {
            let header: MultiHeader = reader.field()?;
            if header.done {
                return Ok(Self { ops });
            }
            match Op::of(header.op) {
                Some(op @ (Op::GetData | Op::GetChildren)) => ops.push((op, reader.field()?)),
                _ => return Err(Error::Kind(header.op)),
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (op, request) in &self.ops {
            MultiHeader::before(*op).write(out);
            request.write(out);
        }
        MultiHeader::END.write(out);
    }
}
