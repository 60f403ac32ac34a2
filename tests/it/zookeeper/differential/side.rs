//! One of the two servers: the sessions on it, each on a connection whose frames are read and
//! written one by one, and what came back.

use std::collections::BTreeMap;
use std::time::Duration;

use orch::jute::Field;
use orch::jute::reply::{ConnectReply, WatcherEvent};
use orch::jute::request::ConnectRequest;
use orch::jute::{Op, request::PathRequest, request::WatchRequest};
use orch::zookeeper::client::{Wire, WireError};

use super::asks::{Ask, Seen, split};

/// For any one reply; nothing is expected to take long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a session has seen, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The same on both sides if the servers are alike.
    pub text: String,
    /// Transaction numbers, to be compared by their order.
    pub zxids: Vec<i64>,
    /// Whether it was not asked for.
    pub is_event: bool,
}

impl Entry {
    fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), zxids: Vec::new(), is_event: false }
    }
}

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello {
    /// A new session.
    New,
    /// The session goes on, on a new connection, after the old one was closed.
    Again,
    /// The same while the old connection is open.
    Beside,
    /// The session's id with another password.
    WrongPassword,
    /// An id that no session has.
    Unknown,
    /// The session says it has seen a transaction that no server knows yet.
    Ahead,
}

#[derive(Debug)]
struct Session {
    wire: Option<Wire>,
    id: i64,
    password: [u8; 16],
    last_zxid: i64,
}

/// A server, and the test's sessions on it.
#[derive(Debug)]
pub struct Side {
    address: String,
    sessions: Vec<Session>,
    ids: BTreeMap<i64, usize>,
}

impl Side {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), sessions: Vec::new(), ids: BTreeMap::new() }
    }

    /// Connects; a new session gets the next number.
    pub async fn connect(
        &mut self,
        session: usize,
        hello: Hello,
        timeout: i32,
        old_client: bool,
    ) -> Vec<Entry> {
        if hello == Hello::New {
            assert_eq!(session, self.sessions.len());
            let password = [0; 16];
            self.sessions.push(Session { wire: None, id: 0, password, last_zxid: 0 });
        }
        let own = &mut self.sessions[session];
        let mut before = None;
        match hello {
            Hello::Beside => before = own.wire.take(),
            Hello::Again => drop(own.wire.take()),
            _ => {}
        }
        let mut password = own.password;
        if hello == Hello::WrongPassword {
            password[3] ^= 0x55;
        }
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: match hello {
                Hello::Ahead => i64::MAX / 2,
                _ => own.last_zxid,
            },
            timeout,
            session_id: match hello {
                Hello::New => 0,
                Hello::Unknown => own.id ^ 0x00f0_0000,
                _ => own.id,
            },
            password: password.to_vec(),
            read_only: if old_client { None } else { Some(false) },
        };
        let mut wire = Wire::connect(&self.address, PATIENCE).await.expect("a connection");
        wire.to.add(|out| request.write(out));
        wire.to.flush().await.expect("a connection");
        let mut entries = Vec::new();
        match next(&mut wire).await {
            None => entries.push(Entry::plain("closed without an answer")),
            Some(frame) => {
                let reply = ConnectReply::from_bytes(&frame).expect("a reply to a connect");
                let same = reply.session_id == own.id && reply.password == own.password;
                entries.push(Entry::plain(format!(
                    "timeout {} read only {:?} zero {} same {}",
                    reply.timeout,
                    reply.read_only,
                    reply.session_id == 0 && reply.password == [0; 16],
                    same
                )));
                if reply.timeout > 0 {
                    if hello == Hello::New {
                        (own.id, own.password) = (reply.session_id, reply.password);
                        self.ids.insert(own.id, session);
                    }
                    own.wire = Some(wire);
                } else {
                    entries.push(Entry::plain(match next(&mut wire).await {
                        None => "closed",
                        Some(_) => "not closed",
                    }));
                }
            }
        }
        if let Some(mut before) = before {
            entries.push(Entry::plain(match next(&mut before).await {
                None => "the old connection is closed",
                Some(_) => "the old connection is open",
            }));
        }
        entries
    }

    /// Closes a connection without a word.
    pub fn drop_connection(&mut self, session: usize) {
        self.sessions[session].wire = None;
    }

    /// Sends the requests at once, and gathers replies, and events between them. Header ids are
    /// counted from `xid`.
    pub async fn ask(&mut self, session: usize, asks: &[Ask], xid: i32) -> Vec<Entry> {
        let own = &mut self.sessions[session];
        let Some(wire) = own.wire.as_mut() else { return Vec::new() };
        let mut xids = Vec::new();
        for (ask, xid) in asks.iter().zip(xid..) {
            let xid = ask.xid().unwrap_or(xid);
            xids.push(xid);
            let last_zxid = own.last_zxid;
            wire.to.add(|out| {
                xid.write(out);
                ask.op().write(out);
                ask.write(last_zxid, out);
            });
        }
        let mut entries = Vec::new();
        // A connection that the server has closed shows when it is read from.
        let _ = wire.to.flush().await;
        let mut waiting = asks.iter().zip(xids);
        let mut expected = waiting.next();
        while let Some((ask, xid)) = expected {
            let Some(frame) = next(wire).await else {
                entries.push(Entry::plain("closed"));
                own.wire = None;
                return entries;
            };
            let (got, zxid, err, body) = split(&frame);
            if got == -1 {
                entries.push(event(body));
                continue;
            }
            let mut seen = Seen { zxids: Vec::new(), sessions: &self.ids };
            let mut text = match (got == xid, err) {
                (false, _) => format!("reply to {got} instead of {xid}"),
                (true, 0) => match ask.read(body, &mut seen) {
                    Ok(text) => text,
                    Err(error) => format!("{error}: {body:?}"),
                },
                (true, err) => format!("error {err}, {} bytes", body.len()),
            };
            let mut zxids = seen.zxids;
            if err == 0 && ask.makes_transaction() {
                zxids.push(zxid);
            }
            if zxid > 0 {
                if zxid < own.last_zxid {
                    text.push_str(", a transaction number that goes back");
                }
                own.last_zxid = zxid;
            }
            entries.push(Entry { text, zxids, is_event: false });
            expected = waiting.next();
        }
        // What the server closes after this reply, it does at once.
        if asks.iter().any(Ask::goes_alone) {
            entries.extend(self.settle(session, true).await);
        }
        entries
    }

    /// All events that a session has been sent by what was done so far.
    pub async fn settle(&mut self, session: usize, say_closed: bool) -> Vec<Entry> {
        let own = &mut self.sessions[session];
        let Some(wire) = own.wire.as_mut() else { return Vec::new() };
        // The read comes behind whatever the sync waited for.
        wire.to.add_request(i32::MAX - 1, Op::Sync.number(), &PathRequest { path: "/" });
        let read = WatchRequest { path: "/", watch: false };
        wire.to.add_request(i32::MAX, Op::Exists.number(), &read);
        let _ = wire.to.flush().await;
        let mut entries = Vec::new();
        loop {
            let Some(frame) = next(wire).await else {
                own.wire = None;
                if say_closed {
                    entries.push(Entry::plain("closed"));
                }
                return entries;
            };
            let (xid, zxid, _, body) = split(&frame);
            if zxid > 0 {
                own.last_zxid = own.last_zxid.max(zxid);
            }
            match xid {
                -1 => entries.push(event(body)),
                i32::MAX => return entries,
                _ => {}
            }
        }
    }

    /// Ends a session in order.
    pub async fn close(&mut self, session: usize, xid: i32) -> Vec<Entry> {
        let close = Ask::Raw { op: Op::CloseSession.number(), body: Vec::new() };
        let entries = self.ask(session, &[close], xid).await;
        self.drop_connection(session);
        entries
    }

    /// Whether a session has a connection.
    pub fn is_connected(&self, session: usize) -> bool {
        self.sessions[session].wire.is_some()
    }
}

fn event(body: &[u8]) -> Entry {
    let event = WatcherEvent::from_bytes(body).expect("an event");
    let text = format!("event {} state {} {}", event.kind, event.state, event.path);
    Entry { text, zxids: Vec::new(), is_event: true }
}

/// The next frame; none if the server has closed the connection.
async fn next(wire: &mut Wire) -> Option<Vec<u8>> {
    match tokio::time::timeout(PATIENCE, wire.from.next()).await {
        Ok(Ok(frame)) => Some(frame.to_vec()),
        Ok(Err(WireError::Closed | WireError::Io(_))) => None,
        Ok(Err(error)) => panic!("a frame that can't be: {error}"),
        Err(_) => panic!("no answer for {PATIENCE:?}"),
    }
}
