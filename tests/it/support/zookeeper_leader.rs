//! A leader of an ensemble that has what a test wants, and says what a real one can't be brought
//! to say: it speaks the quorum protocol to its learners.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use orch::jute::file::{AclRow, NODES_END, NodeRow, OPEN_ACL_KEY, SessionRow};
use orch::jute::quorum::{
    ACKEPOCH, AuthInfo, DIFF, INFORM, LEADERINFO, NEWLEADER, OBSERVERINFO, PING, PROTOCOL_VERSION,
    QuorumPacket, SNAP, SNAP_END, TRUNC, UPTODATE, packet_bytes,
};
use orch::jute::rows::write_tables;
use orch::jute::txn::{SetDataTxn, Transaction, Txn, TxnDigest, TxnHeader};
use orch::jute::{Field, Op, StatPersisted};

/// Between signs of life.
const PAUSE: Duration = Duration::from_millis(50);
/// A learner that says nothing for so long is gone.
const WAIT: Duration = Duration::from_secs(20);

/// What it says to a learner that has something already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Only what is missing comes.
    Diff,
    /// All of it comes.
    Snapshot,
    /// The learner has more than there is.
    Truncate,
}

/// What it has.
#[derive(Debug)]
pub struct Source {
    /// Its last transaction.
    pub zxid: i64,
    /// The last one whose effects its snapshots have; later ones come behind them.
    base: i64,
    /// Nodes of its snapshots beside the root, those above first, with their data.
    pub nodes: Vec<(String, Vec<u8>)>,
    /// What it says to those who come back.
    pub answer: Answer,
    /// To how many more it gives its snapshot; others wait for it.
    pub snapshots: usize,
    transactions: Vec<(i64, Vec<u8>)>,
    /// Connections from before the last change of this are over.
    round: u64,
    stop: bool,
}

/// A leader, until it is dropped.
#[derive(Debug)]
pub struct FakeLeader {
    address: SocketAddr,
    source: Arc<Mutex<Source>>,
    accepting: Option<JoinHandle<()>>,
}

impl FakeLeader {
    /// One that has these nodes after that transaction.
    pub fn start(zxid: i64, nodes: &[(&str, &str)]) -> Self {
        let nodes = nodes.iter().map(|(path, data)| ((*path).to_owned(), data.as_bytes().to_vec()));
        let source = Arc::new(Mutex::new(Source {
            zxid,
            base: zxid,
            nodes: nodes.collect(),
            answer: Answer::Diff,
            snapshots: usize::MAX,
            transactions: Vec::new(),
            round: 0,
            stop: false,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = source.clone();
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if lock(&shared).stop {
                    return;
                }
                let (Ok(stream), shared) = (stream, shared.clone()) else { continue };
                std::thread::spawn(move || {
                    // A learner may go whenever it likes.
                    let _ = Connection(stream).serve(&shared);
                });
            }
        });
        Self { address, source, accepting: Some(accepting) }
    }

    /// The source to follow it by.
    pub fn name(&self) -> String {
        format!("observer://{}", self.address)
    }

    /// What it has, to be changed.
    pub fn source(&self) -> MutexGuard<'_, Source> {
        lock(&self.source)
    }

    /// Replaces a node's data, in a transaction that says this of the tree's digest, or nothing.
    pub fn set(&self, path: &str, data: &[u8], digest: Option<i64>) {
        let mut source = self.source();
        let zxid = source.zxid + 1;
        let set = SetDataTxn { path, data: Some(data), version: 1 };
        let header = TxnHeader { client_id: 1, cxid: 1, zxid, time: 1, op: Op::SetData.number() };
        let digest = digest.map(|digest| TxnDigest { version: 2, digest });
        let transaction = Transaction { header, txn: Txn::SetData(set), digest };
        source.transactions.push((zxid, transaction.to_bytes()));
        source.zxid = zxid;
    }

    /// A transaction to replace that node's data which ends before them.
    pub fn set_half(&self, path: &str) {
        let mut source = self.source();
        let zxid = source.zxid + 1;
        let header = TxnHeader { client_id: 1, cxid: 1, zxid, time: 1, op: Op::SetData.number() };
        let bytes = [header.to_bytes(), path.to_bytes()].concat();
        source.transactions.push((zxid, bytes));
        source.zxid = zxid;
    }

    /// Closes all connections; `change` is made before anybody can come back.
    pub fn restart(&self, change: impl FnOnce(&mut Source)) {
        let mut source = self.source();
        source.round += 1;
        source.transactions.clear();
        change(&mut source);
        source.base = source.zxid;
    }
}

impl Drop for FakeLeader {
    fn drop(&mut self) {
        lock(&self.source).stop = true;
        // Wakes whoever accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A learner's connection.
struct Connection(TcpStream);

impl Connection {
    fn say(&mut self, kind: i32, zxid: i64, data: Option<&[u8]>) -> std::io::Result<()> {
        let packet = QuorumPacket { kind, zxid, data, auth: AuthInfo(None) };
        self.0.write_all(&packet.to_bytes())
    }

    /// Kind and transaction of what the learner says next.
    fn hear(&mut self) -> std::io::Result<(i32, i64)> {
        let odd = |error: orch::jute::Error| std::io::Error::other(error.to_string());
        let mut bytes = Vec::new();
        while bytes.len() < packet_bytes(&bytes).map_err(odd)? {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            bytes.extend(byte);
        }
        let packet = QuorumPacket::from_bytes(&bytes).map_err(odd)?;
        Ok((packet.kind, packet.zxid))
    }

    fn serve(&mut self, source: &Mutex<Source>) -> std::io::Result<()> {
        self.0.set_read_timeout(Some(WAIT))?;
        self.0.set_nodelay(true)?;
        assert_eq!(self.hear()?.0, OBSERVERINFO);
        let epoch = lock(source).zxid >> 32;
        let round = lock(source).round;
        self.say(LEADERINFO, epoch << 32, Some(&PROTOCOL_VERSION.to_be_bytes()))?;
        let (kind, has) = self.hear()?;
        assert_eq!(kind, ACKEPOCH);
        let answer = lock(source).answer;
        let zxid = lock(source).base;
        let mut told = match (has, answer) {
            (0, _) | (_, Answer::Snapshot) => {
                if !may_have_snapshot(source, round) {
                    return Ok(());
                }
                self.say(SNAP, zxid, None)?;
                let tree = tree(&lock(source).nodes);
                self.0.write_all(&tree)?;
                zxid
            }
            (_, Answer::Diff) => {
                self.say(DIFF, zxid, None)?;
                has
            }
            (_, Answer::Truncate) => {
                self.say(TRUNC, zxid, None)?;
                zxid
            }
        };
        let mut is_new = true;
        loop {
            let (news, last) = {
                let source = lock(source);
                if source.round != round || source.stop {
                    return Ok(());
                }
                let news = source.transactions.iter().filter(|(zxid, _)| *zxid > told);
                (news.cloned().collect::<Vec<_>>(), source.zxid)
            };
            for (zxid, bytes) in news {
                self.say(INFORM, zxid, Some(&bytes))?;
                told = zxid;
            }
            if is_new {
                is_new = false;
                self.say(NEWLEADER, epoch << 32, None)?;
                self.hear()?;
                self.say(UPTODATE, -1, None)?;
                self.hear()?;
            }
            self.say(PING, last, None)?;
            self.hear()?;
            std::thread::sleep(PAUSE);
        }
    }
}

/// Waits until somebody may have a snapshot; not if the connection is over before that.
fn may_have_snapshot(source: &Mutex<Source>, round: u64) -> bool {
    loop {
        let mut source = lock(source);
        if source.round != round || source.stop {
            return false;
        }
        if let Some(left) = source.snapshots.checked_sub(1) {
            source.snapshots = left;
            return true;
        }
        drop(source);
        std::thread::sleep(PAUSE);
    }
}

fn tree(nodes: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (sessions, acls): ([SessionRow; 0], [AclRow; 0]) = ([], []);
    let mut out = Vec::new();
    write_tables(sessions.iter(), acls.iter(), &mut out);
    let stat = StatPersisted::default();
    let rows = nodes.iter().map(|(path, data)| (path.as_str(), data.as_slice()));
    for (path, data) in std::iter::once(("", &b""[..])).chain(rows) {
        NodeRow { path, data: Some(data), acl: OPEN_ACL_KEY, stat }.write(&mut out);
    }
    NODES_END.write(&mut out);
    SNAP_END.write(&mut out);
    out
}
