//! A real ensemble that is filled, and then written to at a rate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::task::JoinSet;

use super::nodes::Nodes;
use super::{Committed, MigrateError, Options};
use crate::jute::reply::ReplyHeader;
use crate::jute::request::{ConnectRequest, SetDataRequest};
use crate::jute::{Acl, ErrorCode, Op, Reader};
use crate::zookeeper::client::{self, Client, ClientError, Ensemble, Mode, Wire, WireError};

/// Requests on their way while nodes are made or removed.
const AT_ONCE: usize = 1024;
/// Connections that write.
const CONNECTIONS: usize = 8;
/// Requests on their way on each of them, at most.
const OUTSTANDING: usize = 1024;
/// Between two looks at what is due, if nothing is heard.
const PAUSE: Duration = Duration::from_millis(2);
/// For the last replies.
const REPLIES: Duration = Duration::from_secs(60);
const GIVE_UP: Duration = Duration::from_secs(60);
const HANDSHAKE: Duration = Duration::from_secs(10);
const SESSION_TIMEOUT_MS: i32 = 30_000;
/// A step that has no factor in common with the number of nodes.
const STEP: usize = 7919;

/// The nodes that were made there.
pub(super) struct Filled {
    client: Client,
    ensemble: Ensemble,
    nodes: Arc<Nodes>,
}

impl Filled {
    /// Makes them.
    pub(super) async fn make(ensemble: &Ensemble, options: &Options) -> Result<Self, MigrateError> {
        let reach = client::Options { give_up: GIVE_UP, ..client::Options::default() };
        let (client, _) = Client::connect(ensemble, reach).await?;
        let top = format!("/orch-bench-{:016x}", crate::clock::random());
        let nodes = Arc::new(Nodes::new(top, options.nodes, options.value_bytes));
        let filled = Self { client, ensemble: ensemble.clone(), nodes };
        match filled.fill().await {
            Ok(()) => Ok(filled),
            Err(error) => {
                // The first error is the one to tell of.
                let _ = filled.remove().await;
                Err(error.into())
            }
        }
    }

    async fn fill(&self) -> Result<(), ClientError> {
        let create = async |path: String, data: &[u8]| {
            self.client.create(&path, data, vec![Acl::open()], Mode::Persistent).await.map(drop)
        };
        let (create, nodes) = (&create, &self.nodes);
        create(nodes.top.clone(), b"").await?;
        let parents = stream::iter((0..nodes.parents()).map(|number| nodes.parent(number)));
        parents.map(|path| create(path, b"")).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let paths = stream::iter((0..nodes.count).map(|number| nodes.path(number)));
        paths.map(|path| create(path, &nodes.value)).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Removes them.
    pub(super) async fn remove(self) -> Result<(), ClientError> {
        let delete = async |path: String| match self.client.delete(&path, -1).await {
            // It was not made.
            Err(ClientError::Refused(ErrorCode::NoNode)) => Ok(()),
            deleted => deleted,
        };
        let (delete, nodes) = (&delete, &self.nodes);
        let paths = stream::iter((0..nodes.count).map(|number| nodes.path(number)));
        paths.map(delete).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let parents = stream::iter((0..nodes.parents()).map(|number| nodes.parent(number)));
        parents.map(delete).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        delete(nodes.top.clone()).await?;
        self.client.close().await
    }

    /// Replaces data, `options.rate` times a second if the ensemble can. Each counts as committed
    /// when its writer was told.
    pub(super) async fn write(&self, options: &Options) -> Result<Vec<Committed>, MigrateError> {
        let mut tasks = JoinSet::new();
        for number in 0..CONNECTIONS {
            let server = &self.ensemble.servers[number % self.ensemble.servers.len()];
            let writer = Writer {
                nodes: self.nodes.clone(),
                wire: open(server).await?,
                next: number * self.nodes.count / CONNECTIONS,
                rate: f64::from(options.rate) / CONNECTIONS as f64,
            };
            tasks.spawn(tokio::time::timeout(options.run + REPLIES, writer.write(options.run)));
        }
        let mut committed = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            let silent = |_| WireError::Silence(REPLIES.as_millis());
            committed.extend(ended?.map_err(silent)??);
        }
        committed.sort_unstable_by_key(|committed| committed.zxid);
        Ok(committed)
    }
}

async fn open(server: &str) -> Result<Wire, WireError> {
    let hello = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout: SESSION_TIMEOUT_MS,
        session_id: 0,
        password: vec![0; 16],
        read_only: Some(false),
    };
    let mut wire = Wire::connect(server, HANDSHAKE).await?;
    wire.handshake(&hello, HANDSHAKE).await?;
    Ok(wire)
}

struct Writer {
    nodes: Arc<Nodes>,
    wire: Wire,
    next: usize,
    rate: f64,
}

impl Writer {
    async fn write(mut self, run: Duration) -> Result<Vec<Committed>, MigrateError> {
        let began = Instant::now();
        let mut committed = Vec::new();
        let mut sent = 0_usize;
        loop {
            let since = began.elapsed();
            let over = since >= run;
            let due = if over { sent } else { (since.as_secs_f64() * self.rate) as usize };
            while sent < due && sent - committed.len() < OUTSTANDING {
                sent += 1;
                let path = &self.nodes.path(self.next % self.nodes.count);
                self.next += STEP;
                let set = SetDataRequest { path, data: Some(&self.nodes.value), version: -1 };
                let xid = i32::try_from(sent).unwrap_or(i32::MAX);
                self.wire.to.add_request(xid, Op::SetData.number(), &set);
            }
            self.wire.to.flush().await?;
            if over && committed.len() == sent {
                return Ok(committed);
            }
            let Ok(frame) = tokio::time::timeout(PAUSE, self.wire.from.next()).await else {
                continue;
            };
            let (mut frame, at) = (Some(frame?), Instant::now());
            while let Some(bytes) = frame {
                let header: ReplyHeader = Reader::new(&bytes).field().map_err(WireError::Record)?;
                if header.err != 0 {
                    return Err(ClientError::of_number(header.err).into());
                }
                committed.push(Committed { zxid: header.zxid, at });
                frame = self.wire.from.try_next()?;
            }
        }
    }
}
