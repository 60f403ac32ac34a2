//! What sessions ask: each request with its bytes, and its reply as text that is the same on both
//! sides if the servers are alike. Transaction numbers are taken out of it, to be compared by
//! their order.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use orch::jute::reply::{
    AclReply, ChildrenReply, CreateReply, DataReply, ErrorReply, MultiReply, MultiResult,
    NamesReply, NumberReply, PathReply, SaslReply, StatReply, WhoAmIReply,
};
use orch::jute::request::{
    AddWatchRequest, AuthPacket, CreateRequest, CreateTtlRequest, MultiHeader, MultiReadRequest,
    PathRequest, RemoveWatchesRequest, SaslRequest, SetAclRequest, SetDataRequest,
    SetWatches2Request, SetWatchesRequest, VersionRequest, WatchRequest,
};
use orch::jute::{Acl, Error, Field, Op, Reader, Stat};

/// A request. Texts and numbers are whatever a client may send, good or bad.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    Create {
        op: Op,
        path: String,
        data: Option<Vec<u8>>,
        acl: Vec<Acl>,
        flags: i32,
        ttl: i64,
    },
    Version {
        op: Op,
        path: String,
        version: i32,
    },
    Set {
        path: String,
        data: Option<Vec<u8>>,
        version: i32,
    },
    SetAcl {
        path: String,
        acl: Vec<Acl>,
        version: i32,
    },
    Look {
        op: Op,
        path: String,
        watch: bool,
    },
    Path {
        op: Op,
        path: String,
    },
    Multi(Vec<Ask>),
    MultiRead(Vec<(Op, String)>),
    Auth {
        scheme: String,
        auth: Vec<u8>,
    },
    /// `recent`: since the newest transaction that the session has seen; else since ever.
    SetWatches {
        with_persistent: bool,
        recent: bool,
        lists: [Vec<String>; 5],
    },
    AddWatch {
        path: String,
        mode: i32,
    },
    Watches {
        op: Op,
        path: String,
        kind: i32,
    },
    WhoAmI,
    Ping,
    Sasl(Vec<u8>),
    /// Bytes that are no such request.
    Raw {
        op: i32,
        body: Vec<u8>,
    },
}

impl Ask {
    /// Its operation.
    pub fn op(&self) -> i32 {
        let op = match self {
            Self::Create { op, .. }
            | Self::Version { op, .. }
            | Self::Look { op, .. }
            | Self::Path { op, .. }
            | Self::Watches { op, .. } => *op,
            Self::Set { .. } => Op::SetData,
            Self::SetAcl { .. } => Op::SetAcl,
            Self::Multi(_) => Op::Multi,
            Self::MultiRead(_) => Op::MultiRead,
            Self::Auth { .. } => Op::Auth,
            Self::SetWatches { with_persistent: true, .. } => Op::SetWatches2,
            Self::SetWatches { .. } => Op::SetWatches,
            Self::AddWatch { .. } => Op::AddWatch,
            Self::WhoAmI => Op::WhoAmI,
            Self::Ping => Op::Ping,
            Self::Sasl(_) => Op::Sasl,
            Self::Raw { op, .. } => return *op,
        };
        op.number()
    }

    /// The id in its header, where that is not the session's next one.
    pub fn xid(&self) -> Option<i32> {
        match self {
            Self::Auth { .. } => Some(-4),
            Self::Ping => Some(-2),
            Self::SetWatches { with_persistent: false, .. } => Some(-8),
            _ => None,
        }
    }

    /// Whether servers may answer it past what was asked before it.
    pub fn goes_alone(&self) -> bool {
        matches!(self, Self::Auth { .. } | Self::Sasl(_) | Self::Ping | Self::Raw { .. })
    }

    /// Its bytes behind the header; `last_zxid` is the newest that the session has seen.
    pub fn write(&self, last_zxid: i64, out: &mut Vec<u8>) {
        match self {
            Self::Create { op: Op::CreateTtl, path, data, acl, flags, ttl } => {
                let (data, acl, flags, ttl) = (data.as_deref(), acl.clone(), *flags, *ttl);
                CreateTtlRequest { path, data, acl, flags, ttl }.write(out);
            }
            Self::Create { path, data, acl, flags, .. } => {
                let (data, acl, flags) = (data.as_deref(), acl.clone(), *flags);
                CreateRequest { path, data, acl, flags }.write(out);
            }
            Self::Version { path, version, .. } => {
                VersionRequest { path, version: *version }.write(out);
            }
            Self::Set { path, data, version } => {
                let (data, version) = (data.as_deref(), *version);
                SetDataRequest { path, data, version }.write(out);
            }
            Self::SetAcl { path, acl, version } => {
                let (acl, version) = (acl.clone(), *version);
                SetAclRequest { path, acl, version }.write(out);
            }
            Self::Look { path, watch, .. } => WatchRequest { path, watch: *watch }.write(out),
            Self::Path { path, .. } => PathRequest { path }.write(out),
            Self::Multi(asks) => {
                for ask in asks {
                    MultiHeader { op: ask.op(), done: false, err: -1 }.write(out);
                    ask.write(last_zxid, out);
                }
                MultiHeader::END.write(out);
            }
            Self::MultiRead(asks) => {
                let ops = asks.iter();
                let ops = ops.map(|(op, path)| (*op, WatchRequest { path, watch: false }));
                MultiReadRequest { ops: ops.collect() }.write(out);
            }
            Self::Auth { scheme, auth } => {
                AuthPacket { kind: 0, scheme, auth: Some(auth) }.write(out);
            }
            Self::SetWatches { with_persistent, recent, lists } => {
                let relative_zxid = if *recent { last_zxid } else { 0 };
                let list = |i: usize| lists[i].iter().map(String::as_str).collect();
                let (data, exist, child) = (list(0), list(1), list(2));
                if *with_persistent {
                    let (persistent, persistent_recursive) = (list(3), list(4));
                    SetWatches2Request {
                        relative_zxid,
                        data,
                        exist,
                        child,
                        persistent,
                        persistent_recursive,
                    }
                    .write(out);
                } else {
                    SetWatchesRequest { relative_zxid, data, exist, child }.write(out);
                }
            }
            Self::AddWatch { path, mode } => AddWatchRequest { path, mode: *mode }.write(out),
            Self::Watches { path, kind, .. } => {
                RemoveWatchesRequest { path, kind: *kind }.write(out);
            }
            Self::WhoAmI | Self::Ping => {}
            Self::Sasl(token) => SaslRequest { token: Some(token) }.write(out),
            Self::Raw { body, .. } => out.extend_from_slice(body),
        }
    }

    /// The record of a reply without error, as text; its transaction numbers go to `seen`.
    pub fn read(&self, body: &[u8], seen: &mut Seen<'_>) -> Result<String, Error> {
        Ok(match self {
            Self::Create { op: Op::Create, .. } => PathReply::from_bytes(body)?.path.to_owned(),
            Self::Create { .. } => {
                let CreateReply { path, stat } = Field::from_bytes(body)?;
                format!("{path} {}", seen.stat(&stat))
            }
            Self::Set { .. } | Self::SetAcl { .. } | Self::Look { op: Op::Exists, .. } => {
                seen.stat(&StatReply::from_bytes(body)?.stat)
            }
            Self::Look { op: Op::GetData, .. } => {
                let DataReply { data, stat } = Field::from_bytes(body)?;
                format!("{data:?} {}", seen.stat(&stat))
            }
            Self::Look { op: Op::GetChildren, .. } => {
                format!("{:?}", sorted(NamesReply::from_bytes(body)?.names))
            }
            Self::Look { .. } => {
                let ChildrenReply { names, stat } = Field::from_bytes(body)?;
                format!("{:?} {}", sorted(names), seen.stat(&stat))
            }
            Self::Path { op: Op::GetAcl, .. } => {
                let AclReply { acl, stat } = Field::from_bytes(body)?;
                format!("{} {}", acl_text(&acl), seen.stat(&stat))
            }
            Self::Path { op: Op::GetEphemerals, .. } => {
                format!("{:?}", sorted(NamesReply::from_bytes(body)?.names))
            }
            Self::Path { op: Op::GetAllChildrenNumber, .. } => {
                NumberReply::from_bytes(body)?.number.to_string()
            }
            Self::Path { .. } => PathReply::from_bytes(body)?.path.to_owned(),
            Self::Multi(_) | Self::MultiRead(_) => multi_text(&MultiReply::from_bytes(body)?, seen),
            Self::AddWatch { .. } => ErrorReply::from_bytes(body)?.err.to_string(),
            Self::WhoAmI => {
                let clients = WhoAmIReply::from_bytes(body)?.clients;
                let ids = clients.iter().map(|id| format!("{}:{}", id.scheme, id.id));
                format!("{:?}", sorted(ids.collect()))
            }
            Self::Sasl(_) => format!("{:?}", SaslReply::from_bytes(body)?.token),
            Self::Version { .. }
            | Self::Auth { .. }
            | Self::SetWatches { .. }
            | Self::Watches { .. }
            | Self::Ping
            | Self::Raw { .. } => format!("{} bytes", body.len()),
        })
    }

    /// Whether its reply's own number is that of the transaction that it made.
    pub fn makes_transaction(&self) -> bool {
        match self {
            Self::Create { .. } | Self::Set { .. } | Self::SetAcl { .. } => true,
            Self::Version { op, .. } => *op == Op::Delete,
            _ => false,
        }
    }
}

/// What is taken out of replies.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Transaction numbers, in the order of the fields.
    pub zxids: Vec<i64>,
    /// Which session of the test has which id.
    pub sessions: &'a BTreeMap<i64, usize>,
}

impl Seen<'_> {
    fn stat(&mut self, stat: &Stat) -> String {
        self.zxids.extend([stat.czxid, stat.mzxid, stat.pzxid]);
        let owner = match (stat.ephemeral_owner, self.sessions.get(&stat.ephemeral_owner)) {
            (0, _) => "nobody".to_owned(),
            (_, Some(session)) => format!("session {session}"),
            (other, None) => format!("{other:#x}"),
        };
        format!(
            "[version {} cversion {} aversion {} owner {owner} length {} children {}]",
            stat.version, stat.cversion, stat.aversion, stat.data_length, stat.num_children
        )
    }
}

fn multi_text(reply: &MultiReply<'_>, seen: &mut Seen<'_>) -> String {
    let mut text = String::new();
    for result in &reply.results {
        let one = match result {
            MultiResult::Error(err) => format!("error {err}"),
            MultiResult::Create(reply) => format!("create {}", reply.path),
            MultiResult::Create2(reply) => {
                format!("create2 {} {}", reply.path, seen.stat(&reply.stat))
            }
            MultiResult::Delete => "delete".to_owned(),
            MultiResult::SetData(reply) => format!("set {}", seen.stat(&reply.stat)),
            MultiResult::Check => "check".to_owned(),
            MultiResult::GetData(reply) => {
                format!("data {:?} {}", reply.data, seen.stat(&reply.stat))
            }
            MultiResult::GetChildren(reply) => {
                format!("children {:?}", sorted(reply.names.clone()))
            }
        };
        let _ = write!(text, "{one}; ");
    }
    text
}

/// Sorted: what `auth` stands for comes in no order that ZooKeeper promises.
fn acl_text(acl: &[Acl]) -> String {
    let all = acl.iter().map(|acl| format!("{}:{}:{}", acl.id.scheme, acl.id.id, acl.perms));
    sorted(all.collect()).join(",")
}

fn sorted<T: Ord>(mut items: Vec<T>) -> Vec<T> {
    items.sort();
    items
}

/// Of a reply or an event: the header's fields, and the rest.
pub fn split(frame: &[u8]) -> (i32, i64, i32, &[u8]) {
    let mut reader = Reader::new(frame);
    let mut header = || -> Result<_, Error> {
        Ok((reader.field::<i32>()?, reader.field::<i64>()?, reader.field::<i32>()?))
    };
    let (xid, zxid, err) = header().expect("a frame has a header");
    (xid, zxid, err, reader.rest())
}
