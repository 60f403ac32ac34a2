//! Lots of requests of ZooKeeper's clients, as they come through the log.

use serde::{Deserialize, Serialize};

use super::acl::Asker;
use super::ops::{Done, Work};
use super::session::{Session, imported_password};
use crate::jute::op::{ErrorCode, Op};
use crate::jute::reply::ConnectReply;
use crate::jute::{Field, Id, path};
use crate::limits::{ZK_PASSING_READS_BYTES_MAX, ZK_PASSING_READS_PER_CALLER_MAX};
use crate::state::apply::Change;
use crate::state::{Rejected, Reply};

/// What clients of one server ask, in the order in which it is carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ZkBatch {
    /// Who asks: what `requests` count into.
    pub callers: Vec<ZkCaller>,
    /// What they ask.
    pub requests: Vec<ZkRequest>,
    /// Whether hard limits of quotas hold.
    #[serde(default, skip_serializing_if = "is_false")]
    pub enforce_quota: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ZkCaller {
    /// The session; 0: none, as from the API.
    pub session: i64,
    /// The connection; see [`Session::attachment`].
    pub attachment: u64,
    /// Whom it has proven to be.
    pub ids: Vec<Id>,
    /// Whether it may do everything.
    pub superuser: bool,
}

impl ZkCaller {
    /// Bytes that it has in the log, about.
    pub fn bytes(&self) -> usize {
        64 + self.ids.iter().map(|id| 24 + id.scheme.len() + id.id.len()).sum::<usize>()
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ZkRequest {
    /// An operation that changes nodes, or a read of one that stands between such.
    Op {
        /// Place in `callers`.
        caller: u32,
        /// See [`Op`].
        op: i32,
        /// The record as the client sent it.
        #[serde(with = "serde_bytes")]
        body: Vec<u8>,
    },
    /// A new session.
    Open {
        /// In milliseconds.
        timeout: i32,
        /// Random; none: as a server of ZooKeeper would give.
        password: Option<[u8; 16]>,
        /// The connection.
        attachment: u64,
    },
    /// A session goes on on another connection.
    Attach {
        /// The session.
        session: i64,
        /// What the client says its password is.
        #[serde(with = "serde_bytes")]
        password: Vec<u8>,
        /// In milliseconds, as agreed on now.
        timeout: i32,
        /// The connection.
        attachment: u64,
    },
    /// A session ends.
    Close {
        /// The session.
        session: i64,
        /// Only if it is on this connection.
        attachment: u64,
    },
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZkReply {
    /// The newest transaction when it was carried out.
    pub zxid: i64,
    /// See [`ErrorCode`]; `ConnectionLoss`: there was no room for the answer, and the client has to
    /// come again.
    pub err: i32,
    /// The record of the reply; empty if there is an error. For a session: [`ConnectReply`].
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// Bytes that answers to reads may still take.
struct Room {
    all: usize,
    /// Of each who asks: what one takes too much is not missing to others.
    callers: Vec<usize>,
}

impl Room {
    fn take(&mut self, caller: usize, bytes: usize) -> Option<()> {
        let own = self.callers.get_mut(caller)?;
        *own = own.checked_sub(bytes)?;
        self.all = self.all.checked_sub(bytes)?;
        Some(())
    }
}

impl Change<'_> {
    pub(in crate::state) fn zk_requests(&mut self, batch: &ZkBatch) -> Result<Reply, Rejected> {
        let mut room = Room {
            all: ZK_PASSING_READS_BYTES_MAX,
            callers: vec![ZK_PASSING_READS_PER_CALLER_MAX; batch.callers.len()],
        };
        let requests = batch.requests.iter();
        let replies = requests.map(|request| self.zk_request(batch, request, &mut room));
        Ok(Reply::Zk(replies.collect()))
    }

    /// Carries one out. `room` is what answers to reads may still take.
    fn zk_request(&mut self, batch: &ZkBatch, request: &ZkRequest, room: &mut Room) -> ZkReply {
        let (err, body) = match request {
            ZkRequest::Op { caller, op, body } => {
                match self.zk_op(batch, *caller, *op, body, room) {
                    Ok(body) => (ErrorCode::Ok, body),
                    Err(code) => (code, Vec::new()),
                }
            }
            ZkRequest::Open { timeout, password, attachment } => {
                (ErrorCode::Ok, self.zk_open(*timeout, *password, *attachment).to_bytes())
            }
            ZkRequest::Attach { session, password, timeout, attachment } => {
                let reply = self.zk_attach(*session, password, *timeout, *attachment);
                (ErrorCode::Ok, reply.to_bytes())
            }
            ZkRequest::Close { session, attachment } => {
                (self.zk_close(*session, *attachment), Vec::new())
            }
        };
        ZkReply { zxid: self.state.zk.zxid, err: err.number(), body }
    }

    fn zk_op(
        &mut self,
        batch: &ZkBatch,
        place: u32,
        op: i32,
        body: &[u8],
        room: &mut Room,
    ) -> Result<Vec<u8>, ErrorCode> {
        let caller = batch.callers.get(place as usize).ok_or(ErrorCode::SystemError)?;
        if caller.session != 0 {
            match self.state.zk.sessions.get(&caller.session) {
                None => return Err(ErrorCode::SessionExpired),
                Some(session) if session.attachment != caller.attachment => {
                    return Err(ErrorCode::SessionMoved);
                }
                Some(_) => {}
            }
        }
        let op = Op::of(op).ok_or(ErrorCode::Unimplemented)?;
        let asker = Asker { ids: &caller.ids, superuser: caller.superuser };
        if matches!(op, Op::Exists | Op::GetData | Op::GetAcl) {
            let answer = self.state.zk.passing_read(op, body, asker)?;
            room.take(place as usize, answer.len()).ok_or(ErrorCode::ConnectionLoss)?;
            return Ok(answer);
        }
        let zxid = self.state.zk.zxid + 1;
        let mut work = Work {
            tree: &mut self.state.zk,
            asker,
            session: caller.session,
            zxid,
            at: self.stamp.at.0 as i64,
            enforce_quota: batch.enforce_quota,
        };
        let done = work.carry_out(op, body)?;
        let changed = !matches!(&done, Done::Multi(results) if results.iter().any(Result::is_err));
        if changed {
            self.state.zk.zxid = zxid;
        }
        Ok(done.to_bytes())
    }

    fn zk_open(
        &mut self,
        timeout: i32,
        password: Option<[u8; 16]>,
        attachment: u64,
    ) -> ConnectReply {
        let tree = &mut self.state.zk;
        // As ZooKeeper: a number for the ensemble in the highest byte, then the time. Ours is one
        // that no member of an ensemble is likely to have.
        let by_time = 0x6f << 56 | (self.stamp.at.0 << 24 >> 8) as i64 & 0x00ff_ffff_ffff_ffff;
        let mut id = by_time.max(tree.last_session + 1);
        while tree.sessions.contains_key(&id) {
            id += 1;
        }
        tree.last_session = id;
        tree.zxid += 1;
        let password = password.unwrap_or_else(|| imported_password(id));
        tree.sessions.insert(id, Session { timeout, password, attachment }.into());
        ConnectReply { protocol_version: 0, timeout, session_id: id, password, read_only: None }
    }

    fn zk_attach(
        &mut self,
        id: i64,
        password: &[u8],
        timeout: i32,
        attachment: u64,
    ) -> ConnectReply {
        match self.state.zk.sessions.get_mut(&id) {
            Some(session) if session.password == password => {
                let password = session.password;
                *session = Session { timeout, password, attachment }.into();
                ConnectReply {
                    protocol_version: 0,
                    timeout,
                    session_id: id,
                    password,
                    read_only: None,
                }
            }
            _ => ConnectReply::expired(None),
        }
    }

    fn zk_close(&mut self, id: i64, attachment: u64) -> ErrorCode {
        match self.state.zk.sessions.get(&id) {
            None => ErrorCode::SessionExpired,
            Some(session) if session.attachment != attachment => ErrorCode::SessionMoved,
            Some(_) => {
                self.zk_end_session(id);
                ErrorCode::Ok
            }
        }
    }

    /// Ends a session and removes what goes with it, as one transaction.
    fn zk_end_session(&mut self, id: i64) {
        let tree = &mut self.state.zk;
        tree.zxid += 1;
        tree.end_session(id, tree.zxid);
    }

    /// Sessions that were not heard in their time; those that have come back meanwhile stay.
    pub(in crate::state) fn zk_expire(
        &mut self,
        sessions: &[(i64, u64)],
    ) -> Result<Reply, Rejected> {
        for (id, attachment) in sessions {
            let known = self.state.zk.sessions.get(id);
            if known.is_some_and(|session| session.attachment == *attachment) {
                self.zk_end_session(*id);
            }
        }
        Ok(Reply::Done)
    }
}

impl super::Tree {
    /// Forgets a session and removes what goes with it.
    pub(super) fn end_session(&mut self, id: i64, zxid: i64) {
        self.sessions.remove(&id);
        let paths: Vec<_> = self.ephemerals_of(id).cloned().collect();
        for path in paths {
            self.remove(&path, zxid);
            if let Some((above, _)) = path::split(&path) {
                self.change_stat(above, |stat| stat.pzxid = stat.pzxid.max(zxid));
            }
        }
    }
}
