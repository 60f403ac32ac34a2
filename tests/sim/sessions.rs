//! ZooKeeper's clients: sessions that move from server to server, ephemeral locks with sequence
//! numbers, versions that are compared, watches. Each checks on the spot what it is told, against
//! what it was told before and against what the others hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use orch::clock;
use orch::jute::op::{ErrorCode, Op};
use orch::jute::reply::{ConnectReply, DataReply, NamesReply, PathReply, ReplyHeader, StatReply};
use orch::jute::request::{
    ConnectRequest, CreateRequest, PathRequest, SetDataRequest, VersionRequest, WatchRequest,
};
use orch::jute::{Acl, Field, Reader, Stat};
use orch::net::{Connection, SharedNet};
use orch::zookeeper::client::{FrameReader, FrameWriter};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::cluster::{ZK, server_addr};

/// Of a session, in milliseconds.
const SESSION: i32 = 6000;
/// A server that gives no answer for so long is left for another.
const SILENT: Duration = Duration::from_millis(2500);
const FRAME_MAX: usize = 1 << 20;
/// Sequential and ephemeral.
const LOCK_FLAGS: i32 = 3;
const LOCKS: &str = "/locks";
const NODES: u64 = 4;
/// Watch events have this number.
const EVENT: i32 = -1;

/// What all clients together have seen; clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    /// Names that a sequential create was acknowledged with.
    names: BTreeSet<String>,
    /// Who believes that it holds the lock.
    holder: Option<u64>,
    /// Versions of each node that a compared write was acknowledged with, by who wrote them.
    versions: BTreeMap<(u64, i32), u64>,
    /// How often something was done.
    counts: BTreeMap<&'static str, u64>,
}

impl Ledger {
    fn book<T>(&self, write: impl FnOnce(&mut Book) -> T) -> T {
        write(&mut self.0.lock().unwrap())
    }

    fn count(&self, what: &'static str) {
        self.book(|book| *book.counts.entry(what).or_default() += 1);
    }

    /// How often something was done.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.book(|book| book.counts.clone())
    }

    /// How often this was done.
    pub fn counted(&self, what: &str) -> u64 {
        self.book(|book| book.counts.get(what).copied().unwrap_or_default())
    }

    fn holds(&self, client: u64) {
        self.book(|book| {
            let holder = book.holder.replace(client);
            assert!(holder.is_none(), "client {client} has the lock, and so has {holder:?}");
            *book.counts.entry("locks held").or_default() += 1;
        });
    }

    fn lets_go(&self, client: u64) {
        self.book(|book| book.holder = book.holder.filter(|holder| *holder != client));
    }
}

/// The connection is of no use any more.
#[derive(Debug)]
struct Gone;

/// A session, whichever server it is on.
struct Session {
    client: u64,
    ledger: Ledger,
    id: i64,
    password: Vec<u8>,
    /// The newest transaction that it was told of.
    zxid: i64,
    /// When it was last heard by a server for certain: a request that was answered left then.
    heard: Instant,
}

/// A session's connection.
struct Line {
    from: FrameReader<ReadHalf<Connection>>,
    to: FrameWriter<WriteHalf<Connection>>,
    xid: i32,
    /// Data watches that are set: the version that was shown with each.
    watches: BTreeMap<String, i64>,
}

/// A client that never rests.
pub async fn client(client: u64, servers: usize, net: SharedNet, ledger: Ledger) {
    let mut session =
        Session { client, ledger, id: 0, password: vec![0; 16], zxid: 0, heard: Instant::now() };
    loop {
        let server = (clock::random() % servers as u64) as usize;
        let Some(mut line) = session.connect(server, &net).await else {
            sleep(Duration::from_millis(50 + clock::random() % 200)).await;
            continue;
        };
        // Ends with the connection.
        let _ = session.work(&mut line).await;
        session.ledger.lets_go(client);
        drop(line);
        if clock::random().is_multiple_of(12) {
            // Longer than a session lives.
            sleep(Duration::from_millis(SESSION as u64 + clock::random() % 6000)).await;
        }
    }
}

impl Session {
    /// A connection with the session on it, the old one or a new one.
    async fn connect(&mut self, server: usize, net: &SharedNet) -> Option<Line> {
        let connecting = net.connect(server_addr(server, ZK).to_string());
        let stream = timeout(SILENT, connecting).await.ok()?.ok()?;
        let (from, to) = tokio::io::split(stream);
        let mut line = Line {
            from: FrameReader::new(from, FRAME_MAX),
            to: FrameWriter::new(to),
            xid: 0,
            watches: BTreeMap::new(),
        };
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.zxid,
            timeout: SESSION,
            session_id: self.id,
            password: self.password.clone(),
            read_only: Some(false),
        };
        let asked = Instant::now();
        line.to.add(|out| request.write(out));
        let frame = timeout(SILENT, async {
            line.to.flush().await.ok()?;
            line.from.next().await.ok()
        });
        let reply = ConnectReply::from_bytes(&frame.await.ok()??).ok()?;
        if reply.timeout <= 0 {
            // It has expired; the next one begins with nothing.
            assert_ne!(self.id, 0, "a new session was refused");
            self.ledger.count("sessions expired");
            (self.id, self.password) = (0, vec![0; 16]);
            return None;
        }
        if self.id == 0 {
            self.ledger.count("sessions begun");
        } else {
            assert_eq!(reply.session_id, self.id, "another session came back");
            self.ledger.count("sessions moved");
        }
        (self.id, self.password) = (reply.session_id, reply.password.to_vec());
        self.heard = asked;
        Some(line)
    }

    /// One request and its answer; errors of the operation are the answer.
    async fn ask<'a>(
        &mut self,
        line: &mut Line,
        op: Op,
        record: &impl Field<'a>,
    ) -> Result<(ErrorCode, Bytes), Gone> {
        line.xid += 1;
        let xid = line.xid;
        line.to.add_request(xid, op.number(), record);
        let asked = Instant::now();
        let deadline = asked + SILENT;
        match timeout_at(deadline, line.to.flush()).await {
            Ok(Ok(())) => {}
            _ => return Err(Gone),
        }
        loop {
            let frame = match timeout_at(deadline, line.from.next()).await {
                Ok(Ok(frame)) => frame,
                _ => return Err(Gone),
            };
            let mut reader = Reader::new(&frame);
            let header: ReplyHeader = reader.field().map_err(|_| Gone)?;
            if header.xid == EVENT {
                self.event(line, reader.rest());
                continue;
            }
            assert_eq!(header.xid, xid, "an answer to something else");
            let code = ErrorCode::of(header.err).unwrap_or(ErrorCode::SystemError);
            if matches!(code, ErrorCode::ConnectionLoss | ErrorCode::SessionExpired) {
                return Err(Gone);
            }
            assert!(
                header.zxid >= self.zxid,
                "client {} was at {:x} and is told {:x}",
                self.client,
                self.zxid,
                header.zxid
            );
            self.zxid = header.zxid;
            self.heard = asked;
            return Ok((code, Bytes::copy_from_slice(reader.rest())));
        }
    }

    fn event(&mut self, line: &mut Line, body: &[u8]) {
        let event = orch::jute::reply::WatcherEvent::from_bytes(body).unwrap();
        line.watches.remove(event.path);
        self.ledger.count("watch events");
    }

    /// What shows a node must not show a change of which its watch has not told.
    fn shown(&self, line: &Line, path: &str, stat: &Stat) {
        if let Some(known) = line.watches.get(path) {
            assert_eq!(
                *known, stat.mzxid,
                "client {} sees {path} change before its watch tells it",
                self.client
            );
        }
    }

    async fn work(&mut self, line: &mut Line) -> Result<(), Gone> {
        for node in 0..NODES {
            self.create(line, &format!("/n{node}"), 0).await?;
        }
        self.create(line, LOCKS, 0).await?;
        loop {
            match clock::random() % 8 {
                0 => self.lock(line).await?,
                1..4 => self.watch(line).await?,
                _ => self.write(line).await?,
            }
            sleep(Duration::from_millis(5 + clock::random() % 120)).await;
        }
    }

    async fn create(
        &mut self,
        line: &mut Line,
        path: &str,
        flags: i32,
    ) -> Result<Option<String>, Gone> {
        let acl = vec![Acl::open()];
        let request = CreateRequest { path, data: Some(b"0"), acl, flags };
        let (code, body) = self.ask(line, Op::Create, &request).await?;
        match code {
            ErrorCode::Ok => {
                let reply = PathReply::from_bytes(&body).map_err(|_| Gone)?;
                Ok(Some(reply.path.to_owned()))
            }
            _ => Ok(None),
        }
    }

    /// A write that replaces what this client has read, and nothing newer.
    async fn write(&mut self, line: &mut Line) -> Result<(), Gone> {
        let node = clock::random() % NODES;
        let path = format!("/n{node}");
        let request = WatchRequest { path: &path, watch: false };
        let (code, body) = self.ask(line, Op::GetData, &request).await?;
        if code != ErrorCode::Ok {
            return Ok(());
        }
        let reply = DataReply::from_bytes(&body).map_err(|_| Gone)?;
        let version = reply.stat.version;
        self.shown(line, &path, &reply.stat);
        let data = format!("{}-{version}", self.client);
        let request = SetDataRequest { path: &path, data: Some(data.as_bytes()), version };
        let (code, body) = self.ask(line, Op::SetData, &request).await?;
        if code != ErrorCode::Ok {
            self.ledger.count("versions that were not the newest");
            return Ok(());
        }
        let stat = StatReply::from_bytes(&body).map_err(|_| Gone)?.stat;
        assert_eq!(stat.version, version + 1, "a compared write made version {}", stat.version);
        self.shown_own(line, &path, &stat);
        let me = self.client;
        self.ledger.book(|book| {
            let known = book.versions.insert((node, stat.version), me);
            assert_eq!(known, None, "version {} of {path} was written twice", stat.version);
            *book.counts.entry("znodes written").or_default() += 1;
        });
        // What it wrote it must see, wherever the session is then.
        let request = WatchRequest { path: &path, watch: false };
        let (code, body) = self.ask(line, Op::GetData, &request).await?;
        if code == ErrorCode::Ok {
            let reply = DataReply::from_bytes(&body).map_err(|_| Gone)?;
            assert!(reply.stat.mzxid >= stat.mzxid, "client {me} does not see its own write");
        }
        Ok(())
    }

    /// Its own write fires its own watch, before the answer.
    fn shown_own(&self, line: &Line, path: &str, stat: &Stat) {
        assert!(
            line.watches.get(path).is_none_or(|known| *known == stat.mzxid),
            "client {} is told of its write to {path} before its watch tells it",
            self.client
        );
    }

    async fn watch(&mut self, line: &mut Line) -> Result<(), Gone> {
        let path = format!("/n{}", clock::random() % NODES);
        let request = WatchRequest { path: &path, watch: true };
        let (code, body) = self.ask(line, Op::GetData, &request).await?;
        if code == ErrorCode::Ok {
            let reply = DataReply::from_bytes(&body).map_err(|_| Gone)?;
            self.shown(line, &path, &reply.stat);
            line.watches.insert(path, reply.stat.mzxid);
        }
        Ok(())
    }

    /// The lock of ZooKeeper's recipe: who has the lowest number holds it.
    async fn lock(&mut self, line: &mut Line) -> Result<(), Gone> {
        let Some(own) = self.create(line, &format!("{LOCKS}/l-"), LOCK_FLAGS).await? else {
            return Ok(());
        };
        let fresh = self.ledger.book(|book| book.names.insert(own.clone()));
        assert!(fresh, "the number of {own} was given out twice");
        for _ in 0..20 {
            self.ask(line, Op::Sync, &PathRequest { path: LOCKS }).await?;
            let request = WatchRequest { path: LOCKS, watch: false };
            let (code, body) = self.ask(line, Op::GetChildren, &request).await?;
            if code != ErrorCode::Ok {
                return Ok(());
            }
            let names = NamesReply::from_bytes(&body).map_err(|_| Gone)?.names;
            let lowest = names.iter().min().copied().unwrap_or_default();
            if own.ends_with(lowest) && !lowest.is_empty() {
                // Certain only for as long as its session can't have expired.
                let certain = self.heard + Duration::from_millis(SESSION as u64 / 2);
                self.ledger.holds(self.client);
                let length = Duration::from_millis(clock::random() % 400);
                tokio::time::sleep_until((Instant::now() + length).min(certain)).await;
                self.ledger.lets_go(self.client);
                break;
            }
            sleep(Duration::from_millis(20 + clock::random() % 80)).await;
        }
        let request = VersionRequest { path: &own, version: -1 };
        self.ask(line, Op::Delete, &request).await?;
        Ok(())
    }
}
