//! One run: connections that each keep a number of requests on their way, frame by frame, so that
//! little is measured but the server.

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinSet;

use super::tree::{Paths, Tree};
use super::{Options, ZkError};
use crate::jute::reply::ReplyHeader;
use crate::jute::request::{ConnectRequest, CreateRequest, SetDataRequest, WatchRequest};
use crate::jute::{Acl, Op, Reader};
use crate::zookeeper::client::{ClientError, Wire, WireError};

/// For a server to accept a session.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For the last replies of a run.
const REPLIES: Duration = Duration::from_secs(60);
const SESSION_TIMEOUT_MS: i32 = 30_000;
/// A step that has no factor in common with the number of nodes.
const STEP: usize = 7919;
/// Of so many requests of the mixed load one replaces data; the others read.
const MIXED_SETS: usize = 4;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Nodes are made.
    Create,
    /// Data are replaced.
    Set,
    /// Data are read.
    Get,
    /// Of four requests three read and one replaces.
    Mixed,
    /// As `Create`, one request at a time on one connection.
    CreateAlone,
    /// As `Set`, one request at a time on one connection.
    SetAlone,
    /// As `Get`, one request at a time on one connection.
    GetAlone,
}

impl Workload {
    /// All, in the order of the table.
    pub const ALL: [Self; 7] = [
        Self::Create,
        Self::Set,
        Self::Get,
        Self::Mixed,
        Self::CreateAlone,
        Self::SetAlone,
        Self::GetAlone,
    ];

    /// Whether one request at a time is measured.
    pub fn is_alone(self) -> bool {
        matches!(self, Self::CreateAlone | Self::SetAlone | Self::GetAlone)
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Set => "set",
            Self::Get => "get",
            Self::Mixed => "mixed",
            Self::CreateAlone => "create, one at a time",
            Self::SetAlone => "set, one at a time",
            Self::GetAlone => "get, one at a time",
        })
    }
}

/// What one run has shown.
#[derive(Debug)]
pub(super) struct Measured {
    /// Its length.
    pub(super) seconds: f64,
    /// Microseconds from request to reply, in order.
    pub(super) took_us: Vec<u32>,
}

/// One run of `workload`; `tree` learns what was made.
pub(super) async fn run(
    tree: &mut Tree,
    options: &Options,
    workload: Workload,
) -> Result<Measured, ZkError> {
    let (connections, outstanding) = match workload.is_alone() {
        true => (1, 1),
        false => (options.connections, options.outstanding),
    };
    let mut ready = Vec::new();
    for number in 0..connections {
        let servers = &tree.target.ensemble.servers;
        let server = servers[number % servers.len()].clone();
        let paths = tree.paths(number);
        ready.push(Connection::open(&tree.target.label, server, paths, workload).await?);
    }
    let began = Instant::now();
    let until = began + options.run;
    let mut tasks = JoinSet::new();
    for (number, connection) in ready.into_iter().enumerate() {
        let value = vec![0x5a; options.value_bytes];
        tasks.spawn(async move { (number, connection.drive(value, outstanding, until).await) });
    }
    let mut took_us = Vec::new();
    let mut failed = None;
    while let Some(ended) = tasks.join_next().await {
        let (number, Driven { created, outcome }) = ended?;
        tree.made(number, created);
        match outcome {
            Ok(took) => took_us.extend(took),
            Err(error) => failed = Some(error),
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    if let Some(error) = failed {
        return Err(error);
    }
    took_us.sort_unstable();
    Ok(Measured { seconds, took_us })
}

/// A connection with a session of its own, ready to begin.
struct Connection {
    label: String,
    server: String,
    workload: Workload,
    paths: Paths,
    wire: Wire,
    next: usize,
    /// Nodes that it has asked for.
    created: usize,
}

struct Driven {
    created: usize,
    outcome: Result<Vec<u32>, ZkError>,
}

impl Connection {
    async fn open(
        label: &str,
        server: String,
        paths: Paths,
        workload: Workload,
    ) -> Result<Self, ZkError> {
        let failed =
            |error| ZkError::Wire { label: label.to_owned(), server: server.clone(), error };
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout: SESSION_TIMEOUT_MS,
            session_id: 0,
            password: vec![0; 16],
            read_only: Some(false),
        };
        let mut wire = Wire::connect(&server, HANDSHAKE).await.map_err(failed)?;
        wire.handshake(&hello, HANDSHAKE).await.map_err(failed)?;
        let label = label.to_owned();
        Ok(Self { label, server, workload, next: paths.first, paths, wire, created: 0 })
    }

    async fn drive(mut self, value: Vec<u8>, outstanding: usize, until: Instant) -> Driven {
        let rest = until.saturating_duration_since(Instant::now()) + REPLIES;
        let outcome = match tokio::time::timeout(rest, self.load(&value, outstanding, until)).await
        {
            Ok(outcome) => outcome,
            Err(_) => Err(self.broke(WireError::Silence(rest.as_millis()))),
        };
        if outcome.is_ok() {
            // The session's end is not measured; without it the server does so by itself.
            let _ = self.wire.ask(i32::MAX, Op::CloseSession.number(), &Nothing).await;
        }
        Driven { created: self.created, outcome }
    }

    /// Microseconds of each request.
    async fn load(
        &mut self,
        value: &[u8],
        outstanding: usize,
        until: Instant,
    ) -> Result<Vec<u32>, ZkError> {
        let mut open: VecDeque<(i32, Instant)> = VecDeque::with_capacity(outstanding);
        let mut took = Vec::new();
        let mut xid = 0_i32;
        loop {
            let now = Instant::now();
            if now < until {
                while open.len() < outstanding {
                    xid = xid.wrapping_add(1).max(1);
                    self.add(xid, value);
                    open.push_back((xid, now));
                }
                self.wire.to.flush().await.map_err(|error| self.broke(error))?;
            } else if open.is_empty() {
                return Ok(took);
            }
            let mut frame = Some(self.wire.from.next().await.map_err(|error| self.broke(error))?);
            let now = Instant::now();
            // All that has come is taken before more is asked, so that requests travel together.
            while let Some(bytes) = frame {
                let header: ReplyHeader = Reader::new(&bytes)
                    .field()
                    .map_err(|error| self.broke(WireError::Record(error)))?;
                let (expected, sent) = open.pop_front().unwrap_or((0, now));
                if header.xid != expected {
                    let got = header.xid;
                    return Err(self.broke(WireError::OutOfOrder { got, expected }));
                }
                if header.err != 0 {
                    return Err(ZkError::Refused {
                        label: self.label.clone(),
                        server: self.server.clone(),
                        workload: self.workload,
                        error: ClientError::of_number(header.err),
                    });
                }
                took.push(u32::try_from((now - sent).as_micros()).unwrap_or(u32::MAX));
                frame = self.wire.from.try_next().map_err(|error| self.broke(error))?;
            }
        }
    }

    fn add(&mut self, xid: i32, value: &[u8]) {
        let number = self.next;
        self.next += 1;
        let write = match self.workload {
            Workload::Create | Workload::CreateAlone => {
                let path = &self.paths.new_node(self.created);
                self.created += 1;
                let (data, acl, flags) = (Some(value), vec![Acl::open()], 0);
                let create = CreateRequest { path, data, acl, flags };
                return self.wire.to.add_request(xid, Op::Create.number(), &create);
            }
            Workload::Set | Workload::SetAlone => true,
            Workload::Get | Workload::GetAlone => false,
            Workload::Mixed => number.is_multiple_of(MIXED_SETS),
        };
        let path = &self.paths.node(number * STEP);
        if write {
            let set = SetDataRequest { path, data: Some(value), version: -1 };
            self.wire.to.add_request(xid, Op::SetData.number(), &set);
        } else {
            let get = WatchRequest { path, watch: false };
            self.wire.to.add_request(xid, Op::GetData.number(), &get);
        }
    }

    fn broke(&self, error: WireError) -> ZkError {
        ZkError::Wire { label: self.label.clone(), server: self.server.clone(), error }
    }
}

/// A record without fields.
struct Nothing;

impl<'a> crate::jute::Field<'a> for Nothing {
    fn read(_reader: &mut Reader<'a>) -> Result<Self, crate::jute::Error> {
        Ok(Self)
    }

    fn write(&self, _out: &mut Vec<u8>) {}
}
