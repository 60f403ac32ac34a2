//! What clients ask: sorted into what is answered at once, what waits for its turn, and what goes
//! through the log.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha1::{Digest, Sha1};
use std::sync::Arc;

use super::conn::Stage;
use super::pipeline::{Item, Lot, Released};
use super::{Hub, ZkRequest};
use crate::jute::op::{ErrorCode, Op, XID_PING};
use crate::jute::reply::{ConnectReply, ErrorReply, SaslReply};
use crate::jute::request::{
    AddWatchRequest, AuthPacket, ConnectRequest, PathRequest, RemoveWatchesRequest, RequestHeader,
    SetWatches2Request, SetWatchesRequest,
};
use crate::jute::{Field, Id, Reader};
use crate::limits::{
    ZK_ID_BYTES_MAX, ZK_IDS_BYTES_MAX, ZK_IDS_MAX, ZK_WATCHED_BYTES_PER_CONNECTION_MAX,
    ZK_WATCHES_PER_CONNECTION_MAX,
};
use crate::zookeeper::connection::Room;
use crate::zookeeper::reads::{self, Armed, Caller};
use crate::zookeeper::watches::{ConnId, Mode, Which};

/// What is done with an operation.
enum Way {
    /// Answered from the view.
    Read,
    /// Through the log.
    Write,
    /// Not known, or not for clients.
    Unknown,
}

fn way(op: Op) -> Way {
    match op {
        Op::Exists
        | Op::GetData
        | Op::GetAcl
        | Op::GetChildren
        | Op::GetChildren2
        | Op::MultiRead
        | Op::GetEphemerals
        | Op::GetAllChildrenNumber
        | Op::WhoAmI
        | Op::SetWatches
        | Op::SetWatches2
        | Op::AddWatch
        | Op::CheckWatches
        | Op::RemoveWatches => Way::Read,
        Op::Create
        | Op::Create2
        | Op::CreateContainer
        | Op::CreateTtl
        | Op::Delete
        | Op::SetData
        | Op::SetAcl
        | Op::Check
        | Op::Reconfig
        | Op::Multi => Way::Write,
        _ => Way::Unknown,
    }
}

impl Hub {
    /// The first frame of a connection.
    pub(super) fn connect(&mut self, id: ConnId, request: &Bytes) {
        let newest = self.tree().zxid();
        let (has_leader, may_only_read) = (self.has_leader(), self.around.config.read_only);
        let attachment = self.around.clock.random();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Ok(request) = ConnectRequest::from_bytes(request) else {
            tracing::debug!(peer = %conn.peer, "a first frame that can't be read: closed");
            self.forget(id);
            return;
        };
        if request.last_zxid_seen > newest {
            tracing::info!(
                peer = %conn.peer,
                "closed: the client has seen 0x{:x}, this server only 0x{newest:x}",
                request.last_zxid_seen
            );
            self.forget(id);
            return;
        }
        let timeout = self.around.config.timeout(request.timeout);
        conn.read_only = request.read_only;
        conn.attachment = attachment;
        conn.timeout = timeout;
        if !has_leader {
            if may_only_read && request.read_only == Some(true) {
                self.connect_locally(id);
            } else {
                self.forget(id);
            }
            return;
        }
        let request = if request.session_id == 0 {
            // As long as clients may have to go back to an ensemble, sessions get the passwords
            // that it would give them.
            let back = self
                .view
                .state
                .zk_imports()
                .any(|(_, import)| import.status.live && import.is_open());
            let random = || {
                let halves = [self.around.clock.random(), self.around.clock.random()];
                let mut password = [0; 16];
                password[..8].copy_from_slice(&halves[0].to_be_bytes());
                password[8..].copy_from_slice(&halves[1].to_be_bytes());
                password
            };
            ZkRequest::Open { timeout, password: (!back).then(random), attachment }
        } else {
            let (session, password) = (request.session_id, request.password);
            ZkRequest::Attach { session, password, timeout, attachment }
        };
        self.gather_session(id, request);
    }

    /// A session of this server alone: nobody leads, and the client wants no more than to read.
    fn connect_locally(&mut self, id: ConnId) {
        let session = (self.around.clock.random() >> 2) as i64;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.stage = Stage::Open;
        conn.session = session;
        conn.is_local = true;
        conn.rename();
        let (protocol_version, timeout, read_only) = (0, conn.timeout, Some(true));
        let password = [0; 16];
        let hello =
            ConnectReply { protocol_version, timeout, session_id: session, password, read_only };
        conn.hello(&hello.to_bytes());
        self.touched.insert(id);
    }

    /// Frames that came before the session was there.
    pub(super) fn take_held(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        for (frames, room) in std::mem::take(&mut conn.held) {
            self.take_frames(id, frames, room);
        }
    }

    pub(super) fn take_frames(&mut self, id: ConnId, frames: Vec<Bytes>, room: Arc<Room>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match conn.stage {
            Stage::Connecting => {
                conn.held.push((frames, room));
                return;
            }
            Stage::Closing => return,
            Stage::Open => {}
        }
        if !conn.is_local {
            self.heard.insert(conn.session);
        }
        conn.lot = Lot { arrived: self.now, room: Some(room) };
        self.received += frames.len() as u64;
        self.touched.insert(id);
        for frame in frames {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            if conn.stage != Stage::Open {
                return;
            }
            conn.figures.received += 1;
            let mut reader = Reader::new(&frame);
            let Ok(header) = reader.field::<RequestHeader>() else {
                tracing::debug!(peer = %conn.peer, "a request without a head: closed");
                self.close(id);
                return;
            };
            let body = frame.slice_ref(reader.rest());
            self.take_request(id, header, body);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.lot.room = None;
        }
    }

    fn take_request(&mut self, id: ConnId, header: RequestHeader, body: Bytes) {
        let RequestHeader { xid, op } = header;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.figures.last_xid = xid;
        conn.figures.last_op = Op::of(op);
        let Some(op) = Op::of(op) else {
            self.refuse(id, xid);
            return;
        };
        match op {
            // A sign of life waits for nothing: it says that the server is there.
            Op::Ping => {
                let zxid = conn.pipeline.told(self.view.state.zk().zxid());
                conn.reply(XID_PING, zxid, ErrorCode::Ok, &[]);
            }
            Op::Auth => self.auth(id, xid, &body),
            Op::Sasl => {
                let body = SaslReply { token: None }.to_bytes();
                conn.push(Item::Known { xid, err: ErrorCode::Ok, body });
            }
            Op::Reconfig if !self.around.config.reconfig => {
                let (err, body) = (ErrorCode::ReconfigDisabled, Vec::new());
                conn.push(Item::Known { xid, err, body });
            }
            Op::Sync => {
                let path = PathRequest::from_bytes(&body).is_ok();
                if conn.is_local || !path {
                    let err =
                        if path { ErrorCode::NotReadOnly } else { ErrorCode::MarshallingError };
                    conn.push(Item::Known { xid, err, body: Vec::new() });
                    return;
                }
                // The answer is the path, as it was asked.
                let number = self.sync(id, body.to_vec());
                if let Some(conn) = self.conns.get_mut(&id) {
                    conn.push(Item::Later { xid, number, zxid: None, answer: None });
                }
            }
            Op::CloseSession if conn.is_local => {
                // Behind what was asked before.
                conn.push(Item::Known { xid, err: ErrorCode::Ok, body: Vec::new() });
                conn.stage = Stage::Closing;
            }
            Op::CloseSession => self.write(id, xid, op, body),
            op => match way(op) {
                Way::Read => conn.push(Item::Read { xid, op, body }),
                Way::Write if conn.is_local => {
                    let (err, body) = (ErrorCode::NotReadOnly, Vec::new());
                    conn.push(Item::Known { xid, err, body });
                }
                Way::Write => self.write(id, xid, op, body),
                Way::Unknown => self.refuse(id, xid),
            },
        }
    }

    /// A write: into the log, or behind the reads that stand before it.
    fn write(&mut self, id: ConnId, xid: i32, op: Op, body: Bytes) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let caller = conn.caller.clone();
        if conn.pipeline.may_write() {
            let room = conn.lot.room.clone();
            conn.push(Item::Logged { xid, op });
            self.gather_write(id, Released { op, body, caller, answer: 0, room });
        } else {
            conn.push(Item::Held { xid, op, body, caller });
        }
    }

    /// An operation that there is not: as ZooKeeper, the connection ends with the answer.
    fn refuse(&mut self, id: ConnId, xid: i32) {
        let zxid = self.view.state.zk().zxid();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.reply(xid, conn.pipeline.told(zxid), ErrorCode::Unimplemented, &[]);
        conn.pipeline.clear();
        conn.stage = Stage::Closing;
    }

    fn auth(&mut self, id: ConnId, xid: i32, body: &[u8]) {
        let proven = AuthPacket::from_bytes(body).ok().and_then(|packet| {
            let auth = packet.auth.unwrap_or_default();
            if auth.len() > ZK_ID_BYTES_MAX {
                return None;
            }
            match packet.scheme {
                "digest" => {
                    let text = std::str::from_utf8(auth).ok()?;
                    let (user, _) = text.split_once(':')?;
                    let hash = STANDARD.encode(Sha1::digest(auth));
                    Some(vec![Id { scheme: "digest".to_owned(), id: format!("{user}:{hash}") }])
                }
                // Known from the connection itself.
                "ip" => Some(Vec::new()),
                _ => None,
            }
        });
        let superuser = self.around.config.super_digest.clone();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let crowded =
            conn.ids.len() >= ZK_IDS_MAX || conn.caller.bytes() + body.len() > ZK_IDS_BYTES_MAX;
        let Some(proven) = proven.filter(|_| !crowded) else {
            conn.reply(xid, 0, ErrorCode::AuthFailed, &[]);
            conn.pipeline.clear();
            conn.stage = Stage::Closing;
            return;
        };
        for id in proven {
            if Some(&id.id) == superuser.as_ref() {
                conn.add_id(Id { scheme: "super".to_owned(), id: String::new() });
            }
            conn.add_id(id);
        }
        conn.reply(xid, 0, ErrorCode::Ok, &[]);
    }

    /// Answers a read whose turn has come.
    pub(super) fn read(&mut self, id: ConnId, xid: i32, op: Op, body: &[u8]) {
        let view = self.view.state.clone();
        let tree = view.zk();
        let answer = match op {
            Op::SetWatches | Op::SetWatches2 => self.set_watches(id, op, body),
            Op::AddWatch => self.add_watch(id, body),
            Op::CheckWatches | Op::RemoveWatches => self.remove_watches(id, op, body),
            _ if reads::takes_long(op) => {
                self.read_elsewhere(id, xid, op, body);
                return;
            }
            _ => {
                let Some(conn) = self.conns.get(&id) else { return };
                let caller = Caller { session: conn.session, ids: &conn.ids };
                let mut armed = Armed::new();
                let answer = reads::answer(tree, caller, op, body, &mut armed);
                for (table, path) in armed {
                    self.watches.add(id, table, &path, Mode::Once);
                }
                answer
            }
        };
        let crowded = self.watches.count_of(id) > ZK_WATCHES_PER_CONNECTION_MAX
            || self.watches.bytes_of(id) > ZK_WATCHED_BYTES_PER_CONNECTION_MAX;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        match answer {
            Ok(body) => conn.reply(xid, tree.zxid(), ErrorCode::Ok, &body),
            Err(code) => conn.reply(xid, tree.zxid(), code, &[]),
        }
        if crowded {
            tracing::warn!(
                peer = %conn.peer,
                "closed: the client has more than {ZK_WATCHES_PER_CONNECTION_MAX} watches, or \
                 their paths have more than {ZK_WATCHED_BYTES_PER_CONNECTION_MAX} bytes"
            );
            self.close(id);
        }
    }

    fn set_watches(&mut self, id: ConnId, op: Op, body: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let request = match op {
            Op::SetWatches2 => SetWatches2Request::from_bytes(body)?,
            _ => {
                let SetWatchesRequest { relative_zxid, data, exist, child } =
                    SetWatchesRequest::from_bytes(body)?;
                let (persistent, persistent_recursive) = (Vec::new(), Vec::new());
                SetWatches2Request {
                    relative_zxid,
                    data,
                    exist,
                    child,
                    persistent,
                    persistent_recursive,
                }
            }
        };
        let SetWatches2Request { relative_zxid, data, exist, child, .. } = &request;
        let view = self.view.state.clone();
        let again = reads::rewatch(view.zk(), *relative_zxid, data, exist, child);
        for (table, path) in again.set {
            self.watches.add(id, table, &path, Mode::Once);
        }
        for path in &request.persistent {
            self.watches.add_persistent(id, path, Mode::Persistent);
        }
        for path in &request.persistent_recursive {
            self.watches.add_persistent(id, path, Mode::Recursive);
        }
        if let Some(conn) = self.conns.get_mut(&id) {
            for (kind, path) in again.fired {
                conn.event(kind, view.zk().zxid(), &path);
            }
        }
        Ok(Vec::new())
    }

    fn add_watch(&mut self, id: ConnId, body: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let request = AddWatchRequest::from_bytes(body)?;
        let mode = reads::persistent_mode(request.mode).ok_or(ErrorCode::MarshallingError)?;
        self.watches.add_persistent(id, request.path, mode);
        Ok(ErrorReply { err: 0 }.to_bytes())
    }

    fn remove_watches(&mut self, id: ConnId, op: Op, body: &[u8]) -> Result<Vec<u8>, ErrorCode> {
        let request = RemoveWatchesRequest::from_bytes(body)?;
        let which = Which::of(request.kind).ok_or(ErrorCode::MarshallingError)?;
        let had = match op {
            Op::CheckWatches => self.watches.has(id, request.path, which),
            _ => self.watches.remove(id, request.path, which),
        };
        if had { Ok(Vec::new()) } else { Err(ErrorCode::NoWatcher) }
    }
}
