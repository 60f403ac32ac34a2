//! The network between simulated hosts: connections of bytes in order, as TCP gives them. A way
//! that is cut holds what is sent until it is whole again; what is lost comes later; a process
//! that ends closes its connections, a host without power says nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::future::BoxFuture;
use orch::net::{Connection, Listen, Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chance::below;

/// Bytes on their way in one direction of a connection; more has to wait.
const WINDOW: usize = 256 << 10;
/// What is sent again comes so much later.
const RESEND: Duration = Duration::from_millis(200);
/// A connection that nobody answers is tried again.
const KNOCK_AGAIN: Duration = Duration::from_millis(500);

/// How a way is, in one direction.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// Nothing comes through.
    pub cut: bool,
    /// The shortest time of a message, and the usual longest.
    pub latency: (Duration, Duration),
    /// Of 1000 messages, so many are lost and sent again.
    pub loss: u64,
    /// Bytes that go through in a millisecond.
    pub bytes_per_milli: u64,
}

impl Default for Way {
    fn default() -> Self {
        let latency = (Duration::ZERO, Duration::from_millis(2));
        Self { cut: false, latency, loss: 0, bytes_per_milli: 100_000 }
    }
}

/// All connections; clones are the same.
#[derive(Clone, Default)]
pub struct Wires(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    now: Duration,
    next: u64,
    ways: BTreeMap<(IpAddr, IpAddr), Way>,
    /// Of every way that has none of its own.
    usual: Way,
    /// Hosts without power: they don't even say that nobody is there.
    dark: BTreeSet<IpAddr>,
    doors: BTreeMap<SocketAddr, Door>,
    pipes: BTreeMap<u64, Pipe>,
    knocks: Vec<Knock>,
}

#[derive(Default)]
struct Door {
    arrived: VecDeque<(Stream, SocketAddr)>,
    waker: Option<Waker>,
}

/// One direction of a connection.
struct Pipe {
    from: IpAddr,
    to: IpAddr,
    /// The other direction.
    pair: u64,
    /// What is on its way, with the time it arrives; none: the end.
    sent: VecDeque<(Duration, Option<Bytes>)>,
    /// When the last of it arrives.
    last: Duration,
    /// Bytes that were sent and not read.
    unread: usize,
    arrived: VecDeque<Bytes>,
    ended: bool,
    reset: bool,
    /// Nobody reads it any more.
    deaf: bool,
    /// Nobody writes to it any more.
    mute: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A connection that is asked for.
struct Knock {
    from: IpAddr,
    to: SocketAddr,
    at: Duration,
    answer: Arc<Mutex<Answer>>,
}

#[derive(Default)]
struct Answer {
    result: Option<io::Result<Stream>>,
    waker: Option<Waker>,
}

impl State {
    fn way(&self, from: IpAddr, to: IpAddr) -> Way {
        if from == to {
            return Way { latency: (Duration::ZERO, Duration::ZERO), ..Way::default() };
        }
        self.ways.get(&(from, to)).copied().unwrap_or(self.usual)
    }

    /// When something that is sent now arrives.
    fn arrival(&self, from: IpAddr, to: IpAddr, bytes: usize) -> Duration {
        let way = self.way(from, to);
        let (least, usual) = way.latency;
        let spread = usual.saturating_sub(least).as_micros() as u64;
        let mut takes = least + Duration::from_micros(below(spread + 1));
        takes += Duration::from_millis(bytes as u64 / way.bytes_per_milli.max(1));
        if from != to && below(1000) < way.loss {
            takes += RESEND;
        }
        self.now + takes
    }

    fn push(&mut self, id: u64, bytes: Option<Bytes>) {
        let Some(pipe) = self.pipes.get(&id) else { return };
        let length = bytes.as_ref().map_or(0, Bytes::len);
        let at = self.arrival(pipe.from, pipe.to, length).max(pipe.last);
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        pipe.last = at;
        pipe.unread += length;
        pipe.sent.push_back((at, bytes));
    }

    fn connect(&mut self, from: SocketAddr, to: SocketAddr, wires: &Wires) -> (Stream, Stream) {
        let (there, back) = (self.next + 1, self.next + 2);
        self.next += 2;
        for (id, pair, from, to) in [(there, back, from, to), (back, there, to, from)] {
            let pipe = Pipe {
                from: from.ip(),
                to: to.ip(),
                pair,
                sent: VecDeque::new(),
                last: self.now,
                unread: 0,
                arrived: VecDeque::new(),
                ended: false,
                reset: false,
                deaf: false,
                mute: false,
                reader: None,
                writer: None,
            };
            self.pipes.insert(id, pipe);
        }
        let stream = |out, into| Stream { wires: wires.clone(), out, into };
        (stream(there, back), stream(back, there))
    }

    /// Both ends see that it is broken.
    fn reset(&mut self, id: u64, wake: &mut Vec<Waker>) {
        let Some(pair) = self.pipes.get(&id).map(|pipe| pipe.pair) else { return };
        for id in [id, pair] {
            if let Some(pipe) = self.pipes.get_mut(&id) {
                pipe.reset = true;
                pipe.sent.clear();
                wake.extend(pipe.reader.take());
                wake.extend(pipe.writer.take());
            }
        }
    }

    fn deliver(&mut self, wires: &Wires, wake: &mut Vec<Waker>) {
        let now = self.now;
        let due: Vec<u64> = self
            .pipes
            .iter()
            .filter(|(_, pipe)| pipe.sent.front().is_some_and(|(at, _)| *at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let (from, to) = (self.pipes[&id].from, self.pipes[&id].to);
            let held = self.way(from, to).cut || self.dark.contains(&to);
            let Some(pipe) = self.pipes.get_mut(&id) else { continue };
            if held {
                // It is sent again and again.
                if let Some(next) = pipe.sent.front_mut() {
                    next.0 = now + RESEND;
                    pipe.last = pipe.last.max(next.0);
                }
                continue;
            }
            if pipe.deaf {
                self.reset(id, wake);
                continue;
            }
            while pipe.sent.front().is_some_and(|(at, _)| *at <= now) {
                match pipe.sent.pop_front() {
                    Some((_, Some(bytes))) => pipe.arrived.push_back(bytes),
                    _ => pipe.ended = true,
                }
            }
            wake.extend(pipe.reader.take());
        }
        self.pipes.retain(|_, pipe| !(pipe.deaf && pipe.mute && pipe.sent.is_empty()));
        for mut knock in std::mem::take(&mut self.knocks) {
            if Arc::strong_count(&knock.answer) == 1 {
                continue;
            }
            if knock.at > now {
                self.knocks.push(knock);
                continue;
            }
            let (from, to) = (knock.from, knock.to.ip());
            let silent = self.way(from, to).cut || self.way(to, from).cut;
            if silent || self.dark.contains(&to) {
                knock.at = now + KNOCK_AGAIN;
                self.knocks.push(knock);
                continue;
            }
            let result = if self.doors.contains_key(&knock.to) {
                let peer = SocketAddr::new(from, 40_000 + (self.next % 20_000) as u16);
                let (near, far) = self.connect(peer, knock.to, wires);
                if let Some(door) = self.doors.get_mut(&knock.to) {
                    door.arrived.push_back((far, peer));
                    wake.extend(door.waker.take());
                }
                Ok(near)
            } else {
                Err(ErrorKind::ConnectionRefused.into())
            };
            let mut answer = knock.answer.lock().unwrap();
            answer.result = Some(result);
            wake.extend(answer.waker.take());
        }
    }
}

impl Wires {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Time has gone on: what has arrived by now is there.
    pub fn deliver(&self, now: Duration) {
        let mut wake = Vec::new();
        {
            let mut state = self.lock();
            state.now = now;
            state.deliver(self, &mut wake);
        }
        wake.into_iter().for_each(Waker::wake);
    }

    /// One host's way into it.
    pub fn of(&self, host: IpAddr) -> Arc<dyn Net> {
        Arc::new(Exit { wires: self.clone(), host })
    }

    /// Changes the way from one host to another.
    pub fn change(&self, from: IpAddr, to: IpAddr, change: impl FnOnce(&mut Way)) {
        let mut state = self.lock();
        let usual = state.usual;
        change(state.ways.entry((from, to)).or_insert(usual));
    }

    /// Changes all ways that have not been changed by themselves.
    pub fn change_usual(&self, change: impl FnOnce(&mut Way)) {
        change(&mut self.lock().usual);
    }

    /// All ways are whole.
    pub fn mend(&self) {
        let mut state = self.lock();
        state.ways.clear();
        state.usual = Way::default();
    }

    /// Whether a host has no power: it neither answers nor closes anything.
    pub fn darken(&self, host: IpAddr, dark: bool) {
        let mut state = self.lock();
        if dark {
            state.dark.insert(host);
        } else {
            state.dark.remove(&host);
        }
    }

    /// Breaks all connections between two hosts, as a router does that forgets them.
    pub fn forget(&self, a: IpAddr, b: IpAddr) {
        let mut wake = Vec::new();
        {
            let mut state = self.lock();
            let between = |pipe: &Pipe| (pipe.from, pipe.to) == (a, b);
            let ids: Vec<u64> =
                state.pipes.iter().filter(|(_, pipe)| between(pipe)).map(|(id, _)| *id).collect();
            ids.into_iter().for_each(|id| state.reset(id, &mut wake));
        }
        wake.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wires")
    }
}

#[derive(Debug)]
struct Exit {
    wires: Wires,
    host: IpAddr,
}

impl Net for Exit {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'static, io::Result<Listener>> {
        let (wires, addr) = (self.wires.clone(), SocketAddr::new(self.host, addr.port()));
        Box::pin(async move {
            let mut state = wires.lock();
            if state.doors.contains_key(&addr) {
                return Err(ErrorKind::AddrInUse.into());
            }
            state.doors.insert(addr, Door::default());
            drop(state);
            let listening: Listener = Box::new(Listening { wires, addr });
            Ok(listening)
        })
    }

    fn connect(&self, addr: String) -> BoxFuture<'static, io::Result<Connection>> {
        let (wires, from) = (self.wires.clone(), self.host);
        Box::pin(async move {
            let to: SocketAddr = addr.parse().map_err(|_| io::Error::from(ErrorKind::NotFound))?;
            let answer = Arc::new(Mutex::new(Answer::default()));
            {
                let mut state = wires.lock();
                let at = state.arrival(from, to.ip(), 0).max(state.arrival(to.ip(), from, 0));
                state.knocks.push(Knock { from, to, at, answer: answer.clone() });
            }
            let stream = std::future::poll_fn(|cx| {
                let mut answer = answer.lock().unwrap();
                match answer.result.take() {
                    Some(result) => Poll::Ready(result),
                    None => {
                        answer.waker = Some(cx.waker().clone());
                        Poll::Pending
                    }
                }
            });
            let stream: Connection = Box::new(stream.await?);
            Ok(stream)
        })
    }
}

#[derive(Debug)]
struct Listening {
    wires: Wires,
    addr: SocketAddr,
}

impl Listen for Listening {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Connection, SocketAddr)>> {
        Box::pin(std::future::poll_fn(|cx| {
            let mut state = self.wires.lock();
            let Some(door) = state.doors.get_mut(&self.addr) else { return Poll::Pending };
            match door.arrived.pop_front() {
                Some((stream, peer)) => {
                    let stream: Connection = Box::new(stream);
                    Poll::Ready(Ok((stream, peer)))
                }
                None => {
                    door.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let door = self.wires.lock().doors.remove(&self.addr);
        // Connections that nobody took end here, which looks at the wires again.
        drop(door);
    }
}

/// One end of a connection.
#[derive(Debug)]
struct Stream {
    wires: Wires,
    out: u64,
    into: u64,
}

fn broken() -> io::Error {
    ErrorKind::ConnectionReset.into()
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.wires.lock();
        let Some(pipe) = state.pipes.get_mut(&self.into) else {
            return Poll::Ready(Err(broken()));
        };
        let writer = if let Some(first) = pipe.arrived.front_mut() {
            let length = first.len().min(buffer.remaining());
            buffer.put_slice(&first[..length]);
            first.advance(length);
            if first.is_empty() {
                pipe.arrived.pop_front();
            }
            pipe.unread -= length;
            pipe.writer.take()
        } else if pipe.reset {
            return Poll::Ready(Err(broken()));
        } else if pipe.ended {
            None
        } else {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        drop(state);
        if let Some(writer) = writer {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.wires.lock();
        let Some(pipe) = state.pipes.get_mut(&self.out) else {
            return Poll::Ready(Err(broken()));
        };
        if pipe.reset || pipe.mute {
            return Poll::Ready(Err(broken()));
        }
        let room = WINDOW.saturating_sub(pipe.unread);
        if room == 0 {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = bytes.len().min(room);
        state.push(self.out, Some(Bytes::copy_from_slice(&bytes[..length])));
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wires.lock().end(self.out);
        Poll::Ready(Ok(()))
    }
}

impl State {
    /// Says that nothing more comes.
    fn end(&mut self, id: u64) {
        let Some(pipe) = self.pipes.get_mut(&id) else { return };
        if !pipe.mute {
            pipe.mute = true;
            if !self.dark.contains(&self.pipes[&id].from) {
                self.push(id, None);
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.wires.lock();
        state.end(self.out);
        if let Some(pipe) = state.pipes.get_mut(&self.into) {
            pipe.deaf = true;
            pipe.arrived.clear();
        }
    }
}
