//! The endpoint's manners: sessions that go on elsewhere and end in time, words for operators,
//! encrypted connections, and clients that mean no good.

mod bounds;
mod tls;
mod watches;

use std::time::Duration;

use orch::jute::op::XID_NOTIFICATION;
use orch::jute::reply::{AclReply, ConnectReply, DataReply, NamesReply, ReplyHeader, StatReply};
use orch::jute::request::{
    ConnectRequest, CreateRequest, PathRequest, RequestHeader, SetDataRequest, VersionRequest,
    WatchRequest,
};
use orch::jute::{Acl, ErrorCode, Field, Op, Reader};
use orch::zookeeper::client::{Wire, four_letter};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::zookeeper::CLIENT_PORT;
use crate::support::{Cluster, LONG, LoopbackAddress, SHORT, wait_until};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

/// Servers `s1` to `sN` with endpoints, and where those are.
fn endpoints(servers: usize, more: &[&str]) -> (Cluster, Vec<String>) {
    let mut cluster = Cluster::empty();
    let mut addresses = Vec::new();
    for i in 1..=servers {
        let address = LoopbackAddress::next().port(CLIENT_PORT).to_string();
        let flags = [&["--zk-addr", &address], more].concat();
        cluster.server(&format!("s{i}"), &flags);
        addresses.push(address);
    }
    cluster.wait_for_voters(servers);
    (cluster, addresses)
}

fn hello(session_id: i64, password: Vec<u8>, timeout: i32) -> ConnectRequest {
    let read_only = Some(false);
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout,
        session_id,
        password,
        read_only,
    }
}

/// A connection with a session; tried until the server is open.
async fn open(address: &str, request: &ConnectRequest) -> (Wire, ConnectReply) {
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        if let Ok(mut wire) = Wire::connect(address, SHORT).await
            && let Ok(reply) = wire.handshake(request, SHORT).await
        {
            return (wire, reply);
        }
        assert!(tokio::time::Instant::now() < deadline, "{address} lets nobody in");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn open_new(address: &str) -> (Wire, ConnectReply) {
    open(address, &hello(0, vec![0; 16], 10_000)).await
}

fn create<'a>(path: &'a str, data: &'a [u8], flags: i32) -> CreateRequest<'a> {
    CreateRequest { path, data: Some(data), acl: vec![Acl::open()], flags }
}

async fn err<'a>(wire: &mut Wire, op: Op, record: &impl Field<'a>) -> ErrorCode {
    let (header, _) = wire.ask(1, op.number(), record).await.unwrap();
    ErrorCode::of(header.err).unwrap()
}

/// Resident memory of a server, in bytes.
fn memory(cluster: &mut Cluster, server: &str) -> u64 {
    let id = cluster.process(server).id();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_session_goes_on_at_another_server_also_after_the_leader_is_gone() {
    let (mut cluster, addresses) = endpoints(3, &[]);
    run(async {
        let (mut first, session) = open_new(&addresses[0]).await;
        assert_eq!(err(&mut first, Op::Create, &create("/mine", b"", 1)).await, ErrorCode::Ok);
        let again = hello(session.session_id, session.password.to_vec(), 10_000);
        let (mut second, reply) = open(&addresses[1], &again).await;
        assert_eq!(reply.session_id, session.session_id);
        // The connection that it was on before is over.
        assert!(first.from.next().await.is_err());
        let exists = WatchRequest { path: "/mine", watch: false };
        assert_eq!(err(&mut second, Op::Sync, &PathRequest { path: "/" }).await, ErrorCode::Ok);
        assert_eq!(err(&mut second, Op::Exists, &exists).await, ErrorCode::Ok);

        for password in [vec![7; 16], Vec::new(), vec![0; 900]] {
            let wrong = hello(session.session_id, password, 10_000);
            let (mut stranger, refused) = open(&addresses[2], &wrong).await;
            assert_eq!((refused.session_id, refused.timeout), (0, 0));
            assert_eq!(refused.password, [0; 16]);
            assert!(stranger.from.next().await.is_err(), "it is told no more than that");
        }
        // Whose session it is notices nothing of that.
        assert_eq!(err(&mut second, Op::Exists, &exists).await, ErrorCode::Ok);

        let leader = cluster.leader();
        cluster.kill(&leader);
        let left = (1..=3).find(|i| format!("s{i}") != leader).unwrap() - 1;
        let (mut third, reply) = open(&addresses[left], &again).await;
        assert_eq!(reply.session_id, session.session_id);
        assert_eq!(err(&mut third, Op::Exists, &exists).await, ErrorCode::Ok);
        assert_eq!(err(&mut third, Op::Create, &create("/more", b"", 1)).await, ErrorCode::Ok);
    });
}

#[test]
fn a_session_that_is_not_heard_ends_and_takes_its_nodes_along() {
    let (_cluster, addresses) = endpoints(3, &["--zk-tick", "100ms"]);
    run(async {
        let (mut gone, session) = open(&addresses[0], &hello(0, vec![0; 16], 200)).await;
        assert_eq!(session.timeout, 200);
        assert_eq!(err(&mut gone, Op::Create, &create("/gone", b"", 1)).await, ErrorCode::Ok);
        let (mut other, _) = open(&addresses[2], &hello(0, vec![0; 16], 2_000)).await;
        assert_eq!(err(&mut other, Op::Sync, &PathRequest { path: "/" }).await, ErrorCode::Ok);
        let watch = WatchRequest { path: "/gone", watch: true };
        assert_eq!(err(&mut other, Op::Exists, &watch).await, ErrorCode::Ok);
        drop(gone);
        let event = loop {
            // The others' session is kept alive meanwhile.
            other.to.add_request(-2, Op::Ping.number(), &PathRequest { path: "" });
            other.to.flush().await.unwrap();
            let wait = Duration::from_millis(100);
            let Ok(frame) = tokio::time::timeout(wait, other.from.next()).await else { continue };
            let frame = frame.unwrap();
            let header: ReplyHeader = Reader::new(&frame).field().unwrap();
            if header.xid == -1 {
                break frame;
            }
        };
        assert!(event.windows(5).any(|bytes| bytes == b"/gone"));
        let back = hello(session.session_id, session.password.to_vec(), 200);
        let (_, reply) = open(&addresses[1], &back).await;
        assert_eq!(reply.session_id, 0, "it has expired for good");
    });
}

#[test]
fn words_are_answered_as_the_whitelist_says() {
    let (_cluster, plain) = endpoints(1, &[]);
    let (_other, all) = endpoints(1, &["--zk-4lw", "*"]);
    run(async {
        let ask = |address: String, word: &'static str| async move {
            four_letter(&address, word, SHORT).await.unwrap()
        };
        let (_wire, _) = open_new(&plain[0]).await;
        assert!(ask(plain[0].clone(), "srvr").await.contains("Mode: standalone"));
        let refused = ask(plain[0].clone(), "mntr").await;
        assert_eq!(refused, "mntr is not executed because it is not in the whitelist.\n");
        let (_wire, session) = open_new(&all[0]).await;
        assert_eq!(ask(all[0].clone(), "ruok").await, "imok");
        assert_eq!(ask(all[0].clone(), "isro").await, "rw");
        let figures = ask(all[0].clone(), "mntr").await;
        assert!(figures.contains("zk_znode_count\t4\n"), "{figures}");
        assert!(figures.contains("zk_num_alive_connections\t1\n"), "{figures}");
        let sessions = ask(all[0].clone(), "dump").await;
        assert!(sessions.contains(&format!("0x{:x}", session.session_id)), "{sessions}");
        for word in ["conf", "cons", "dirs", "envi", "stat", "wchs", "wchc", "wchp", "hash"] {
            assert!(!ask(all[0].clone(), word).await.is_empty(), "{word}");
        }
    });
}

#[test]
fn bytes_that_mean_no_good_end_their_connection_alone() {
    let (mut cluster, addresses) = endpoints(1, &["--zk-max-connections", "0"]);
    run(async {
        let (mut honest, _) = open_new(&addresses[0]).await;
        let firsts: [&[u8]; 6] = [
            &[0xff, 0xff, 0xff, 0xff],
            &[0x7f, 0xff, 0xff, 0xff],
            &[0, 0, 0, 0],
            &[0, 0, 0, 4, 0, 0, 0, 0],
            b"GET / HTTP/1.1\r\n\r\n",
            &[0, 0, 0, 44, 1],
        ];
        for first in firsts {
            let mut stream = tokio::net::TcpStream::connect(&addresses[0]).await.unwrap();
            stream.write_all(first).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap();
            assert_eq!(rest, b"", "{first:?}");
        }
        // A count of two thousand millions, a path without an end, a multi that never stops.
        let header = [0, 0, 0, 1];
        let bad: [(Op, &[u8]); 4] = [
            (Op::SetWatches, &[0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]),
            (Op::GetData, &[0, 0, 0, 9, b'/']),
            (Op::Multi, &[0, 0, 0, 1, 0]),
            (Op::Create, &[0xff, 0xff, 0xff, 0xfe]),
        ];
        for (op, body) in bad {
            let (mut wire, _) = open_new(&addresses[0]).await;
            let frame = [&header[..], &op.number().to_be_bytes(), body].concat();
            wire.to.add_raw(&(frame.len() as u32).to_be_bytes());
            wire.to.add_raw(&frame);
            wire.to.flush().await.unwrap();
            let reply = wire.from.next().await.unwrap();
            let reply: ReplyHeader = Reader::new(&reply).field().unwrap();
            assert_eq!(reply.err, ErrorCode::MarshallingError.number(), "{op:?}");
        }
        let (mut wire, _) = open_new(&addresses[0]).await;
        wire.to.add_raw(&0x7fff_ffff_u32.to_be_bytes());
        wire.to.flush().await.unwrap();
        assert!(wire.from.next().await.is_err(), "a request of two gigabytes");
        // As deep as a request can be.
        let deep = "/a".repeat(100_000);
        let exists = WatchRequest { path: &deep, watch: true };
        assert_eq!(err(&mut honest, Op::Exists, &exists).await, ErrorCode::NoNode);
        let made = err(&mut honest, Op::Create, &create(&deep, b"", 0)).await;
        assert_eq!(made, ErrorCode::NoNode);
        assert_eq!(err(&mut honest, Op::Create, &create("/fine", b"", 0)).await, ErrorCode::Ok);
    });
    assert!(memory(&mut cluster, "s1") < 256 << 20);
}

#[test]
fn a_client_that_reads_nothing_holds_up_nobody_and_little_memory() {
    let (mut cluster, addresses) = endpoints(1, &[]);
    let big = vec![b'x'; 900_000];
    run(async {
        let (mut slow, _) = open_new(&addresses[0]).await;
        let (mut other, _) = open_new(&addresses[0]).await;
        assert_eq!(err(&mut other, Op::Create, &create("/big", &big, 0)).await, ErrorCode::Ok);
        let get = WatchRequest { path: "/big", watch: false };
        for xid in 1..=800 {
            slow.to.add_request(xid, Op::GetData.number(), &get);
        }
        slow.to.flush().await.unwrap();
        for i in 0..20 {
            let path = format!("/n{i}");
            assert_eq!(err(&mut other, Op::Create, &create(&path, b"", 0)).await, ErrorCode::Ok);
        }
        let held = memory(&mut cluster, "s1");
        assert!(held < 256 << 20, "{held} bytes for replies that nobody takes");
        // Whenever it reads, it gets all of them, in order.
        for xid in 1..=800 {
            let frame = slow.from.next().await.unwrap();
            let header: ReplyHeader = Reader::new(&frame).field().unwrap();
            assert_eq!((header.xid, header.err), (xid, 0));
            assert!(frame.len() > big.len());
        }
    });
}

#[test]
fn watches_without_end_end_their_connection() {
    let (mut cluster, addresses) = endpoints(1, &[]);
    run(async {
        let (greedy, _) = open_new(&addresses[0]).await;
        let (mut other, _) = open_new(&addresses[0]).await;
        let Wire { mut from, mut to } = greedy;
        let asking = tokio::spawn(async move {
            for i in 0..1_000_000 {
                let path = format!("/{i}");
                let watch = WatchRequest { path: &path, watch: true };
                to.add_request(i, Op::Exists.number(), &watch);
                if i % 500 == 0 && to.flush().await.is_err() {
                    break;
                }
            }
        });
        let mut answers = 0;
        while from.next().await.is_ok() {
            answers += 1;
        }
        asking.await.unwrap();
        assert!((1..1_000_000).contains(&answers), "{answers} watches");
        assert_eq!(err(&mut other, Op::Create, &create("/0", b"", 0)).await, ErrorCode::Ok);
    });
    let log = wait_until("word of it in the log", SHORT, || {
        let log = cluster.log("s1");
        if log.contains("watches") { Ok(log) } else { Err(log) }
    });
    assert!(log.contains("closed: the client has more than"), "{log}");
    assert!(memory(&mut cluster, "s1") < 512 << 20);
}

#[test]
fn a_server_that_has_no_leader_lets_those_read_who_agree() {
    let (mut cluster, addresses) = endpoints(3, &["--zk-read-only"]);
    run(async {
        let (mut wire, _) = open_new(&addresses[0]).await;
        assert_eq!(err(&mut wire, Op::Create, &create("/a", b"", 0)).await, ErrorCode::Ok);
        for server in ["s2", "s3"] {
            cluster.process(server).signal(Signal::STOP);
        }
        let willing = ConnectRequest { read_only: Some(true), ..hello(0, vec![0; 16], 10_000) };
        let (mut reads, reply) = loop {
            let (wire, reply) = open(&addresses[0], &willing).await;
            if reply.read_only == Some(true) {
                break (wire, reply);
            }
        };
        assert_ne!(reply.session_id, 0);
        let children = WatchRequest { path: "/", watch: false };
        let (header, body) = reads.ask(1, Op::GetChildren.number(), &children).await.unwrap();
        assert_eq!(header.err, 0);
        assert_eq!(NamesReply::from_bytes(&body).unwrap().names, ["a", "zookeeper"]);
        let delete = VersionRequest { path: "/a", version: -1 };
        assert_eq!(err(&mut reads, Op::Delete, &delete).await, ErrorCode::NotReadOnly);
        // One that leaves is still told what it asked before, and in that order.
        let (mut leaves, _) = open(&addresses[0], &willing).await;
        let counted = PathRequest { path: "/" };
        leaves.to.add_request(1, Op::GetChildren.number(), &children);
        leaves.to.add_request(2, Op::GetAllChildrenNumber.number(), &counted);
        leaves.to.add_request(3, Op::GetChildren.number(), &children);
        leaves.to.add(|out| RequestHeader { xid: 4, op: Op::CloseSession.number() }.write(out));
        leaves.to.flush().await.unwrap();
        for xid in 1..=4 {
            let frame = leaves.from.next().await.unwrap();
            let header: ReplyHeader = Reader::new(&frame).field().unwrap();
            assert_eq!((header.xid, header.err), (xid, 0));
        }
        assert!(leaves.from.next().await.is_err());
        for server in ["s2", "s3"] {
            cluster.process(server).signal(Signal::CONT);
        }
        // There is better to be had now: it is told to come again.
        assert!(reads.from.next().await.is_err());
        let (mut wire, _) = open_new(&addresses[0]).await;
        assert_eq!(err(&mut wire, Op::Delete, &delete).await, ErrorCode::Ok);
    });
}

/// Reads between writes that are all on their way at once: each sees the writes before it and none
/// behind it, whichever way it is answered.
#[test]
fn a_read_between_two_writes_sees_the_first_and_not_the_second() {
    const ROUNDS: i32 = 300;
    let (_cluster, addresses) = endpoints(1, &[]);
    run(async {
        let other = tokio::spawn(pipeline(addresses[0].clone(), "/other", ROUNDS));
        pipeline(addresses[0].clone(), "/own", ROUNDS).await;
        other.await.unwrap();
    });
}

/// Replaces the data of a node of its own and reads it by turns, without waiting for an answer.
async fn pipeline(address: String, path: &'static str, rounds: i32) {
    let (mut wire, _) = open_new(&address).await;
    assert_eq!(err(&mut wire, Op::Create, &create(path, b"", 0)).await, ErrorCode::Ok);
    let Wire { mut from, mut to } = wire;
    for round in 0..rounds {
        let text = round.to_string();
        let set = SetDataRequest { path, data: Some(text.as_bytes()), version: round };
        to.add_request(4 * round + 1, Op::SetData.number(), &set);
        // The last of four can't travel with writes, and what comes behind it waits.
        let watch = round % 4 == 3;
        to.add_request(4 * round + 2, Op::GetData.number(), &WatchRequest { path, watch: false });
        to.add_request(4 * round + 3, Op::Exists.number(), &WatchRequest { path, watch });
        to.add_request(4 * round + 4, Op::GetAcl.number(), &PathRequest { path });
    }
    to.flush().await.unwrap();
    let mut expected = 1;
    while expected <= 4 * rounds {
        let frame = from.next().await.unwrap();
        let mut reader = Reader::new(&frame);
        let header: ReplyHeader = reader.field().unwrap();
        if header.xid == XID_NOTIFICATION {
            continue;
        }
        assert_eq!((header.xid, header.err), (expected, 0), "{path}");
        let version = (expected - 1) / 4 + 1;
        match expected % 4 {
            1 => assert_eq!(reader.field::<StatReply>().unwrap().stat.version, version),
            2 => {
                let reply: DataReply<'_> = reader.field().unwrap();
                let text = (version - 1).to_string();
                assert_eq!((reply.data, reply.stat.version), (Some(text.as_bytes()), version));
            }
            3 => assert_eq!(reader.field::<StatReply>().unwrap().stat.version, version),
            _ => assert_eq!(reader.field::<AclReply>().unwrap().stat.version, version),
        }
        expected += 1;
    }
}
