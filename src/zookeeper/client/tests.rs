//! A client and a server of a few lines: what goes over the wire, and what a connection that
//! breaks leaves behind. Operations against real servers are in `tests/it/zookeeper`.

use std::time::Duration;

use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::jute::reply::{ConnectReply, ReplyHeader, WatcherEvent};
use crate::jute::request::{
    ConnectRequest, RequestHeader, SetWatches2Request, SetWatchesRequest, WatchRequest,
};
use crate::jute::{Acl, ErrorCode, Field, Op, Reader, Stat};

const PASSWORD: [u8; 16] = [7; 16];

/// The server's end of a connection.
struct Served {
    from: FrameReader<OwnedReadHalf>,
    to: FrameWriter<OwnedWriteHalf>,
    /// What the client said first.
    hello: ConnectRequest,
}

impl Served {
    /// Takes a connection and accepts the session with this time-out; 0: it has expired.
    async fn accept(listener: &TcpListener, timeout: i32) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let (from, to) = TcpStream::into_split(stream);
        let (mut from, mut to) = (FrameReader::new(from, 1 << 20), FrameWriter::new(to));
        let hello = ConnectRequest::from_bytes(&from.next().await.unwrap()).unwrap();
        let session_id = if timeout == 0 { 0 } else { 5 };
        let password = if timeout == 0 { [0; 16] } else { PASSWORD };
        let read_only = Some(false);
        let reply = ConnectReply { protocol_version: 0, timeout, session_id, password, read_only };
        to.add(|out| reply.write(out));
        to.flush().await.unwrap();
        Self { from, to, hello }
    }

    /// The next request's id and operation, and its record.
    async fn next(&mut self) -> (i32, Op, Vec<u8>) {
        let frame = self.from.next().await.unwrap();
        let mut reader = Reader::new(&frame);
        let RequestHeader { xid, op } = reader.field().unwrap();
        (xid, Op::of(op).unwrap(), reader.rest().to_vec())
    }

    fn reply<'a>(&mut self, xid: i32, zxid: i64, err: ErrorCode, record: &impl Field<'a>) {
        self.to.add(|out| {
            ReplyHeader { xid, zxid, err: err.number() }.write(out);
            if err == ErrorCode::Ok {
                record.write(out);
            }
        });
    }

    async fn flush(&mut self) {
        self.to.flush().await.unwrap();
    }
}

async fn listen() -> (TcpListener, Ensemble) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ensemble = listener.local_addr().unwrap().to_string().parse().unwrap();
    (listener, ensemble)
}

fn options() -> Options {
    Options { pause: Duration::from_millis(1), ..Options::default() }
}

#[tokio::test]
async fn replies_go_to_whom_asked_and_events_come_before_later_replies() {
    let (listener, mut ensemble) = listen().await;
    ensemble.chroot = "/app".into();
    let server = async {
        let mut served = Served::accept(&listener, 30_000).await;
        assert_eq!((served.hello.session_id, served.hello.last_zxid_seen), (0, 0));
        let mut xids = Vec::new();
        for path in ["/app/a", "/app"] {
            let (xid, op, record) = served.next().await;
            assert_eq!(op, Op::Exists);
            assert_eq!(
                WatchRequest::from_bytes(&record).unwrap(),
                WatchRequest { path, watch: true }
            );
            xids.push(xid);
        }
        served.reply(xids[0], 8, ErrorCode::NoNode, &0);
        served.to.add(|out| {
            ReplyHeader { xid: -1, zxid: -1, err: 0 }.write(out);
            WatcherEvent { kind: 1, state: 3, path: "/app/a" }.write(out);
        });
        served.reply(xids[1], 9, ErrorCode::Ok, &Stat::default());
        served.flush().await;
        served
    };
    let client = async {
        let (client, mut events) = Client::connect(&ensemble, options()).await.unwrap();
        assert!(matches!(events.next().await, Some(Event::Connected(c)) if c.session_id == 5));
        let (missing, there) = tokio::join!(client.exists("/a", true), client.exists("/", true));
        assert_eq!((missing, there), (Ok(None), Ok(Some(Stat::default()))));
        let Some(Event::Watch(event)) = events.try_next() else { panic!("no event is here") };
        assert_eq!((event.kind, event.path.as_str()), (EventKind::Created, "/a"));
        assert_eq!((event.position, client.session().last_zxid), (2, 9));
        assert_eq!(client.session().password, PASSWORD);
        client
    };
    // Both live on until the end: neither side closes.
    let (_served, _client) = tokio::join!(server, client);
}

#[tokio::test]
async fn a_session_goes_on_at_the_next_connection_with_its_watches_and_identities() {
    let (listener, ensemble) = listen().await;
    let server = async {
        let mut served = Served::accept(&listener, 30_000).await;
        for answer in [ErrorCode::Ok, ErrorCode::NoNode, ErrorCode::Ok] {
            let (xid, _, _) = served.next().await;
            served.reply(xid, 70, answer, &0);
            served.flush().await;
        }
        let (_, op, _) = served.next().await;
        assert_eq!(op, Op::Delete);
        drop(served);

        let mut served = Served::accept(&listener, 30_000).await;
        let hello = &served.hello;
        assert_eq!((hello.session_id, hello.last_zxid_seen), (5, 70));
        assert_eq!(hello.password, PASSWORD);
        let (xid, op, record) = served.next().await;
        assert_eq!((xid, op, &record[4..14]), (-4, Op::Auth, &b"\0\0\0\x06digest"[..]));
        served.reply(xid, 0, ErrorCode::Ok, &Vec::<i32>::new());
        let (xid, op, record) = served.next().await;
        assert_eq!(op, Op::SetWatches2);
        let again = SetWatches2Request::from_bytes(&record).unwrap();
        assert_eq!((again.exist, again.persistent_recursive), (vec!["/b"], vec!["/c"]));
        served.reply(xid, 70, ErrorCode::Ok, &Vec::<i32>::new());
        let (xid, op, _) = served.next().await;
        assert_eq!(op, Op::CloseSession);
        served.reply(xid, 71, ErrorCode::Ok, &Vec::<i32>::new());
        served.flush().await;
    };
    let client = async {
        let (client, mut events) = Client::connect(&ensemble, options()).await.unwrap();
        client.auth("digest", b"me:secret").await.unwrap();
        assert_eq!(client.exists("/b", true).await, Ok(None));
        client.add_watch("/c", true).await.unwrap();
        assert_eq!(client.delete("/d", -1).await, Err(ClientError::Lost));
        client.clone().close().await.unwrap();
        assert_eq!(client.delete("/d", -1).await, Err(ClientError::Closed));
        let mut seen = Vec::new();
        while let Some(event) = events.next().await {
            seen.push(event);
        }
        assert!(matches!(
            &seen[..],
            [Event::Connected(_), Event::Disconnected(_), Event::Connected(_)]
        ));
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn servers_that_know_no_persistent_watches_are_told_in_their_words() {
    let (listener, ensemble) = listen().await;
    let server = async {
        let mut served = Served::accept(&listener, 30_000).await;
        let (xid, _, _) = served.next().await;
        served.reply(xid, 3, ErrorCode::Ok, &Stat::default());
        served.flush().await;
        drop(served);
        let mut served = Served::accept(&listener, 30_000).await;
        let (_, op, record) = served.next().await;
        assert_eq!(op, Op::SetWatches);
        let again = SetWatchesRequest::from_bytes(&record).unwrap();
        assert_eq!((again.relative_zxid, again.data), (3, vec!["/"]));
    };
    let client = async {
        let (client, _) = Client::connect(&ensemble, options()).await.unwrap();
        client.exists("/", true).await.unwrap();
        client
    };
    let ((), _client) = tokio::join!(server, client);
}

#[tokio::test]
async fn an_expired_session_ends_the_client() {
    let (listener, ensemble) = listen().await;
    let server = async {
        let mut served = Served::accept(&listener, 30_000).await;
        served.next().await;
        drop(served);
        Served::accept(&listener, 0).await;
    };
    let client = async {
        let (client, mut events) = Client::connect(&ensemble, options()).await.unwrap();
        assert_eq!(client.sync("/").await, Err(ClientError::Lost));
        assert_eq!(client.sync("/").await, Err(ClientError::Expired));
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert_eq!(last, Some(Event::Expired));
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn a_client_that_has_nothing_to_say_pings_and_a_silent_server_is_left() {
    let (listener, ensemble) = listen().await;
    let server = async {
        let mut served = Served::accept(&listener, 90).await;
        let (xid, op, _) = served.next().await;
        assert_eq!((xid, op), (-2, Op::Ping));
        // No answer: the client comes again.
        let again = Served::accept(&listener, 30_000).await;
        assert_eq!(again.hello.session_id, 5);
        (served, again)
    };
    let client = async {
        let (client, mut events) = Client::connect(&ensemble, options()).await.unwrap();
        assert!(matches!(events.next().await, Some(Event::Connected(_))));
        let Some(Event::Disconnected(why)) = events.next().await else { panic!("connected") };
        assert!(why.starts_with("no answer"), "{why}");
        assert!(matches!(events.next().await, Some(Event::Connected(_))));
        client
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn a_reply_to_what_was_not_asked_next_breaks_the_connection() {
    let (listener, ensemble) = listen().await;
    let server = async {
        let mut served = Served::accept(&listener, 30_000).await;
        let (first, _, _) = served.next().await;
        let (second, _, _) = served.next().await;
        assert!(second > first);
        served.reply(second, 1, ErrorCode::Ok, &"/");
        served.flush().await;
        Served::accept(&listener, 30_000).await
    };
    let client = async {
        let (client, mut events) = Client::connect(&ensemble, options()).await.unwrap();
        let (a, b) = tokio::join!(client.sync("/"), client.sync("/"));
        assert_eq!((a, b), (Err(ClientError::Lost), Err(ClientError::Lost)));
        assert!(matches!(events.next().await, Some(Event::Connected(_))));
        let Some(Event::Disconnected(why)) = events.next().await else { panic!("connected") };
        assert!(why.contains("is next"), "{why}");
        client
    };
    tokio::join!(server, client);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_at_once() {
    let (listener, ensemble) = listen().await;
    let client = async {
        let (client, _) = Client::connect(&ensemble, options()).await.unwrap();
        let path = client.create("a", b"", vec![Acl::open()], Mode::Persistent).await;
        assert!(matches!(path, Err(ClientError::Path { .. })), "{path:?}");
        let long = vec![0; crate::limits::ZK_REQUEST_BYTES_MAX];
        let long = client.set_data("/a", &long, -1).await;
        assert!(matches!(long, Err(ClientError::TooLong { .. })), "{long:?}");
    };
    let (_served, ()) = tokio::join!(Served::accept(&listener, 30_000), client);
}

#[tokio::test]
async fn without_any_server_the_client_gives_up() {
    let (listener, ensemble) = listen().await;
    drop(listener);
    let options = Options { give_up: Duration::from_millis(20), ..options() };
    let error = Client::connect(&ensemble, options).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn where_nobody_runs_the_client_gives_up_sooner() {
    let (listener, mut ensemble) = listen().await;
    drop(listener);
    ensemble.servers.push(ensemble.servers[0].clone());
    // As good as never.
    let never = Duration::from_secs(100_000);
    let soon = Duration::from_millis(20);
    let options = Options { give_up: never, give_up_refused: soon, ..options() };
    let error = Client::connect(&ensemble, options).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}
