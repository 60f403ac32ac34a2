//! Watches as clients have them: below a chroot, through a restart, and with access lists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orch::jute::op::XID_NOTIFICATION;
use orch::jute::reply::ReplyHeader;
use orch::jute::request::{
    AddWatchRequest, CreateRequest, MultiOp, SetDataRequest, VersionRequest, WatchRequest,
};
use orch::jute::{Acl, ErrorCode, Id, Op, Reader};
use orch::zookeeper::client::{Client, EventKind, Events, Mode, Options};

use super::{create, endpoints, err, open_new, run};
use crate::support::LONG;

async fn connect(servers: &str) -> (Client, Events) {
    Client::connect(&servers.parse().unwrap(), Options::default()).await.unwrap()
}

fn open() -> Vec<Acl> {
    vec![Acl::open()]
}

async fn next(events: &mut Events) -> (EventKind, String) {
    let event = events.next_watch().await.unwrap();
    (event.kind, event.path)
}

#[test]
fn below_a_chroot_watches_have_its_paths_also_after_a_restart() {
    let (mut cluster, addresses) = endpoints(1, &[]);
    run(async {
        let (outside, _) = connect(&addresses[0]).await;
        outside.create("/app", b"", open(), Mode::Persistent).await.unwrap();
        let (inside, mut events) = connect(&format!("{}/app", addresses[0])).await;

        assert_eq!(inside.exists("/n", true).await, Ok(None));
        outside.create("/n", b"", open(), Mode::Persistent).await.unwrap();
        outside.create("/app/n", b"", open(), Mode::Persistent).await.unwrap();
        assert_eq!(next(&mut events).await, (EventKind::Created, "/n".to_owned()));

        assert_eq!(inside.get_children("/", true).await.unwrap().0, ["n"]);
        inside.get_data("/n", true).await.unwrap();
        inside.get_children("/n", true).await.unwrap();
        assert_eq!(inside.exists("/later", true).await, Ok(None));
        tokio::task::block_in_place(|| cluster.restart("s1"));
        // What it watched it watches again, by the same names.
        outside.create("/app/later", b"", open(), Mode::Persistent).await.unwrap();
        let mut told = [next(&mut events).await, next(&mut events).await];
        told.sort();
        let expected = [(EventKind::Created, "/later"), (EventKind::ChildrenChanged, "/")];
        assert_eq!(told, expected.map(|(kind, path)| (kind, path.to_owned())));
        outside.create("/app/n/x", b"", open(), Mode::Persistent).await.unwrap();
        assert_eq!(next(&mut events).await, (EventKind::ChildrenChanged, "/n".to_owned()));
        outside.set_data("/app/n", b"new", -1).await.unwrap();
        assert_eq!(next(&mut events).await, (EventKind::DataChanged, "/n".to_owned()));

        inside.add_watch("/", true).await.unwrap();
        outside.delete("/app/later", -1).await.unwrap();
        assert_eq!(next(&mut events).await, (EventKind::Deleted, "/later".to_owned()));
        assert_eq!(inside.check_watches("/", 5).await, Ok(true));
        assert_eq!(outside.check_watches("/app", 5).await, Ok(false));
    });
}

#[test]
fn who_may_not_read_a_node_is_not_told_of_it_not_even_if_it_comes_and_goes_at_once() {
    let (_cluster, addresses) = endpoints(1, &[]);
    run(async {
        let (owner, _) = connect(&addresses[0]).await;
        owner.auth("digest", b"owner:secret").await.unwrap();
        let (stranger, mut told) = connect(&addresses[0]).await;
        stranger.add_watch("/", true).await.unwrap();
        let (friend, mut told_too) = connect(&addresses[0]).await;
        friend.auth("digest", b"owner:secret").await.unwrap();
        friend.add_watch("/", true).await.unwrap();

        let mine = Acl { id: Id { scheme: "auth".to_owned(), id: String::new() }, ..Acl::open() };
        let secret = CreateRequest { path: "/secret", data: None, acl: vec![mine], flags: 0 };
        let gone = VersionRequest { path: "/secret", version: -1 };
        let both = vec![MultiOp::Create(secret), MultiOp::Delete(gone)];
        owner.multi(both).await.unwrap();
        owner.create("/public", b"", open(), Mode::Persistent).await.unwrap();

        let (created, deleted) = (EventKind::Created, EventKind::Deleted);
        for (kind, path) in [(created, "/secret"), (deleted, "/secret"), (created, "/public")] {
            assert_eq!(next(&mut told_too).await, (kind, path.to_owned()));
        }
        assert_eq!(next(&mut told).await, (created, "/public".to_owned()));
    });
}

#[test]
fn all_that_a_client_is_told_comes_in_the_order_of_transactions() {
    const ROUNDS: usize = 400;
    let (cluster, addresses) = endpoints(3, &[]);
    // The leader knows first what became of a write, the others what has changed.
    let leader = cluster.leader();
    let follower = (1..=3).find(|i| format!("s{i}") != leader).unwrap();
    let leader = leader.trim_start_matches('s').parse::<usize>().unwrap();
    run(async {
        for server in [leader, follower] {
            let address = &addresses[server - 1];
            let (mut wire, _) = open_new(address).await;
            let (own, shared) = (format!("/own-{server}"), format!("/shared-{server}"));
            for path in [&own, &shared] {
                assert_eq!(err(&mut wire, Op::Create, &create(path, b"", 0)).await, ErrorCode::Ok);
            }
            let watch = AddWatchRequest { path: &shared, mode: 0 };
            assert_eq!(err(&mut wire, Op::AddWatch, &watch).await, ErrorCode::Ok);
            // Somebody else changes what is read between two writes.
            let over = Arc::new(AtomicBool::new(false));
            let (mut other, _) = open_new(address).await;
            let (path, stop) = (shared.clone(), over.clone());
            let changes = tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let set = SetDataRequest { path: &path, data: Some(b"x"), version: -1 };
                    assert_eq!(err(&mut other, Op::SetData, &set).await, ErrorCode::Ok);
                }
            });
            let (mut last, mut events) = (0, 0);
            for round in 0..ROUNDS {
                let write = SetDataRequest { path: &own, data: Some(b"y"), version: -1 };
                let read = WatchRequest { path: &shared, watch: false };
                let first = 3 * round as i32;
                wire.to.add_request(first + 1, Op::SetData.number(), &write);
                wire.to.add_request(first + 2, Op::GetData.number(), &read);
                wire.to.add_request(first + 3, Op::SetData.number(), &write);
                wire.to.flush().await.unwrap();
                let mut answers = 0;
                while answers < 3 {
                    let frame = tokio::time::timeout(LONG, wire.from.next()).await.unwrap();
                    let frame = frame.unwrap();
                    let header: ReplyHeader = Reader::new(&frame).field().unwrap();
                    assert_eq!(header.err, 0, "round {round}");
                    let is_event = header.xid == XID_NOTIFICATION;
                    let what = if is_event { "an event" } else { "an answer" };
                    let zxid = header.zxid;
                    assert!(zxid >= last, "round {round}: {what} of {zxid:#x} behind {last:#x}");
                    last = zxid;
                    if is_event {
                        events += 1;
                    } else {
                        answers += 1;
                        assert_eq!(header.xid, first + answers);
                    }
                }
            }
            over.store(true, Ordering::Relaxed);
            changes.await.unwrap();
            assert!(events > ROUNDS / 10, "{events}: nobody changed anything meanwhile");
        }
    });
}
