//! The client against both servers: each operation once, and what it promises on top of the
//! protocol.

use std::time::Duration;

use orch::jute::request::{CreateRequest, MultiOp, SetDataRequest, VersionRequest};
use orch::jute::{Acl, ErrorCode, Op};
use orch::zookeeper::client::{Client, ClientError, EventKind, Mode, MultiAnswer, Options};

use crate::support::zookeeper::{CLIENT_PORT, Options as ServerOptions, ZooKeeper};
use crate::support::{Cluster, LoopbackAddress};

/// Runs `test` with the address of a ZooKeeper and with that of orch's endpoint.
fn with_both<F: Future<Output = ()>>(test: impl Fn(String) -> F) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let zookeeper = ZooKeeper::standalone(ServerOptions::default());
    runtime.block_on(test(zookeeper.connect_string()));
    let address = LoopbackAddress::next().port(CLIENT_PORT).to_string();
    let mut cluster = Cluster::empty();
    cluster.server("s1", &["--zk-addr", &address]);
    runtime.block_on(test(address));
}

async fn connect(servers: &str) -> (Client, orch::zookeeper::client::Events) {
    Client::connect(&servers.parse().unwrap(), Options::default()).await.unwrap()
}

#[test]
fn each_operation_does_what_it_says() {
    with_both(operations);
}

async fn operations(server: String) {
    let open = || vec![Acl::open()];
    let (outside, _) = connect(&server).await;
    outside.create("/app", b"", open(), Mode::Persistent).await.unwrap();
    let (client, mut events) = connect(&format!("{server}/app")).await;
    client.add_watch("/", true).await.unwrap();

    let made = client.create("/n", b"one", open(), Mode::Persistent).await.unwrap();
    assert_eq!((made.path.as_str(), made.stat.data_length), ("/n", 3));
    let event = events.next_watch().await.unwrap();
    assert_eq!((event.kind, event.path.as_str()), (EventKind::Created, "/n"));
    let queue = client.create("/n/q-", b"", open(), Mode::EphemeralSequential).await.unwrap();
    assert_eq!(queue.path, "/n/q-0000000000");
    client.create("/c", b"", open(), Mode::Container).await.unwrap();
    let hour = Duration::from_secs(3600);
    client.create("/t-", b"", open(), Mode::TtlSequential(hour)).await.unwrap();
    assert_eq!(client.get_ephemerals("/").await.unwrap(), ["/n/q-0000000000"]);
    assert_eq!(client.get_all_children_number("/").await, Ok(4));

    let stat = client.set_data("/n", b"two", 0).await.unwrap();
    let refused = client.set_data("/n", b"three", 0).await.unwrap_err();
    assert_eq!((stat.version, refused.code()), (1, Some(ErrorCode::BadVersion)));
    assert_eq!(client.get_data("/n", false).await.unwrap().0.unwrap(), b"two");
    assert_eq!(client.get_children("/n", false).await.unwrap().0, ["q-0000000000"]);
    assert_eq!(client.exists("/none", false).await, Ok(None));

    client.auth("digest", b"me:secret").await.unwrap();
    assert!(client.who_am_i().await.unwrap().iter().any(|id| id.id == "me"));
    let mut mine = Acl::open();
    (mine.id.scheme, mine.id.id) = ("auth".to_owned(), String::new());
    client.set_acl("/n", vec![mine], -1).await.unwrap();
    let read = outside.get_data("/app/n", false).await.unwrap_err();
    assert_eq!(read.code(), Some(ErrorCode::NoAuth));
    assert_eq!(client.get_acl("/n").await.unwrap().0[0].id.scheme, "digest");

    let version = |path, version| VersionRequest { path, version };
    let answers = client
        .multi(vec![
            MultiOp::Create(CreateRequest { path: "/m", data: None, acl: open(), flags: 0 }),
            MultiOp::Check(version("/m", 0)),
            MultiOp::SetData(SetDataRequest { path: "/m", data: Some(b"x"), version: -1 }),
            MultiOp::Delete(version("/m", 1)),
        ])
        .await
        .unwrap();
    assert!(matches!(&answers[..], [
        MultiAnswer::Created(path, _),
        MultiAnswer::Checked,
        MultiAnswer::Set(_),
        MultiAnswer::Deleted
    ] if path == "/m"));
    let answers =
        client.multi(vec![MultiOp::Delete(version("/c", 0)), MultiOp::Check(version("/m", 0))]);
    let refused = |code| MultiAnswer::Refused(code);
    assert_eq!(answers.await.unwrap(), [refused(ErrorCode::Ok), refused(ErrorCode::NoNode)]);
    let answers = client.multi_read(&[(Op::GetData, "/n"), (Op::GetChildren, "/m")]).await.unwrap();
    assert!(matches!(&answers[..], [MultiAnswer::Data(Some(_), _), MultiAnswer::Refused(_)]));

    client.sync("/").await.unwrap();
    client.get_data("/n", true).await.unwrap();
    assert_eq!(client.check_watches("/n", 2).await, Ok(true));
    client.remove_watches("/n", 2).await.unwrap();
    client.delete("/c", -1).await.unwrap();
    client.close().await.unwrap();
    assert_eq!(outside.exists("/app/n/q-0000000000", false).await, Ok(None));
}

#[test]
fn a_read_between_two_writes_sees_the_first_alone() {
    with_both(in_order);
}

/// Many requests on their way at once, carried out in the order in which they were sent.
async fn in_order(server: String) {
    let (client, _) = connect(&server).await;
    client.create("/n", b"", vec![Acl::open()], Mode::Persistent).await.unwrap();
    let mut sent = Vec::new();
    for number in 0..200_u32 {
        let data = number.to_be_bytes();
        let set = SetDataRequest { path: "/n", data: Some(&data), version: -1 };
        let get = orch::jute::request::WatchRequest { path: "/n", watch: false };
        sent.push(client.request(Op::SetData.number(), &set).await.unwrap());
        sent.push(client.request(Op::GetData.number(), &get).await.unwrap());
    }
    let mut zxid = 0;
    for (number, pending) in sent.into_iter().enumerate() {
        let reply = pending.await.unwrap();
        assert!(reply.zxid >= zxid, "request {number}: {} after {zxid}", reply.zxid);
        zxid = reply.zxid;
        if number % 2 == 1 {
            let reply: orch::jute::reply::DataReply<'_> = reply.read().unwrap();
            assert_eq!(reply.data, Some(&(number as u32 / 2).to_be_bytes()[..]));
        }
    }
}

#[test]
fn a_session_goes_on_with_its_password_on_a_new_connection() {
    with_both(go_on);
}

async fn go_on(server: String) {
    let (client, _) = connect(&server).await;
    client.create("/lock", b"", vec![Acl::open()], Mode::Ephemeral).await.unwrap();
    let session = client.session();
    drop(client);

    let mut other = session;
    other.password[0] ^= 1;
    let ensemble = server.parse().unwrap();
    let options = |session| Options { session: Some(session), ..Options::default() };
    let refused = Client::connect(&ensemble, options(other)).await.unwrap_err();
    assert_eq!(refused, ClientError::Expired);
    let (again, _) = Client::connect(&ensemble, options(session)).await.unwrap();
    assert_eq!(again.session().id, session.id);
    let stat = again.exists("/lock", false).await.unwrap().unwrap();
    assert_eq!(stat.ephemeral_owner, session.id);
    again.close().await.unwrap();
}
