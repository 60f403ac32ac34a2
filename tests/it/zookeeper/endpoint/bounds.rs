//! What one client can take: no more than its share, whatever it asks for, and not from others.

use orch::jute::request::AuthPacket;
use orch::limits::{ZK_ID_BYTES_MAX, ZK_IDS_BYTES_MAX};
use tokio::net::{TcpSocket, TcpStream};

use super::*;

/// A session that outlives a wait on a slow machine.
async fn open_long(address: &str) -> Wire {
    open(address, &hello(0, vec![0; 16], 40_000)).await.0
}

/// How many requests wait on a server, by its own account.
async fn outstanding(address: &str) -> usize {
    let figures = four_letter(address, "mntr", SHORT).await.unwrap();
    let row = figures.lines().find_map(|line| line.strip_prefix("zk_outstanding_requests\t"));
    row.unwrap().parse().unwrap()
}

/// Waits until so many requests wait there.
async fn until_outstanding(address: &str, fits: impl Fn(usize) -> bool) -> usize {
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        let waiting = outstanding(address).await;
        if fits(waiting) {
            return waiting;
        }
        assert!(tokio::time::Instant::now() < deadline, "{waiting} requests wait");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn thousands_of_requests_at_once_wait_their_turn_and_hold_up_nobody() {
    const REQUESTS: i32 = 10_000;
    let most = 300;
    let flags = ["--zk-4lw", "*", "--zk-max-outstanding", &most.to_string()];
    let (mut cluster, addresses) = endpoints(1, &flags);
    let data = vec![b'x'; 20_000];
    run(async {
        let mut other = open_long(&addresses[0]).await;
        assert_eq!(err(&mut other, Op::Create, &create("/a", &data, 0)).await, ErrorCode::Ok);
        let Wire { mut from, mut to } = open_long(&addresses[0]).await;
        let asking = tokio::spawn(async move {
            let get = WatchRequest { path: "/a", watch: false };
            for xid in 1..=REQUESTS {
                // Writes among reads: both keep their places.
                if xid % 100 == 0 {
                    let path = format!("/n{xid}");
                    to.add_request(xid, Op::Create.number(), &create(&path, b"", 0));
                } else {
                    to.add_request(xid, Op::GetData.number(), &get);
                }
                if xid % 500 == 0 {
                    to.flush().await.unwrap();
                }
            }
            to
        });
        // It reads nothing: what it asked for waits, and no more of it is taken in.
        until_outstanding(&addresses[0], |waiting| waiting > 0).await;
        for i in 0..20 {
            let path = format!("/other{i}");
            assert_eq!(err(&mut other, Op::Create, &create(&path, b"", 0)).await, ErrorCode::Ok);
            let waiting = outstanding(&addresses[0]).await;
            assert!(waiting <= most, "{waiting} requests of one client");
        }
        let held = memory(&mut cluster, "s1");
        assert!(held < 256 << 20, "{held} bytes for requests that nobody takes the answers of");
        for xid in 1..=REQUESTS {
            let frame = from.next().await.unwrap();
            let header: ReplyHeader = Reader::new(&frame).field().unwrap();
            assert_eq!((header.xid, header.err), (xid, 0));
        }
        asking.await.unwrap();
        until_outstanding(&addresses[0], |waiting| waiting == 0).await;
    });
}

#[test]
fn one_client_s_long_requests_leave_room_for_those_of_others() {
    const READS: i32 = 40;
    const LONG_ONES: i32 = 320;
    let (mut cluster, addresses) = endpoints(1, &["--zk-4lw", "*"]);
    let big = vec![b'x'; 900_000];
    run(async {
        let mut other = open_long(&addresses[0]).await;
        assert_eq!(err(&mut other, Op::Create, &create("/big", &big, 0)).await, ErrorCode::Ok);
        let Wire { mut from, mut to } = open_long(&addresses[0]).await;
        let asking = tokio::spawn(async move {
            let get = WatchRequest { path: "/big", watch: false };
            for xid in 1..=READS {
                to.add_request(xid, Op::GetData.number(), &get);
            }
            // More bytes than the server has room for altogether.
            let long = format!("/{}", "a".repeat(900_000));
            let exists = WatchRequest { path: &long, watch: false };
            for xid in READS + 1..=READS + LONG_ONES {
                to.add_request(xid, Op::Exists.number(), &exists);
                to.flush().await.unwrap();
            }
            to
        });
        until_outstanding(&addresses[0], |waiting| waiting > 0).await;
        for i in 0..20 {
            let path = format!("/n{i}");
            let data = &big[..500_000];
            assert_eq!(err(&mut other, Op::Create, &create(&path, data, 0)).await, ErrorCode::Ok);
        }
        let held = memory(&mut cluster, "s1");
        assert!(held < 256 << 20, "{held} bytes for one client's requests");
        for xid in 1..=READS + LONG_ONES {
            let frame = from.next().await.unwrap();
            let header: ReplyHeader = Reader::new(&frame).field().unwrap();
            let err = if xid <= READS { ErrorCode::Ok } else { ErrorCode::NoNode };
            assert_eq!((header.xid, header.err), (xid, err.number()));
        }
        asking.await.unwrap();
    });
}

#[test]
fn clients_that_prove_to_be_many_are_written_down_within_bounds() {
    const CLIENTS: usize = 80;
    let (_cluster, addresses) = endpoints(1, &["--zk-max-connections", "0"]);
    let each = ZK_ID_BYTES_MAX - 100;
    let proof = |number: usize| format!("{number:0each$}:p").into_bytes();
    run(async {
        let mut wires = Vec::new();
        for _ in 0..CLIENTS {
            let (mut wire, _) = open_new(&addresses[0]).await;
            for number in 0..ZK_IDS_BYTES_MAX / ZK_ID_BYTES_MAX - 1 {
                let auth = proof(number);
                let packet = AuthPacket { kind: 0, scheme: "digest", auth: Some(&auth) };
                assert_eq!(err(&mut wire, Op::Auth, &packet).await, ErrorCode::Ok);
            }
            wires.push(wire);
        }
        // All at once: whom they have proven to be is more than one entry of the log may have.
        for (number, wire) in wires.iter_mut().enumerate() {
            let path = format!("/n{number}");
            wire.to.add_request(1, Op::Create.number(), &create(&path, b"", 0));
            wire.to.flush().await.unwrap();
        }
        for wire in &mut wires {
            let frame = wire.from.next().await.unwrap();
            let header: ReplyHeader = Reader::new(&frame).field().unwrap();
            assert_eq!((header.xid, header.err), (1, 0));
        }
        // One more and one more, until it is too much.
        let mut codes = Vec::new();
        while codes.last() != Some(&ErrorCode::AuthFailed) && codes.len() < 10 {
            let auth = proof(1_000 + codes.len());
            let packet = AuthPacket { kind: 0, scheme: "digest", auth: Some(&auth) };
            codes.push(err(&mut wires[0], Op::Auth, &packet).await);
        }
        assert_eq!(codes.last(), Some(&ErrorCode::AuthFailed), "{codes:?}");
        assert!(wires[0].from.next().await.is_err());
    });
}

#[test]
fn connections_from_one_address_are_counted() {
    let (_cluster, addresses) = endpoints(1, &["--zk-max-connections", "3"]);
    let new = hello(0, vec![0; 16], 10_000);
    let refused = async || {
        let mut wire = Wire::connect(&addresses[0], SHORT).await.unwrap();
        wire.handshake(&new, SHORT).await.is_err()
    };
    run(async {
        let (mut first, _) = open_new(&addresses[0]).await;
        let (second, _) = open_new(&addresses[0]).await;
        // One that says nothing counts too.
        let silent = TcpStream::connect(&addresses[0]).await.unwrap();
        while !refused().await {}
        assert_eq!(err(&mut first, Op::Create, &create("/a", b"", 0)).await, ErrorCode::Ok);
        // From elsewhere there is room.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(LoopbackAddress::next().port(0)).unwrap();
        let mut elsewhere = socket.connect(addresses[0].parse().unwrap()).await.unwrap();
        let frame = Some(new.to_bytes().as_slice()).to_bytes();
        elsewhere.write_all(&frame).await.unwrap();
        let mut length = [0; 4];
        elsewhere.read_exact(&mut length).await.unwrap();
        assert_eq!(u32::from_be_bytes(length), 37);
        // Whoever goes makes room.
        drop(silent);
        let (_third, _) = open_new(&addresses[0]).await;
        assert!(refused().await);
        drop(second);
        let _ = open_new(&addresses[0]).await;
    });
}

#[test]
fn a_request_that_is_too_long_ends_its_connection_and_no_session() {
    let (cluster, addresses) = endpoints(1, &["--zk-max-request", "2000"]);
    run(async {
        let (mut other, _) = open_new(&addresses[0]).await;
        let (mut wire, session) = open_new(&addresses[0]).await;
        assert_eq!(err(&mut wire, Op::Create, &create("/mine", b"", 1)).await, ErrorCode::Ok);
        // Its head, its path and the length of that, the data's length, its access list, its flags.
        let overhead = 8 + create("/n", b"", 0).to_bytes().len();
        let data = vec![b'x'; 2001 - overhead];
        assert_eq!(
            err(&mut wire, Op::Create, &create("/n", &data[1..], 0)).await,
            ErrorCode::Ok,
            "as long as it may be"
        );
        wire.to.add_request(1, Op::Create.number(), &create("/o", &data, 0));
        wire.to.flush().await.unwrap();
        assert!(wire.from.next().await.is_err());
        let exists = |path| WatchRequest { path, watch: false };
        assert_eq!(err(&mut other, Op::Exists, &exists("/o")).await, ErrorCode::NoNode);
        assert_eq!(err(&mut other, Op::Exists, &exists("/mine")).await, ErrorCode::Ok);
        let again = hello(session.session_id, session.password.to_vec(), 10_000);
        let (mut wire, reply) = open(&addresses[0], &again).await;
        assert_eq!(reply.session_id, session.session_id);
        assert_eq!(err(&mut wire, Op::Exists, &exists("/mine")).await, ErrorCode::Ok);
    });
    let log = wait_until("word of it in the log", SHORT, || {
        let log = cluster.log("s1");
        if log.contains("--zk-max-request is 2000") { Ok(log) } else { Err(log) }
    });
    assert!(log.contains("a request of 2001 bytes"), "{log}");
}
