//! Watches as clients have them: below a chroot, through a restart, and with access lists.

use orch::jute::request::{CreateRequest, MultiOp, VersionRequest};
use orch::jute::{Acl, Id};
use orch::zookeeper::client::{Client, EventKind, Events, Mode, Options};

use super::{endpoints, run};

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
