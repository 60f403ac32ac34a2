//! One connection as the hub knows it.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::pipeline::{Item, Lot, Pipeline};
use crate::jute::op::{ErrorCode, Op};
use crate::jute::reply::{ReplyHeader, WatcherEvent};
use crate::jute::{Field, Id};
use crate::limits::ZK_OUT_BYTES_MAX;
use crate::state::znodes::ZkCaller;
use crate::zookeeper::connection::{Out, Room};
use crate::zookeeper::watches::ConnId;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its session is asked for.
    Connecting,
    /// Requests are answered.
    Open,
    /// It ends when what is there has been answered.
    Closing,
}

/// What is told of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) last_op: Option<Op>,
    pub(super) last_xid: i32,
    pub(super) since: Instant,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) peer: SocketAddr,
    pub(super) stage: Stage,
    /// 0 until it is open.
    pub(super) session: i64,
    pub(super) attachment: u64,
    pub(super) timeout: i32,
    /// What the client said of servers that only read; to be answered if it said anything.
    pub(super) read_only: Option<bool>,
    /// Its session is this server's alone: there is no leader.
    pub(super) is_local: bool,
    pub(super) ids: Vec<Id>,
    /// The same, as commands have it.
    pub(super) caller: Arc<ZkCaller>,
    pub(super) pipeline: Pipeline,
    /// The frames that are being looked at.
    pub(super) lot: Lot,
    /// What came before the session was there.
    pub(super) held: Vec<(Vec<Bytes>, Arc<Room>)>,
    pub(super) buffer: Vec<u8>,
    pub(super) figures: Figures,
    out: Out,
    permits: Arc<Semaphore>,
}

impl Conn {
    pub(super) fn new(
        id: ConnId,
        peer: SocketAddr,
        mut ids: Vec<Id>,
        out: Out,
        permits: Arc<Semaphore>,
    ) -> Self {
        let ip = peer.ip().to_canonical().to_string();
        ids.insert(0, Id { scheme: "ip".to_owned(), id: ip });
        let figures =
            Figures { received: 0, sent: 0, last_op: None, last_xid: 0, since: Instant::now() };
        Self {
            id,
            peer,
            stage: Stage::Connecting,
            session: 0,
            attachment: 0,
            timeout: 0,
            read_only: None,
            is_local: false,
            ids,
            caller: Arc::default(),
            pipeline: Pipeline::default(),
            lot: Lot { arrived: figures.since, room: None },
            held: Vec::new(),
            buffer: Vec::new(),
            figures,
            out,
            permits,
        }
    }

    /// Requests are made under this name from now on.
    pub(super) fn rename(&mut self) {
        self.caller = Arc::new(ZkCaller {
            session: self.session,
            attachment: self.attachment,
            ids: self.ids.clone(),
            superuser: false,
        });
    }

    /// One more thing that the client has proven to be.
    pub(super) fn add_id(&mut self, id: Id) {
        if !self.ids.contains(&id) {
            self.ids.push(id);
            self.rename();
        }
    }

    /// A request that waits for its turn.
    pub(super) fn push(&mut self, item: Item) {
        self.pipeline.push(item, self.lot.clone());
    }

    fn frame(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let at = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        write(&mut self.buffer);
        let length = (self.buffer.len() - at - 4) as u32;
        self.buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
        self.figures.sent += 1;
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, xid: i32, zxid: i64, err: ErrorCode, body: &[u8]) {
        self.reply_number(xid, zxid, err.number(), body);
    }

    /// Answers a request with the number of an error.
    pub(super) fn reply_number(&mut self, xid: i32, zxid: i64, err: i32, body: &[u8]) {
        self.frame(|out| {
            ReplyHeader { xid, zxid, err }.write(out);
            if err == 0 {
                out.extend_from_slice(body);
            }
        });
        self.permits.add_permits(1);
    }

    /// The answer to the first frame.
    pub(super) fn hello(&mut self, body: &[u8]) {
        self.frame(|out| out.extend_from_slice(body));
    }

    /// Tells of a change.
    pub(super) fn event(&mut self, kind: i32, zxid: i64, path: &str) {
        let state = if self.is_local { 5 } else { 3 };
        self.frame(|out| {
            ReplyHeader { xid: crate::jute::op::XID_NOTIFICATION, zxid, err: 0 }.write(out);
            WatcherEvent { kind, state, path }.write(out);
        });
    }

    /// Tells of changes whose turn has come; see [`Pipeline::event`].
    pub(super) fn tell(&mut self, on_their_way: bool) {
        while let Some(event) = self.pipeline.event(on_their_way) {
            self.event(event.kind, event.zxid, &event.path);
        }
    }

    /// Whether nothing more should be answered now.
    pub(super) fn is_full(&self) -> bool {
        self.out.is_full()
    }

    /// Hands what was said to the socket; false if the client does not take it.
    pub(super) fn flush(&mut self) -> bool {
        // Events can't wait without end, whatever it is that they wait for.
        if self.pipeline.event_bytes() > ZK_OUT_BYTES_MAX {
            return false;
        }
        if self.buffer.is_empty() {
            return true;
        }
        let bytes = std::mem::take(&mut self.buffer);
        self.out.send(bytes.into()).is_ok()
    }
}
