//! A leader of an ensemble that is played: it has a tree, and transactions that it made up before,
//! so that it can send as many in a second as are asked for.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::nodes::Nodes;
use super::{Committed, MigrateError, Options};
use crate::jute::file::NODES_END;
use crate::jute::op::Op;
use crate::jute::quorum::{self, AuthInfo, QuorumPacket, SNAP_END, packet_bytes};
use crate::jute::rows::write_tables;
use crate::jute::txn::{CreateKind, CreateTxn, SetDataTxn, Transaction, Txn, TxnDigest, TxnHeader};
use crate::jute::{Acl, Field, digest};
use crate::limits::ZK_READ_BYTES;
use crate::state::znodes::ZkImport;

/// The leader's epoch.
const EPOCH: i64 = 1;
/// The last transaction that the tree has.
const SNAPSHOT: i64 = EPOCH << 32 | 7;
/// Between two pings.
const TICK: Duration = Duration::from_millis(200);
/// Between two looks at what is due.
const PAUSE: Duration = Duration::from_millis(1);
/// Of so many transactions one makes a node; the others replace data.
const CREATE_EVERY: usize = 4;
/// Rows that are written together.
const ROWS: usize = 1000;
/// A step that has no factor in common with the number of nodes.
const STEP: usize = 7919;

/// What it says.
struct Script {
    nodes: Nodes,
    /// Messages with the transactions.
    messages: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    rate: f64,
}

/// The leader, until it is dropped.
pub(super) struct Leader {
    pub(super) addr: String,
    script: Arc<Script>,
    begin: watch::Sender<Option<Instant>>,
    _task: AbortOnDropHandle<()>,
}

impl Leader {
    /// Makes all that it will say, and listens.
    pub(super) async fn start(options: &Options) -> Result<Self, MigrateError> {
        let script = {
            let options = options.clone();
            tokio::task::spawn_blocking(move || Script::write(&options)).await??
        };
        let script = Arc::new(script);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?.to_string();
        let (begin, begun) = watch::channel(None);
        let task = {
            let script = script.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (script, begun) = (script.clone(), begun.clone());
                    tokio::spawn(async move {
                        // It ends when whoever listens goes away.
                        let _ = script.tell(stream, begun).await;
                    });
                }
            })
        };
        Ok(Self { addr, script, begin, _task: AbortOnDropHandle::new(task) })
    }

    /// Sends the transactions to whoever listens. Each counts as committed when it is due: if it
    /// can't be sent then, that is lag too.
    pub(super) async fn play(&self) -> Vec<Committed> {
        let began = Instant::now();
        self.begin.send_replace(Some(began));
        let due = |place: usize| began + Duration::from_secs_f64(place as f64 / self.script.rate);
        let committed = (0..self.script.ends.len())
            .map(|place| Committed { zxid: self.script.zxid(place), at: due(place) });
        let committed: Vec<_> = committed.collect();
        tokio::time::sleep_until(due(committed.len()).into()).await;
        committed
    }
}

fn message(kind: i32, zxid: i64, data: Option<&[u8]>) -> Vec<u8> {
    QuorumPacket { kind, zxid, data, auth: AuthInfo(None) }.to_bytes()
}

impl Script {
    /// Carries the transactions out on a tree of its own, so that each has the digest after it.
    fn write(options: &Options) -> Result<Self, MigrateError> {
        let nodes = Nodes::new("/orch-bench".to_owned(), options.nodes, options.value_bytes);
        let mut import = ZkImport::beside();
        nodes.lots(SNAPSHOT, |lot| import.add_rows(&lot).map_err(MigrateError::Setup))?;
        import.copied(SNAPSHOT);
        let rate = f64::from(options.rate);
        let count = (rate * options.run.as_secs_f64()) as usize;
        let mut script =
            Self { nodes, messages: Vec::new(), ends: Vec::with_capacity(count), rate };
        let mut versions = vec![0; script.nodes.count];
        for place in 0..count {
            let (zxid, nodes) = (script.zxid(place), &script.nodes);
            let (path, txn);
            if place % CREATE_EVERY == 0 {
                path =
                    format!("{}/c{place:08}", nodes.parent(place / CREATE_EVERY % nodes.parents()));
                let (data, acl) = (Some(nodes.value.as_slice()), vec![Acl::open()]);
                let (kind, parent_cversion) = (CreateKind::Persistent, -1);
                txn = Txn::Create(CreateTxn { path: &path, data, acl, kind, parent_cversion });
            } else {
                let number = place * STEP % nodes.count;
                versions[number] += 1;
                path = nodes.path(number);
                let (data, version) = (Some(nodes.value.as_slice()), versions[number]);
                txn = Txn::SetData(SetDataTxn { path: &path, data, version });
            }
            let op = if place % CREATE_EVERY == 0 { Op::Create } else { Op::SetData }.number();
            let time = i64::try_from(place).unwrap_or_default();
            let header = TxnHeader { client_id: 1, cxid: 1, zxid, time, op };
            let mut transaction = Transaction { header, txn, digest: None };
            let lot = Some(transaction.to_bytes().as_slice()).to_bytes();
            import.add_transactions(&lot).map_err(MigrateError::Setup)?;
            let (version, digest) = (digest::VERSION, import.tree.digest().cast_signed());
            transaction.digest = Some(TxnDigest { version, digest });
            let bytes = transaction.to_bytes();
            script.messages.extend(message(quorum::INFORM, zxid, Some(&bytes)));
            script.ends.push(script.messages.len());
        }
        Ok(script)
    }

    fn zxid(&self, place: usize) -> i64 {
        SNAPSHOT + 1 + i64::try_from(place).unwrap_or(i64::MAX >> 1)
    }

    /// One learner's connection.
    async fn tell(
        &self,
        mut stream: TcpStream,
        mut begun: watch::Receiver<Option<Instant>>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        hear(&mut stream).await?;
        let protocol = quorum::PROTOCOL_VERSION.to_be_bytes();
        stream.write_all(&message(quorum::LEADERINFO, EPOCH << 32, Some(&protocol))).await?;
        hear(&mut stream).await?;
        stream.write_all(&message(quorum::SNAP, SNAPSHOT, None)).await?;
        let mut bytes = Vec::new();
        write_tables([].iter(), [].iter(), &mut bytes);
        for first in (0..self.nodes.total()).step_by(ROWS) {
            let rows = first..self.nodes.total().min(first + ROWS);
            self.nodes.rows(rows, SNAPSHOT, |row| {
                row.write(&mut bytes);
                Ok::<(), io::Error>(())
            })?;
            stream.write_all(&bytes).await?;
            bytes.clear();
        }
        NODES_END.write(&mut bytes);
        SNAP_END.write(&mut bytes);
        bytes.extend(message(quorum::NEWLEADER, EPOCH << 32, None));
        bytes.extend(message(quorum::UPTODATE, -1, None));
        stream.write_all(&bytes).await?;
        let (mut input, mut output) = stream.into_split();
        let answers = async move { tokio::io::copy(&mut input, &mut tokio::io::sink()).await };
        let told = async {
            let begin = loop {
                tokio::select! {
                    begin = begins(&mut begun) => match begin {
                        Some(begin) => break begin,
                        None => return Ok(()),
                    },
                    () = tokio::time::sleep(TICK) => {
                        output.write_all(&message(quorum::PING, SNAPSHOT, None)).await?;
                    }
                }
            };
            let (mut told, mut from) = (0, 0);
            while told < self.ends.len() {
                let since = begin.elapsed();
                let due = ((since.as_secs_f64() * self.rate) as usize).min(self.ends.len());
                if due > told {
                    let end = self.ends[due - 1];
                    output.write_all(&self.messages[from..end]).await?;
                    (told, from) = (due, end);
                }
                tokio::time::sleep(PAUSE).await;
            }
            loop {
                let last = SNAPSHOT + i64::try_from(told).unwrap_or(i64::MAX >> 1);
                output.write_all(&message(quorum::PING, last, None)).await?;
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::select! {
            answered = answers => answered.map(drop),
            told = told => told,
        }
    }
}

/// When the transactions begin; none: never.
async fn begins(begun: &mut watch::Receiver<Option<Instant>>) -> Option<Instant> {
    begun.wait_for(Option::is_some).await.ok().and_then(|begin| *begin)
}

/// Reads the learner's next message.
async fn hear(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        match packet_bytes(&bytes) {
            Ok(size) if size <= bytes.len() => return Ok(()),
            Ok(size) if size <= ZK_READ_BYTES => bytes.push(stream.read_u8().await?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
