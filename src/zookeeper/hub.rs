//! The one loop of a server's endpoint: everything that its clients say and everything that
//! changes passes here in one order, and that is the order that clients see.
//!
//! Reads are answered from the newest view of the tree; writes go through the log, many at a time
//! in a few lots at once. No client is in two of them, so that each session's stay in order. A small
//! read between two writes that are on their way goes with them; a write behind any other read
//! waits until that is answered. When a new view comes, its changes are told to whoever watches
//! before anything is answered from it, and behind answers of what was carried out before them.

mod conn;
mod lots;
mod pipeline;
mod requests;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::conn::{Conn, Stage};
use self::pipeline::{Event, Item, Released};
use super::config::Config;
use super::connection::{Out, Room};
use super::reads::{self, Armed, Caller};
use super::watches::{ConnId, EventKind, Fired, Watches};
use crate::clock::SharedClock;
use crate::consensus::{Committed, Consensus, Consistency, Leadership, ProposeError, View};
use crate::jute::op::{ErrorCode, Op};
use crate::jute::reply::ConnectReply;
use crate::jute::{Field, Id};
use crate::limits::ZK_OUT_BYTES_HIGH;
use crate::observe::metrics::Metrics;
use crate::state::Reply;
use crate::state::znodes::{Asker, Tree, ZkCaller, ZkReply, ZkRequest, ZnodeChange};

/// What reaches the hub from connections.
#[derive(Debug)]
pub(super) enum HubEvent {
    /// A client has come, with its first frame.
    Connect {
        id: ConnId,
        peer: SocketAddr,
        ids: Vec<Id>,
        request: Bytes,
        out: Out,
        permits: Arc<Semaphore>,
    },
    /// It asks.
    Frames { id: ConnId, frames: Vec<Bytes>, room: Room },
    /// It has taken enough of what it was told that more may follow.
    Room { id: ConnId },
    /// It is gone.
    Gone { id: ConnId },
    /// Somebody wants to know how things are.
    FourLetter { word: String, answer: oneshot::Sender<String> },
}

/// A request that waits for its place in the log.
struct Gathered {
    conn: ConnId,
    caller: Option<Arc<ZkCaller>>,
    request: ZkRequest,
    bytes: usize,
    /// Bytes of its answer, about, if it is a read.
    answer: usize,
    /// Its share of the bytes that may wait, until its lot is answered.
    room: Option<Arc<Room>>,
}

/// An answer that was found out elsewhere; none: it could not be.
type Later = (ConnId, u64, Option<Result<Vec<u8>, ErrorCode>>);

type Outcome = (Vec<ConnId>, Result<Committed, ProposeError>);

/// What the hub works with.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) consensus: Consensus,
    /// Without leaders that have no majority.
    pub(super) leadership: watch::Receiver<Leadership>,
    pub(super) clock: SharedClock,
    pub(super) config: Arc<Config>,
    pub(super) metrics: Metrics,
    /// Sessions that were heard go here.
    pub(super) heard: mpsc::Sender<Vec<i64>>,
    /// Whether the leader hears of them.
    pub(super) contact: watch::Receiver<bool>,
}

/// See the module.
pub(super) struct Hub {
    around: Surroundings,
    view: View,
    /// How many changes of the tree were told.
    seen: u64,
    conns: BTreeMap<ConnId, Conn>,
    by_session: BTreeMap<i64, ConnId>,
    watches: Watches,
    /// Connections with something to flush, or to advance.
    touched: BTreeSet<ConnId>,
    gathered: VecDeque<Gathered>,
    /// Lots on their way through the log.
    in_flight: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// Whose requests are in them.
    on_their_way: BTreeSet<ConnId>,
    /// Whether some of what is gathered may go, as far as is known.
    may_launch: bool,
    /// Answers that this server's view does not show yet.
    waiting: VecDeque<(u64, Vec<ConnId>, Vec<ZkReply>)>,
    later: FuturesUnordered<BoxFuture<'static, Later>>,
    next_later: u64,
    heard: BTreeSet<i64>,
    started: Instant,
    /// When the loop last woke.
    now: Instant,
    received: u64,
    sent: u64,
    latency: Latency,
}

/// How long requests took, in milliseconds.
#[derive(Debug, Default)]
struct Latency {
    count: u64,
    sum: f64,
    min: Option<u64>,
    max: u64,
}

impl Latency {
    fn add(&mut self, took: Duration) {
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.count += 1;
        self.sum += took.as_secs_f64() * 1000.0;
        self.min = Some(self.min.map_or(ms, |min| min.min(ms)));
        self.max = self.max.max(ms);
    }

    /// The least, the mean, the most.
    fn figures(&self) -> (u64, f64, u64) {
        let mean = if self.count == 0 { 0.0 } else { self.sum / self.count as f64 };
        (self.min.unwrap_or(0), mean, self.max)
    }
}

impl Hub {
    pub(super) fn new(around: Surroundings) -> Self {
        let view = around.consensus.views().borrow().clone();
        let seen = view.state.zk().change_count();
        Self {
            around,
            view,
            seen,
            conns: BTreeMap::new(),
            by_session: BTreeMap::new(),
            watches: Watches::default(),
            touched: BTreeSet::new(),
            gathered: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            on_their_way: BTreeSet::new(),
            may_launch: false,
            waiting: VecDeque::new(),
            later: FuturesUnordered::new(),
            next_later: 0,
            heard: BTreeSet::new(),
            started: Instant::now(),
            now: Instant::now(),
            received: 0,
            sent: 0,
            latency: Latency::default(),
        }
    }

    fn tree(&self) -> &Tree {
        self.view.state.zk()
    }

    /// Works until `stop`.
    pub(super) async fn run(
        mut self,
        mut events: mpsc::Receiver<HubEvent>,
        stop: CancellationToken,
    ) {
        let mut views = self.around.consensus.views();
        let mut leadership = self.around.leadership.clone();
        let mut contact = self.around.contact.clone();
        let half_a_tick = Duration::from_millis((self.around.config.tick.0 / 2).max(1));
        let mut ticks = tokio::time::interval(half_a_tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut lot = Vec::with_capacity(256);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(outcome) = self.in_flight.next() => self.take_outcome(outcome),
                changed = views.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
                Some((conn, number, answer)) = self.later.next() => {
                    self.take_later(conn, number, answer);
                }
                count = events.recv_many(&mut lot, 256) => {
                    if count == 0 {
                        break;
                    }
                }
                changed = contact.changed() => {
                    if changed.is_ok() && !*contact.borrow_and_update() {
                        self.lose_contact();
                    }
                }
                changed = leadership.changed() => {
                    if changed.is_ok() {
                        let leads = leadership.borrow_and_update().leader.is_some();
                        self.take_leadership(leads);
                    }
                }
                _ = ticks.tick() => self.tick(),
            }
            self.now = Instant::now();
            let newest = views.borrow_and_update().clone();
            self.take_view(newest);
            for event in lot.drain(..) {
                self.take_event(event);
            }
            self.advance();
            self.launch();
            self.flush();
        }
    }

    fn take_event(&mut self, event: HubEvent) {
        match event {
            HubEvent::Connect { id, peer, ids, request, out, permits } => {
                let conn = Conn::new(id, peer, ids, out, permits);
                self.conns.insert(id, conn);
                self.around.metrics.zk_connections.set(self.conns.len() as i64);
                self.connect(id, &request);
            }
            HubEvent::Frames { id, frames, room } => self.take_frames(id, frames, Arc::new(room)),
            HubEvent::Room { id } => {
                self.touched.insert(id);
            }
            HubEvent::Gone { id } => self.forget(id),
            HubEvent::FourLetter { word, answer } => {
                let _ = answer.send(self.word(&word));
            }
        }
    }

    /// Lets go of a connection: what was said to it is still written.
    fn forget(&mut self, id: ConnId) {
        self.watches.forget(id);
        if let Some(conn) = self.conns.remove(&id)
            && self.by_session.get(&conn.session) == Some(&id)
        {
            self.by_session.remove(&conn.session);
        }
        self.around.metrics.zk_connections.set(self.conns.len() as i64);
    }

    /// Tells what was said, then lets go.
    fn close(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.flush();
        }
        self.forget(id);
    }

    /// Tells who watches what has changed, and answers what waited for it.
    fn take_view(&mut self, newest: View) {
        if newest.applied_index == self.view.applied_index {
            return;
        }
        self.view = newest;
        // What is answered by this view, and the changes that it brings, are told in the order in
        // which they happened: a connection's pipeline sorts them.
        while self.waiting.front().is_some_and(|(index, ..)| *index <= self.view.applied_index) {
            if let Some((_, conns, replies)) = self.waiting.pop_front() {
                self.settle(&conns, replies);
            }
        }
        let tree = self.view.state.clone();
        match tree.zk().changes_since(self.seen) {
            Some(changes) => {
                for change in changes {
                    self.tell(change);
                }
            }
            // Another tree, or too far behind: clients come again and say what they know.
            None => {
                let all: Vec<ConnId> = self.conns.keys().copied().collect();
                for id in all {
                    self.close(id);
                }
            }
        }
        self.seen = self.tree().change_count();
        // Whoever waits for a view may go on.
        let wait = self.conns.values().filter(|conn| conn.pipeline.begins_later());
        self.touched.extend(wait.map(|conn| conn.id));
    }

    fn tell(&mut self, change: &ZnodeChange) {
        let mut fired = Vec::new();
        self.watches.fire(&change.path, change.kind, &mut fired);
        for Fired { kind, path, to } in fired {
            for id in to {
                let Some(conn) = self.conns.get_mut(&id) else { continue };
                let asker = Asker { ids: &conn.ids, superuser: false };
                if !change.is_for(kind == EventKind::Children, asker) {
                    continue;
                }
                let (kind, path) = (kind as i32, path.clone());
                conn.pipeline.hold(Event { kind, zxid: change.zxid, path });
                self.touched.insert(id);
            }
        }
    }

    /// What became of a lot that was proposed.
    fn take_outcome(&mut self, (conns, outcome): Outcome) {
        for id in &conns {
            self.on_their_way.remove(id);
        }
        self.may_launch = true;
        match outcome {
            Ok(Committed { reply: Reply::Zk(replies), index }) if replies.len() == conns.len() => {
                // Lots may be answered in another order than they were carried out in.
                let place = self.waiting.partition_point(|(known, ..)| *known <= index);
                self.waiting.insert(place, (index, conns, replies));
                let newest = self.around.consensus.views().borrow().clone();
                // The view may have come before the answer.
                if newest.applied_index == self.view.applied_index {
                    while self
                        .waiting
                        .front()
                        .is_some_and(|(index, ..)| *index <= newest.applied_index)
                    {
                        if let Some((_, conns, replies)) = self.waiting.pop_front() {
                            self.settle(&conns, replies);
                        }
                    }
                } else {
                    self.take_view(newest);
                }
            }
            outcome => {
                let why = match outcome {
                    Err(error) => error.to_string(),
                    Ok(_) => "the answers don't fit the questions".to_owned(),
                };
                // It may or may not be carried out: only the client can find out.
                tracing::info!(clients = conns.len(), "clients are told to come again: {why}");
                let lost: BTreeSet<ConnId> = conns.into_iter().collect();
                // What they asked later must not come to pass without what they asked before.
                self.gathered.retain(|gathered| !lost.contains(&gathered.conn));
                for id in lost {
                    self.close(id);
                }
            }
        }
    }

    /// Hands answers to the connections, in order.
    fn settle(&mut self, conns: &[ConnId], replies: Vec<ZkReply>) {
        for (id, answer) in conns.iter().zip(replies) {
            let Some(conn) = self.conns.get_mut(id) else { continue };
            if conn.stage == Stage::Connecting {
                self.connected(*id, &answer);
                continue;
            }
            conn.pipeline.settle(answer);
            self.touched.insert(*id);
        }
    }

    /// Hands what was said to the sockets; who does not take it is let go.
    fn flush(&mut self) {
        let mut slow = Vec::new();
        for id in std::mem::take(&mut self.touched) {
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if !conn.flush() {
                tracing::info!(peer = %conn.peer, "closed: the client takes its answers too slowly");
                slow.push(id);
            } else if conn.stage == Stage::Closing && conn.pipeline.is_empty() {
                slow.push(id);
            }
        }
        for id in slow {
            self.forget(id);
        }
    }

    /// Looks after sessions: who was heard, who is no longer here.
    fn tick(&mut self) {
        let tree = self.view.state.clone();
        let gone = self.conns.values().filter(|conn| {
            conn.stage == Stage::Open
                && !conn.is_local
                && tree.zk().session(conn.session).is_none_or(|s| s.attachment != conn.attachment)
        });
        let gone: Vec<ConnId> = gone.map(|conn| conn.id).collect();
        for id in gone {
            self.close(id);
        }
        let heard: Vec<i64> = std::mem::take(&mut self.heard).into_iter().collect();
        // One that is still busy with the last lot gets this one's sessions with the next.
        if let Err(mpsc::error::TrySendError::Full(heard)) = self.around.heard.try_send(heard) {
            self.heard.extend(heard);
        }
        let watches = self.watches.len();
        self.around.metrics.zk_watches.set(watches as i64);
    }

    /// The leader no longer hears of the sessions here: they must be kept alive elsewhere.
    fn lose_contact(&mut self) {
        let here = self.conns.values().filter(|conn| !conn.is_local);
        let here: Vec<ConnId> = here.map(|conn| conn.id).collect();
        if !here.is_empty() {
            tracing::warn!(
                clients = here.len(),
                "no leader hears of the clients' sessions: they are sent to other servers"
            );
        }
        for id in here {
            self.close(id);
        }
    }

    fn take_leadership(&mut self, leads: bool) {
        if leads {
            // There is better to be had than a server that only reads.
            let local = self.conns.values().filter(|conn| conn.is_local);
            let local: Vec<ConnId> = local.map(|conn| conn.id).collect();
            for id in local {
                self.close(id);
            }
        }
    }

    fn has_leader(&self) -> bool {
        let leads = self.around.leadership.borrow().leader.is_some();
        leads && *self.around.contact.borrow()
    }

    /// Answers with `body` once this server has everything that is there now.
    fn sync(&mut self, conn: ConnId, body: Vec<u8>) -> u64 {
        self.next_later += 1;
        let (number, consensus) = (self.next_later, self.around.consensus.clone());
        self.later.push(Box::pin(async move {
            let reached = consensus.read(Consistency::Linearizable).await;
            (conn, number, reached.ok().map(|_| Ok(body)))
        }));
        number
    }

    /// Answers from the view as it is now, on another thread.
    fn read_elsewhere(&mut self, id: ConnId, xid: i32, op: Op, body: &[u8]) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        self.next_later += 1;
        let (number, state, body) = (self.next_later, self.view.state.clone(), body.to_vec());
        let (session, ids) = (conn.session, conn.ids.clone());
        let lot = conn.lot.clone();
        let offload = self.around.consensus.ground().offload;
        conn.pipeline.push_later(xid, number, state.zk().zxid(), lot);
        self.later.push(Box::pin(async move {
            let found = offload.run(move || {
                let caller = Caller { session, ids: &ids };
                reads::answer(state.zk(), caller, op, &body, &mut Armed::new())
            });
            (id, number, found.await.ok())
        }));
    }

    fn take_later(&mut self, id: ConnId, number: u64, found: Option<Result<Vec<u8>, ErrorCode>>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let Some(found) = found else {
            self.close(id);
            return;
        };
        conn.pipeline.found(number, found);
        self.touched.insert(id);
    }

    /// A client's write goes into the log.
    fn gather_write(&mut self, conn: ConnId, released: Released) {
        let Released { op, body, caller, answer, room } = released;
        if op == Op::CloseSession {
            let ZkCaller { session, attachment, .. } = *caller;
            self.gather_session(conn, ZkRequest::Close { session, attachment });
            return;
        }
        let bytes = 64 + body.len();
        let request = ZkRequest::Op { caller: 0, op: op.number(), body: body.to_vec() };
        self.gather(Gathered { conn, caller: Some(caller), request, bytes, answer, room });
    }

    /// What is asked of a session as such.
    fn gather_session(&mut self, conn: ConnId, request: ZkRequest) {
        let bytes = match &request {
            ZkRequest::Attach { password, .. } => 64 + password.len(),
            _ => 64,
        };
        self.gather(Gathered { conn, caller: None, request, bytes, answer: 0, room: None });
    }

    fn gather(&mut self, next: Gathered) {
        self.may_launch |= !self.on_their_way.contains(&next.conn);
        self.gathered.push_back(next);
    }

    /// Answers whatever has its turn, on all connections that were touched.
    fn advance(&mut self) {
        let touched: Vec<ConnId> = self.touched.iter().copied().collect();
        for id in touched {
            self.advance_one(id);
            let Some(conn) = self.conns.get_mut(&id) else { continue };
            if !conn.pipeline.holds() {
                continue;
            }
            let (tree, full) = (self.view.state.zk(), conn.is_full());
            let may_pass = |op, body: &[u8]| tree.may_pass(op, body);
            for released in conn.pipeline.release(&conn.caller, full, may_pass) {
                self.gather_write(id, released);
            }
        }
    }

    fn advance_one(&mut self, id: ConnId) {
        loop {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            if conn.stage == Stage::Connecting {
                return;
            }
            if conn.pipeline.has_events() {
                conn.tell(self.on_their_way.contains(&id));
            }
            if conn.buffer.len() > ZK_OUT_BYTES_HIGH && !conn.flush() {
                self.forget(id);
                return;
            }
            if conn.is_full() {
                return;
            }
            if conn.pipeline.waits() {
                return;
            }
            let Some((item, lot)) = conn.pipeline.pop() else { return };
            self.sent += 1;
            self.latency.add(self.now.duration_since(lot.arrived));
            let zxid = self.view.state.zk().zxid();
            match item {
                Item::Read { xid, op, body } => self.read(id, xid, op, &body),
                Item::Logged { xid, op } => {
                    let Some(reply) = conn.pipeline.reply() else { return };
                    if reply.err == ErrorCode::ConnectionLoss.number() {
                        tracing::info!(
                            peer = %conn.peer,
                            "closed: the client asks for too much at once between its writes"
                        );
                        self.close(id);
                        return;
                    }
                    conn.reply_number(xid, reply.zxid, reply.err, &reply.body);
                    self.written(id, op, reply.err);
                }
                Item::Later { xid, zxid: of, answer: Some(answer), .. } => {
                    let zxid = of.unwrap_or(zxid);
                    match answer {
                        Ok(body) => conn.reply(xid, zxid, ErrorCode::Ok, &body),
                        Err(code) => conn.reply(xid, zxid, code, &[]),
                    }
                }
                Item::Known { xid, err, body } => conn.reply(xid, zxid, err, &body),
                Item::Held { .. } | Item::Later { .. } => {}
            }
        }
    }

    /// After a write was answered: some mean that the connection is over.
    fn written(&mut self, id: ConnId, op: Op, err: i32) {
        let over = op == Op::CloseSession
            || err == ErrorCode::SessionExpired.number()
            || err == ErrorCode::SessionMoved.number();
        if over && let Some(conn) = self.conns.get_mut(&id) {
            conn.stage = Stage::Closing;
            conn.pipeline.clear();
        }
    }

    /// A session was opened, or goes on here; or it has expired.
    fn connected(&mut self, id: ConnId, answer: &ZkReply) {
        let view = self.view.clone();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        self.touched.insert(id);
        let Ok(mut hello) = ConnectReply::from_bytes(&answer.body) else {
            conn.stage = Stage::Closing;
            return;
        };
        hello.read_only = conn.read_only.map(|_| false);
        conn.hello(&hello.to_bytes());
        if hello.session_id == 0 {
            conn.stage = Stage::Closing;
            return;
        }
        let session = view.state.zk().session(hello.session_id);
        conn.stage = Stage::Open;
        conn.session = hello.session_id;
        conn.timeout = session.map_or(hello.timeout, |session| session.timeout);
        conn.rename();
        self.heard.insert(hello.session_id);
        // The connection it was on before is over.
        if let Some(before) = self.by_session.insert(hello.session_id, id)
            && before != id
        {
            self.close(before);
        }
        self.take_held(id);
    }
}
