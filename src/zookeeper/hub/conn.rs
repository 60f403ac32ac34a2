//! One connection as the hub knows it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::jute::op::{ErrorCode, Op};
use crate::jute::reply::{ReplyHeader, WatcherEvent};
use crate::jute::{Field, Id};
use crate::state::znodes::{ZkCaller, ZkReply};
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

/// A request that waits for its turn: answers go out in the order of the requests.
#[derive(Debug)]
pub(super) enum Item {
    /// It is answered from the view when its turn comes.
    Read { xid: i32, op: Op, body: Bytes },
    /// A write behind a read that is not answered yet, which must not see what it does. `caller`
    /// is whom it comes from.
    Held { xid: i32, op: Op, body: Bytes, caller: Arc<ZkCaller> },
    /// It is on its way through the log, or a read between two that are; the answer comes into
    /// [`Conn::replies`].
    Logged { xid: i32, op: Op },
    /// Its answer is found out elsewhere: how fresh this server is, or what takes long to count.
    Later { xid: i32, number: u64, answer: Option<Result<Vec<u8>, ErrorCode>> },
    /// The answer is known.
    Known { xid: i32, err: ErrorCode, body: Vec<u8> },
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

/// Frames that came together.
#[derive(Debug, Clone)]
pub(super) struct Lot {
    pub(super) arrived: Instant,
    /// Their share of the bytes that may wait; given back with the last answer.
    pub(super) room: Option<Arc<Room>>,
}

/// A request that may go into the log now.
#[derive(Debug)]
pub(super) struct Released {
    pub(super) op: Op,
    pub(super) body: Bytes,
    pub(super) caller: Arc<ZkCaller>,
    /// Bytes of its answer, about, if it is a read.
    pub(super) answer: usize,
    /// See [`Lot::room`].
    pub(super) room: Option<Arc<Room>>,
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
    pub(super) items: VecDeque<(Item, Lot)>,
    /// How many of them are held.
    pub(super) held_writes: usize,
    /// Answers from the log, in order, to the first of them that went there.
    pub(super) replies: VecDeque<ZkReply>,
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
            items: VecDeque::new(),
            held_writes: 0,
            replies: VecDeque::new(),
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
        self.items.push_back((item, self.lot.clone()));
    }

    /// Whether the answer to the first request is still to come from elsewhere.
    pub(super) fn waits(&self) -> bool {
        match self.items.front() {
            Some((Item::Held { .. } | Item::Later { answer: None, .. }, _)) => true,
            Some((Item::Logged { .. }, _)) => self.replies.is_empty(),
            _ => false,
        }
    }

    /// Whether a write may go into the log at once: nothing stands before it but what is there
    /// already.
    pub(super) fn may_write(&self) -> bool {
        matches!(self.items.back(), None | Some((Item::Logged { .. }, _)))
    }

    /// Writes that need wait for reads no longer, in order, and reads before them that may pass
    /// with them: `may_pass` says how many bytes they are answered with. They are on their way
    /// from now on.
    pub(super) fn release(
        &mut self,
        may_pass: impl Fn(Op, &[u8]) -> Option<usize>,
    ) -> Vec<Released> {
        let mut released = Vec::new();
        // Reads that go if a write comes behind them.
        let mut passing = Vec::new();
        for place in 0..self.items.len() {
            if self.held_writes == 0 {
                break;
            }
            match &self.items[place].0 {
                Item::Logged { .. } => {}
                Item::Read { op, body, .. } => match may_pass(*op, body) {
                    Some(answer) => passing.push((place, answer)),
                    None => break,
                },
                Item::Held { .. } => {
                    for (place, answer) in passing.drain(..).chain([(place, 0)]) {
                        released.extend(self.log(place, answer));
                    }
                    self.held_writes -= 1;
                }
                _ => break,
            }
        }
        released
    }

    /// The request at `place` goes into the log.
    fn log(&mut self, place: usize, answer: usize) -> Option<Released> {
        let (item, lot) = self.items.get_mut(place)?;
        let room = lot.room.clone();
        let (Item::Read { xid, op, .. } | Item::Held { xid, op, .. }) = *item else { return None };
        match std::mem::replace(item, Item::Logged { xid, op }) {
            Item::Read { body, .. } => {
                Some(Released { op, body, caller: self.caller.clone(), answer, room })
            }
            Item::Held { body, caller, .. } => Some(Released { op, body, caller, answer, room }),
            _ => None,
        }
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

    /// Whether nothing more should be answered now.
    pub(super) fn is_full(&self) -> bool {
        self.out.is_full()
    }

    /// Hands what was said to the socket; false if the client does not take it.
    pub(super) fn flush(&mut self) -> bool {
        if self.buffer.is_empty() {
            return true;
        }
        let bytes = std::mem::take(&mut self.buffer);
        self.out.send(bytes.into()).is_ok()
    }
}
