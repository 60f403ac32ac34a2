//! An observer against a leader that says what the test wants.

use std::future::Future;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::jute::file::{AclRow, NODES_END, NodeRow, SessionRow};
use crate::jute::quorum::*;
use crate::jute::rows::{Row, write_tables};
use crate::jute::txn::{Transaction, Txn, TxnHeader};
use crate::jute::{Acl, Field, Op, StatPersisted};

/// A leader's side of one connection.
struct Fake(TcpStream);

impl Fake {
    async fn say(&mut self, kind: i32, zxid: i64, data: Option<&[u8]>) {
        let packet = QuorumPacket { kind, zxid, data, auth: AuthInfo(None) };
        self.0.write_all(&packet.to_bytes()).await.unwrap();
    }

    /// What the observer says next.
    async fn hear(&mut self) -> (i32, i64, Option<Vec<u8>>) {
        let mut bytes = Vec::new();
        while bytes.len() < packet_bytes(&bytes).unwrap() {
            bytes.push(self.0.read_u8().await.unwrap());
        }
        let packet = QuorumPacket::from_bytes(&bytes).unwrap();
        assert_eq!(packet.auth, AuthInfo(None));
        (packet.kind, packet.zxid, packet.data.map(<[u8]>::to_vec))
    }

    /// Lets an observer join in the third epoch.
    async fn accept(&mut self, last_zxid: i64) {
        let info = LearnerInfo { server_id: 250, protocol_version: 0x1_0000, config_version: 0 };
        assert_eq!(self.hear().await, (OBSERVERINFO, 0, Some(info.to_bytes())));
        self.say(LEADERINFO, 3 << 32, Some(&PROTOCOL_VERSION.to_be_bytes())).await;
        assert_eq!(self.hear().await, (ACKEPOCH, last_zxid, Some(vec![0xff; 4])));
    }

    async fn inform(&mut self, zxid: i64) {
        self.say(INFORM, zxid, Some(&transaction(zxid))).await;
    }
}

fn transaction(zxid: i64) -> Vec<u8> {
    let header = TxnHeader { client_id: 1, cxid: 2, zxid, time: 3, op: Op::Delete.number() };
    Transaction { header, txn: Txn::Delete("/a"), digest: None }.to_bytes()
}

/// Runs a leader, and an observer that joins it.
async fn against<L, F>(last_zxid: i64, leader: L) -> Result<Observer, ObserverError>
where
    L: FnOnce(Fake) -> F + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        leader(Fake(stream)).await;
    });
    join(&address, &Options { last_zxid, ..Options::default() }).await
}

fn told(zxid: i64) -> Event {
    Event::Transaction { zxid, bytes: transaction(zxid) }
}

#[tokio::test]
async fn a_snapshot_comes_with_all_that_follows() {
    const S: i64 = 2 << 32 | 7;
    let mut observer = against(0, async |mut leader| {
        leader.accept(0).await;
        leader.say(SNAP, S, None).await;
        let mut tree = Vec::new();
        let sessions = [SessionRow { id: 5, timeout: 4000 }];
        let acls = [AclRow { key: 1, acl: vec![Acl::open()] }];
        write_tables(sessions.iter(), acls.iter(), &mut tree);
        let stat = StatPersisted::default();
        for path in ["", "/a", "/a/b"] {
            NodeRow { path, data: Some(&vec![b'x'; 200_000]), acl: 1, stat }.write(&mut tree);
        }
        NODES_END.write(&mut tree);
        SNAP_END.write(&mut tree);
        leader.0.write_all(&tree).await.unwrap();
        // What the leader was about to apply is in the snapshot, or not.
        for zxid in [S - 1, S, S + 1] {
            leader.say(PROPOSAL, zxid, Some(&transaction(zxid))).await;
            leader.say(COMMIT, zxid, None).await;
        }
        leader.inform(S + 2).await;
        leader.say(NEWLEADER, 3 << 32, Some(b"config")).await;
        assert_eq!(leader.hear().await, (ACK, 3 << 32, None));
        leader.say(UPTODATE, -1, None).await;
        assert_eq!(leader.hear().await, (ACK, 3 << 32, None));
        leader.say(PING, 9, None).await;
        assert_eq!(leader.hear().await, (PING, 9, Some(Vec::new())));
        // A new epoch's first one, with a change of members, and something for servers with clients.
        let activate = [&7_i64.to_be_bytes(), transaction(3 << 32 | 1).as_slice()].concat();
        leader.say(INFORMANDACTIVATE, 3 << 32 | 1, Some(&activate)).await;
        leader.say(REVALIDATE, 0, Some(&[0; 9])).await;
        leader.inform(3 << 32 | 2).await;
    })
    .await
    .unwrap();
    assert_eq!(observer.epoch(), 3);
    assert_eq!(observer.next().await.unwrap(), Event::Snapshot { zxid: S });
    let mut rows = Vec::new();
    loop {
        match observer.next().await.unwrap() {
            Event::Rows(some) => {
                rows.extend(some.iter().map(|(kind, bytes)| match kind.read(bytes).unwrap() {
                    Row::Session(session) => format!("session {}", session.id),
                    Row::Acl(acl) => format!("list {}", acl.key),
                    Row::Node(node) => format!("node {:?} {}", node.path, node.data.unwrap().len()),
                }));
            }
            event => {
                assert_eq!(event, Event::SnapshotEnd);
                break;
            }
        }
    }
    assert_eq!(
        rows,
        ["session 5", "list 1", "node \"\" 200000", "node \"/a\" 200000", "node \"/a/b\" 200000"]
    );
    for event in [
        told(S + 1),
        told(S + 2),
        Event::NewLeader { epoch: 3 },
        Event::UpToDate,
        Event::Heard { zxid: 9 },
        told(3 << 32 | 1),
        told(3 << 32 | 2),
    ] {
        assert_eq!(observer.next().await.unwrap(), event);
    }
    let error = observer.next().await.unwrap_err();
    assert!(matches!(error, ObserverError::Closed { during: During::Following, .. }), "{error}");
    assert!(matches!(observer.next().await, Err(ObserverError::Ended)));
}

#[tokio::test]
async fn what_was_missed_comes_from_the_last_transaction_on() {
    const L: i64 = 3 << 32 | 7;
    let mut observer = against(L, async |mut leader| {
        leader.accept(L).await;
        leader.say(DIFF, L + 2, None).await;
        for zxid in [L + 1, L + 2] {
            leader.say(PROPOSAL, zxid, Some(&transaction(zxid))).await;
        }
        for zxid in [L + 1, L + 2] {
            leader.say(COMMIT, zxid, None).await;
        }
        leader.inform(L + 4).await;
    })
    .await
    .unwrap();
    for event in [Event::Diff, told(L + 1), told(L + 2)] {
        assert_eq!(observer.next().await.unwrap(), event);
    }
    let error = observer.next().await.unwrap_err();
    assert!(
        matches!(error, ObserverError::Gap { after, found, .. } if (after, found) == (L + 2, L + 4)),
        "{error}"
    );
}

#[tokio::test]
async fn a_leader_that_has_less_says_so() {
    const L: i64 = 3 << 32 | 7;
    let mut observer = against(L, async |mut leader| {
        leader.accept(L).await;
        leader.say(TRUNC, L - 3, None).await;
        leader.inform(L - 2).await;
    })
    .await
    .unwrap();
    assert_eq!(observer.next().await.unwrap(), Event::Truncate { zxid: L - 3 });
    assert_eq!(observer.next().await.unwrap(), told(L - 2));
}

#[tokio::test]
async fn whoever_is_no_leader_is_told_with_the_remedy() {
    let refused = async |bytes: &'static [u8]| {
        let observer = against(0, async move |mut leader| {
            leader.hear().await;
            leader.0.write_all(bytes).await.unwrap();
        });
        observer.await.unwrap_err()
    };
    let closed = refused(b"").await;
    assert!(matches!(closed, ObserverError::Closed { during: During::Joining, .. }));
    let text = closed.to_string();
    assert!(text.contains("quorum.auth.learnerRequireSasl") && text.contains("zk://"), "{text}");
    let tls = refused(b"\x15\x03\x03\x00\x02\x02\x0a").await;
    assert!(matches!(tls, ObserverError::Tls { .. }) && tls.to_string().contains("sslQuorum"));
    let http = refused(b"HTTP/1.1 400 Bad Request\r\n").await;
    assert!(matches!(http, ObserverError::Foreign { .. }), "{http}");
    // An old leader's first word, and one that claims 2 GiB.
    let old = refused(b"\0\0\0\x0a\0\0\0\x03\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff").await;
    assert!(old.to_string().contains("a message of kind 10"), "{old}");
    let large = refused(b"\0\0\0\x11\0\0\0\x03\0\0\0\0\x7f\xff\xff\xff").await;
    assert!(matches!(large, ObserverError::Message { .. }), "{large}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let nobody = join(&address, &Options::default()).await.unwrap_err().to_string();
    assert!(nobody.contains("only the leader of an ensemble listens"), "{nobody}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let options = Options { wait: Duration::from_millis(20), ..Options::default() };
    let error = join(&address, &options).await.unwrap_err();
    assert!(matches!(error, ObserverError::Silent { during: During::Joining, .. }), "{error}");
}

#[tokio::test]
async fn a_leader_that_contradicts_itself_is_left() {
    let left = async |said: &'static [(i32, i64, i64)]| {
        let mut observer = against(3 << 32, async move |mut leader| {
            leader.accept(3 << 32).await;
            leader.say(DIFF, 0, None).await;
            for (kind, zxid, own) in said {
                leader.say(*kind, *zxid, Some(&transaction(*own))).await;
            }
        })
        .await
        .unwrap();
        assert_eq!(observer.next().await.unwrap(), Event::Diff);
        observer.next().await.unwrap_err()
    };
    const FIRST: i64 = 3 << 32 | 1;
    let error = left(&[(COMMIT, FIRST, 0)]).await;
    assert!(matches!(error, ObserverError::Commit { proposed: None, .. }), "{error}");
    let error = left(&[(PROPOSAL, FIRST, FIRST), (COMMIT, FIRST + 1, 0)]).await;
    assert!(matches!(error, ObserverError::Commit { proposed: Some(FIRST), .. }), "{error}");
    let error = left(&[(INFORM, FIRST, FIRST + 1)]).await;
    assert!(matches!(error, ObserverError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn rows_that_cannot_be_end_it() {
    let end = async |bytes: Vec<u8>| {
        let mut observer = against(0, async move |mut leader| {
            leader.accept(0).await;
            leader.say(SNAP, 1, None).await;
            leader.0.write_all(&bytes).await.unwrap();
        })
        .await
        .unwrap();
        loop {
            match observer.next().await {
                Ok(event) => assert!(matches!(event, Event::Snapshot { .. } | Event::Rows(_))),
                Err(error) => break error,
            }
        }
    };
    let tables = || [0; 8].to_vec();
    let error = end([tables(), vec![0x7f; 4]].concat()).await;
    assert!(matches!(error, ObserverError::Row { place: "the nodes", .. }), "{error}");
    let error = end(tables()).await;
    assert!(matches!(error, ObserverError::Closed { during: During::Snapshot, .. }), "{error}");
    let root = NodeRow { path: "", data: None, acl: -1, stat: StatPersisted::default() };
    let tree = [tables(), root.to_bytes(), NODES_END.to_bytes()].concat();
    let error = end([tree, "BenWasHora".to_bytes()].concat()).await;
    assert!(matches!(error, ObserverError::SnapshotEnd { .. }), "{error}");
}

#[tokio::test]
async fn no_more_is_read_ahead_than_there_is_room_for() {
    let (sender, mut sent) = tokio::sync::watch::channel(0_usize);
    let mut observer = against(3 << 32, async move |mut leader| {
        leader.accept(3 << 32).await;
        leader.say(DIFF, 0, None).await;
        let header = TxnHeader { client_id: 1, cxid: 2, zxid: 0, time: 3, op: 5 };
        let large = vec![b'x'; 1 << 20];
        for count in 1..=400 {
            let header = TxnHeader { zxid: 3 << 32 | count, ..header };
            let set = crate::jute::txn::SetDataTxn { path: "/a", data: Some(&large), version: 1 };
            let bytes = Transaction { header, txn: Txn::SetData(set), digest: None }.to_bytes();
            leader.say(INFORM, header.zxid, Some(&bytes)).await;
            sender.send_replace(count as usize);
        }
    })
    .await
    .unwrap();
    // It stands still before all was sent, and goes on when somebody takes what came.
    let mut before = *sent.wait_for(|count| *count >= 60).await.unwrap();
    while let Ok(Ok(())) = tokio::time::timeout(Duration::from_millis(500), sent.changed()).await {
        before = *sent.borrow_and_update();
    }
    assert!(before < 300, "{before} MiB were sent");
    assert_eq!(observer.next().await.unwrap(), Event::Diff);
    for _ in 0..400 {
        assert!(matches!(observer.next().await.unwrap(), Event::Transaction { .. }));
    }
}
