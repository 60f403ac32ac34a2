//! The task behind a client: keeps a connection, sends requests, matches replies, keeps the
//! session alive, and goes on at another server when the connection breaks.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::ensemble::Ensemble;
use super::error::{ClientError, WireError};
use super::event::{Connected, Event, EventKind, WatchEvent};
use super::handle::{Options, Reply, Shared};
use super::watches::{WatchKind, Watches};
use super::wire::{FrameReader, FrameWriter, Wire, split};
use crate::jute::op::{XID_AUTH, XID_NOTIFICATION, XID_PING};
use crate::jute::reply::{ReplyHeader, WatcherEvent};
use crate::jute::request::{ConnectRequest, RequestHeader, SetWatchesRequest};
use crate::jute::{ErrorCode, Field as _, Op};
use crate::limits::ZK_REQUESTS_TOGETHER_MAX;

/// Nobody waits longer for one server when there are others.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// A request on its way to the task.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) op: i32,
    /// The record.
    pub(super) body: Vec<u8>,
    pub(super) effect: Effect,
    pub(super) answer: Answer,
}

type Answer = oneshot::Sender<Result<Reply, ClientError>>;

/// What a request means for the session, if it succeeds.
#[derive(Debug)]
pub(super) enum Effect {
    None,
    /// A watch is set, on a path with the chroot.
    Watch(WatchKind, String),
    /// Watches are taken away.
    Unwatch(i32, String),
    /// An identity is added: every later connection must add it as well.
    Auth,
    /// The session ends.
    Close,
}

/// A request that was sent.
#[derive(Debug)]
struct Open {
    xid: i32,
    op: i32,
    effect: Effect,
    /// None: the task's own.
    answer: Option<Answer>,
}

/// Those that wait for replies.
#[derive(Debug, Default)]
struct Opens {
    /// In the order in which they were sent, which is that of their replies.
    ordered: VecDeque<Open>,
    /// Servers answer these at once, past others: the identity, and who waits for it.
    auth: VecDeque<(Vec<u8>, Option<Answer>)>,
}

/// Why a connection is not served any more.
enum Ended {
    /// It broke; the session goes on.
    Broken(WireError),
    /// The session is over.
    Over(ClientError),
}

impl<E: Into<WireError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
    }
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Task {
    ensemble: Ensemble,
    options: Options,
    requests: mpsc::Receiver<Request>,
    shared: Arc<Shared>,
    /// Told of the first connection.
    attached: Option<oneshot::Sender<()>>,
    next_server: usize,
    state: State,
}

/// What outlives a connection.
#[derive(Debug)]
struct State {
    events: mpsc::Sender<Event>,
    chroot: String,
    xid: i32,
    position: u64,
    watches: Watches,
    /// Accepted identities, as records.
    identities: Vec<Vec<u8>>,
}

impl Task {
    pub(super) fn new(
        ensemble: Ensemble,
        options: Options,
        requests: mpsc::Receiver<Request>,
        events: mpsc::Sender<Event>,
        shared: Arc<Shared>,
        attached: oneshot::Sender<()>,
    ) -> Self {
        let state = State {
            events,
            chroot: ensemble.chroot.clone(),
            xid: 0,
            position: 0,
            watches: Watches::default(),
            identities: Vec::new(),
        };
        let attached = Some(attached);
        Self { ensemble, options, requests, shared, attached, next_server: 0, state }
    }

    /// Until the session is over or nobody holds the client any more.
    pub(super) async fn run(mut self) {
        let end = self.live().await;
        let event = match &end {
            ClientError::Expired => Some(Event::Expired),
            ClientError::AuthFailed => Some(Event::AuthFailed),
            ClientError::Closed => None,
            error => Some(Event::Disconnected(error.to_string())),
        };
        // First, so that whoever finds its request unanswered knows why.
        let _ = self.shared.end.set(end.clone());
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            let _ = request.answer.send(Err(end.clone()));
        }
        if let Some(event) = event {
            self.state.tell(event).await;
        }
    }

    async fn live(&mut self) -> ClientError {
        if let Some(session) = self.options.session {
            let _ = self.shared.session.set((session.id, session.password));
            self.shared.last_zxid.store(session.last_zxid, Ordering::Relaxed);
        }
        loop {
            let (wire, connected) = match self.attach().await {
                Ok(attached) => attached,
                Err(error) => return error,
            };
            let timeout = Duration::from_millis(connected.timeout_ms.unsigned_abs().into());
            self.state.tell(Event::Connected(connected)).await;
            if let Some(attached) = self.attached.take() {
                let _ = attached.send(());
            }
            match self.serve(wire, timeout).await {
                Ended::Broken(why) => {
                    self.state.tell(Event::Disconnected(why.to_string())).await;
                }
                Ended::Over(error) => return error,
            }
        }
    }

    /// A connection on which a server has accepted the session.
    async fn attach(&mut self) -> Result<(Wire, Connected), ClientError> {
        let began = Instant::now();
        let servers = self.ensemble.servers.len();
        let mut tried = 0;
        // Since when, if every server has refused since then.
        let mut refused: Option<(Instant, usize)> = None;
        loop {
            let server = self.ensemble.servers[self.next_server % servers].clone();
            self.next_server = (self.next_server + 1) % servers;
            let last = match self.attach_to(&server).await {
                Ok(attached) => return attached.ok_or(ClientError::Expired),
                Err(error) => error,
            };
            tried += 1;
            refused = match last.refused() {
                true => {
                    let (since, count) = refused.unwrap_or_else(|| (Instant::now(), 0));
                    Some((since, count + 1))
                }
                false => None,
            };
            let nobody = refused.is_some_and(|(since, count)| {
                count >= servers && since.elapsed() >= self.options.give_up_refused
            });
            if nobody || began.elapsed() >= self.options.give_up {
                let last = format!("{server}: {last}");
                let servers = self.ensemble.servers.join(",");
                let waited_ms = began.elapsed().as_millis();
                return Err(ClientError::Unreachable { servers, waited_ms, last });
            }
            if self.requests.is_closed() && self.requests.is_empty() {
                return Err(ClientError::Closed);
            }
            if tried % servers == 0 {
                tokio::time::sleep(self.options.pause).await;
            }
        }
    }

    /// None: the session has expired.
    async fn attach_to(&self, server: &str) -> Result<Option<(Wire, Connected)>, WireError> {
        let servers = u32::try_from(self.ensemble.servers.len()).unwrap_or(u32::MAX);
        let wait = match servers {
            1 => self.options.give_up.min(self.options.timeout),
            servers => (self.options.timeout / servers).min(HANDSHAKE_MAX),
        };
        let mut wire = Wire::connect(server, wait).await?;
        let (session_id, password) = self.shared.session.get().copied().unwrap_or_default();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.shared.last_zxid.load(Ordering::Relaxed),
            timeout: i32::try_from(self.options.timeout.as_millis()).unwrap_or(i32::MAX),
            session_id,
            password: password.to_vec(),
            read_only: Some(self.options.read_only),
        };
        let reply = wire.handshake(&request, wait).await?;
        if reply.timeout <= 0 {
            return Ok(None);
        }
        let _ = self.shared.session.set((reply.session_id, reply.password));
        let connected = Connected {
            server: server.to_owned(),
            session_id: reply.session_id,
            timeout_ms: reply.timeout,
            read_only: reply.read_only.unwrap_or_default(),
        };
        Ok(Some((wire, connected)))
    }

    async fn serve(&mut self, wire: Wire, timeout: Duration) -> Ended {
        let Wire { mut from, mut to } = wire;
        let opens = Mutex::new(Opens::default());
        self.state.say_again(&mut to, &opens, self.shared.last_zxid.load(Ordering::Relaxed));
        let mut xid = self.state.xid;
        let ended = tokio::select! {
            ended = send(&mut self.requests, &mut to, &opens, &mut xid, timeout / 3) => ended,
            ended = self.state.receive(&mut from, &opens, &self.shared, timeout * 2 / 3) => ended,
        };
        self.state.xid = xid;
        let left = opens.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ordered = left.ordered.into_iter().filter_map(|open| open.answer);
        for answer in ordered.chain(left.auth.into_iter().filter_map(|(_, answer)| answer)) {
            let _ = answer.send(Err(match &ended {
                Ended::Broken(_) => ClientError::Lost,
                Ended::Over(error) => error.clone(),
            }));
        }
        ended
    }
}

/// Sends requests as they come, several at once, and pings when there are none.
async fn send(
    requests: &mut mpsc::Receiver<Request>,
    to: &mut FrameWriter<OwnedWriteHalf>,
    opens: &Mutex<Opens>,
    xid: &mut i32,
    ping: Duration,
) -> Ended {
    if let Err(error) = to.flush().await {
        return error.into();
    }
    let mut batch = Vec::with_capacity(ZK_REQUESTS_TOGETHER_MAX);
    loop {
        let more = requests.recv_many(&mut batch, ZK_REQUESTS_TOGETHER_MAX);
        match tokio::time::timeout(ping, more).await {
            Ok(0) => return Ended::Over(ClientError::Closed),
            Ok(_) => {
                let mut opens = lock(opens);
                for request in batch.drain(..) {
                    opens.add(request, to, xid);
                }
            }
            Err(_) => to.add(|out| {
                RequestHeader { xid: XID_PING, op: Op::Ping.number() }.write(out);
            }),
        }
        if let Err(error) = to.flush().await {
            return error.into();
        }
    }
}

impl Opens {
    fn add(&mut self, request: Request, to: &mut FrameWriter<OwnedWriteHalf>, xid: &mut i32) {
        let Request { op, body, effect, answer } = request;
        if matches!(effect, Effect::Auth) {
            add_frame(to, XID_AUTH, op, &body);
            self.auth.push_back((body, Some(answer)));
            return;
        }
        let xid = next(xid);
        add_frame(to, xid, op, &body);
        self.ordered.push_back(Open { xid, op, effect, answer: Some(answer) });
    }

    /// The request that the reply is to.
    fn take(&mut self, xid: i32) -> Result<Open, WireError> {
        let expected = self.ordered.front().map_or(0, |open| open.xid);
        // Servers answer steps of SASL at once, past what was asked earlier.
        let sasl = |open: &Open| open.xid == xid && open.op == Op::Sasl.number();
        let at = match expected == xid {
            true => Some(0),
            false => self.ordered.iter().position(sasl),
        };
        let open = at.and_then(|at| self.ordered.remove(at));
        open.ok_or(WireError::OutOfOrder { got: xid, expected })
    }
}

/// The next header id: positive, since the others have meanings.
fn next(xid: &mut i32) -> i32 {
    *xid = if *xid == i32::MAX { 1 } else { *xid + 1 };
    *xid
}

fn add_frame(to: &mut FrameWriter<OwnedWriteHalf>, xid: i32, op: i32, body: &[u8]) {
    to.add(|out| {
        RequestHeader { xid, op }.write(out);
        out.extend_from_slice(body);
    });
}

fn lock(opens: &Mutex<Opens>) -> MutexGuard<'_, Opens> {
    opens.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    async fn tell(&self, event: Event) {
        // Nobody has to listen.
        let _ = self.events.send(event).await;
    }

    /// What a new connection's server must know: identities, and watches.
    fn say_again(
        &mut self,
        to: &mut FrameWriter<OwnedWriteHalf>,
        opens: &Mutex<Opens>,
        last_zxid: i64,
    ) {
        let mut opens = lock(opens);
        for identity in &self.identities {
            add_frame(to, XID_AUTH, Op::Auth.number(), identity);
            opens.auth.push_back((identity.clone(), None));
        }
        for watches in self.watches.again(last_zxid) {
            let (op, body) =
                match watches.persistent.is_empty() && watches.persistent_recursive.is_empty() {
                    false => (Op::SetWatches2.number(), watches.to_bytes()),
                    // Servers before 3.6 know only this.
                    true => {
                        let (relative_zxid, data) = (watches.relative_zxid, watches.data);
                        let (exist, child) = (watches.exist, watches.child);
                        let old = SetWatchesRequest { relative_zxid, data, exist, child };
                        (Op::SetWatches.number(), old.to_bytes())
                    }
                };
            let xid = next(&mut self.xid);
            add_frame(to, xid, op, &body);
            opens.ordered.push_back(Open { xid, op, effect: Effect::None, answer: None });
        }
    }

    /// Takes what comes until the connection breaks or the session is over.
    async fn receive(
        &mut self,
        from: &mut FrameReader<OwnedReadHalf>,
        opens: &Mutex<Opens>,
        shared: &Shared,
        silence: Duration,
    ) -> Ended {
        loop {
            let frame = match tokio::time::timeout(silence, from.next()).await {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => return error.into(),
                Err(_) => return WireError::Silence(silence.as_millis()).into(),
            };
            self.position += 1;
            let (header, body) = match split(frame) {
                Ok(split) => split,
                Err(error) => return error.into(),
            };
            if header.zxid > 0 {
                shared.last_zxid.store(header.zxid, Ordering::Relaxed);
            }
            let handled = match header.xid {
                XID_NOTIFICATION => self.event(&header, &body).await,
                XID_PING => Ok(()),
                XID_AUTH => self.auth(&header, opens),
                _ => self.reply(&header, body, opens),
            };
            if let Err(ended) = handled {
                return ended;
            }
        }
    }

    async fn event(&mut self, header: &ReplyHeader, body: &[u8]) -> Result<(), Ended> {
        let event = WatcherEvent::from_bytes(body)?;
        self.watches.fired(EventKind::of(event.kind), event.path);
        let path = match event.path.strip_prefix(self.chroot.as_str()) {
            Some("") if !self.chroot.is_empty() => "/",
            Some(rest) if rest.starts_with('/') => rest,
            _ => event.path,
        };
        let event = WatchEvent::of(&event, path, header.zxid, self.position);
        self.tell(Event::Watch(event)).await;
        Ok(())
    }

    fn auth(&mut self, header: &ReplyHeader, opens: &Mutex<Opens>) -> Result<(), Ended> {
        let open = lock(opens).auth.pop_front();
        let Some((identity, answer)) = open else {
            return Err(WireError::OutOfOrder { got: XID_AUTH, expected: 0 }.into());
        };
        if header.err != 0 {
            // A server closes the connection after this, and the next one would as well.
            if let Some(answer) = answer {
                let _ = answer.send(Err(ClientError::AuthFailed));
            }
            return Err(Ended::Over(ClientError::AuthFailed));
        }
        if let Some(answer) = answer {
            self.identities.push(identity);
            let ReplyHeader { zxid, err, .. } = *header;
            let (position, body) = (self.position, Bytes::new());
            let _ = answer.send(Ok(Reply { zxid, err, position, body }));
        }
        Ok(())
    }

    fn reply(
        &mut self,
        header: &ReplyHeader,
        body: Bytes,
        opens: &Mutex<Opens>,
    ) -> Result<(), Ended> {
        let open = lock(opens).take(header.xid)?;
        let found = header.err == 0;
        let mut over = None;
        match open.effect {
            Effect::Watch(kind, path) if found => self.watches.set(kind, path, true),
            Effect::Watch(kind, path) if header.err == ErrorCode::NoNode.number() => {
                self.watches.set(kind, path, false);
            }
            Effect::Unwatch(kind, path) if found => self.watches.removed(kind, &path),
            Effect::Close if found => over = Some(Ended::Over(ClientError::Closed)),
            _ => {}
        }
        if let Some(answer) = open.answer {
            let (position, zxid, err) = (self.position, header.zxid, header.err);
            let _ = answer.send(Ok(Reply { zxid, err, position, body }));
        }
        over.map_or(Ok(()), Err)
    }
}
