//! Several changes at once, and any sequence of requests.

use proptest::prelude::*;

use super::*;
use crate::jute::reply::{AclReply, DataReply, MultiReply, MultiResult};
use crate::jute::request::{MultiOp, MultiRequest, PathRequest, WatchRequest};
use crate::limits::ZK_PASSING_READS_BYTES_MAX;
use crate::state::snapshot;

fn plain(path: &str) -> CreateRequest<'_> {
    CreateRequest { path, data: None, acl: vec![Acl::open()], flags: 0 }
}

#[test]
fn a_multi_is_one_transaction() {
    let mut world = World::new();
    let before = world.tree().zxid();
    let ops = vec![
        MultiOp::Create(plain("/a")),
        MultiOp::Create2(plain("/a/b")),
        MultiOp::Check(VersionRequest { path: "/a", version: 0 }),
        MultiOp::SetData(SetDataRequest { path: "/a", data: Some(b"x"), version: 0 }),
        MultiOp::Delete(VersionRequest { path: "/a/b", version: 0 }),
    ];
    let reply = world.ask(Op::Multi, MultiRequest { ops }.to_bytes()).unwrap();
    let results = MultiReply::from_bytes(&reply).unwrap().results;
    assert!(matches!(
        results[..],
        [
            MultiResult::Create(_),
            MultiResult::Create2(_),
            MultiResult::Check,
            MultiResult::SetData(_),
            MultiResult::Delete
        ]
    ));
    assert_eq!(world.tree().zxid(), before + 1);
    assert_eq!(world.stat("/a").czxid, before + 1);
}

#[test]
fn a_multi_that_fails_leaves_everything_as_it_was() {
    let mut world = World::new();
    let before = (world.tree().zxid(), world.tree().digest(), world.tree().change_count());
    let ops = vec![
        MultiOp::Create(plain("/a")),
        MultiOp::Delete(VersionRequest { path: "/none", version: -1 }),
        MultiOp::Create(plain("/b")),
    ];
    let reply = world.ask(Op::Multi, MultiRequest { ops }.to_bytes()).unwrap();
    let results = MultiReply::from_bytes(&reply).unwrap().results;
    let code = |code: ErrorCode| MultiResult::Error(code.number());
    let expected = [ErrorCode::Ok, ErrorCode::NoNode, ErrorCode::RuntimeInconsistency].map(code);
    assert_eq!(results, expected);
    let tree = world.tree();
    assert_eq!((tree.zxid(), tree.digest(), tree.change_count()), before);
}

#[test]
fn a_read_in_a_batch_sees_what_is_before_it_and_makes_no_transaction() {
    let mut world = World::new();
    let caller = world.open();
    world.create("/a", 0).unwrap();
    let before = world.tree().zxid();
    let op = |op: Op, body: Vec<u8>| ZkRequest::Op { caller: 0, op: op.number(), body };
    let get = |path| op(Op::GetData, WatchRequest { path, watch: false }.to_bytes());
    let set = |data| {
        op(Op::SetData, SetDataRequest { path: "/a", data: Some(data), version: -1 }.to_bytes())
    };
    let requests = vec![
        set(b"1"),
        get("/a"),
        op(Op::Exists, WatchRequest { path: "/none", watch: false }.to_bytes()),
        set(b"2"),
        op(Op::GetAcl, PathRequest { path: "/a" }.to_bytes()),
        get("/a"),
    ];
    let replies = world.batch(vec![caller], requests);
    let zxids: Vec<i64> = replies.iter().map(|reply| reply.zxid - before).collect();
    assert_eq!(zxids, [1, 1, 1, 2, 2, 2]);
    let data =
        |reply: &ZkReply| DataReply::from_bytes(&reply.body).unwrap().data.map(<[u8]>::to_vec);
    assert_eq!(data(&replies[1]), Some(b"1".to_vec()));
    assert_eq!(replies[2].err, ErrorCode::NoNode.number());
    assert_eq!(AclReply::from_bytes(&replies[4].body).unwrap().stat.version, 2);
    assert_eq!(data(&replies[5]), Some(b"2".to_vec()));
}

#[test]
fn answers_to_reads_in_a_batch_have_a_bound() {
    let mut world = World::new();
    let caller = world.open();
    world.create("/a", 0).unwrap();
    let data = vec![b'x'; 1 << 20];
    world.set("/a", &data, -1).unwrap();
    let body = WatchRequest { path: "/a", watch: false }.to_bytes();
    assert_eq!(world.tree().may_pass(Op::GetData, &body), None, "too large to travel");
    let other = world.open();
    let read = |caller| ZkRequest::Op { caller, op: Op::GetData.number(), body: body.clone() };
    // A client that makes the node small again takes nothing from others.
    let small = SetDataRequest { path: "/a", data: Some(b"y"), version: -1 }.to_bytes();
    let small = ZkRequest::Op { caller: 1, op: Op::SetData.number(), body: small };
    let requests = vec![read(0), small, read(0), read(1)];
    let replies = world.batch(vec![caller.clone(), other], requests);
    let codes: Vec<i32> = replies.iter().map(|reply| reply.err).collect();
    assert_eq!(codes, [ErrorCode::ConnectionLoss.number(), 0, 0, 0]);
    // Nor do all together have more than there is.
    world.set("/a", &data[..data.len() / 2], -1).unwrap();
    let callers = vec![caller; 16];
    let replies = world.batch(callers, (0..16).map(read).collect());
    let bytes: usize = replies.iter().map(|reply| reply.body.len()).sum();
    assert!(bytes > ZK_PASSING_READS_BYTES_MAX * 3 / 4 && bytes <= ZK_PASSING_READS_BYTES_MAX);
    assert_eq!(replies.last().unwrap().err, ErrorCode::ConnectionLoss.number());
}

#[test]
fn only_small_reads_without_a_watch_may_travel_with_writes() {
    let world = World::new();
    let watch = |watch| WatchRequest { path: "/zookeeper", watch }.to_bytes();
    assert!(world.tree().may_pass(Op::GetData, &watch(false)).is_some());
    assert_eq!(world.tree().may_pass(Op::GetData, &watch(true)), None);
    assert_eq!(world.tree().may_pass(Op::GetChildren, &watch(false)), None);
    assert_eq!(world.tree().may_pass(Op::GetData, b"no record"), None);
    // A list of its own may be long.
    let config = PathRequest { path: "/zookeeper/config" }.to_bytes();
    assert_eq!(world.tree().may_pass(Op::GetAcl, &config), None);
}

/// Something that a client may do.
fn request() -> impl Strategy<Value = (Op, Vec<u8>)> {
    let path = prop_oneof![
        Just("/a"),
        Just("/b"),
        Just("/a/x"),
        Just("/a/y"),
        Just("/a/x/ü"),
        Just("/"),
        Just("/zookeeper/quota/a")
    ];
    (0..7, path, 0..7_i32, -1..3_i32).prop_map(|(kind, path, flags, version)| match kind {
        0 | 1 => (Op::Create, create(path, flags, &[Acl::open()])),
        2 => (Op::CreateContainer, create(path, 0, &[Acl::open()])),
        3 => (Op::CreateTtl, create_ttl(path, 10)),
        4 => (Op::Delete, VersionRequest { path, version }.to_bytes()),
        5 => {
            let data = [b'd'; 8];
            (
                Op::SetData,
                SetDataRequest { path, data: Some(&data[..flags as usize]), version }.to_bytes(),
            )
        }
        _ => {
            let ops = vec![
                MultiOp::Create(CreateRequest { flags: flags & 3, ..plain(path) }),
                MultiOp::Delete(VersionRequest { path: "/a/x", version }),
            ];
            (Op::Multi, MultiRequest { ops }.to_bytes())
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// `World` checks after each that the tree is whole.
    #[test]
    fn whatever_is_asked_the_tree_stays_whole(requests in proptest::collection::vec(request(), 1..60)) {
        let mut world = World::new();
        for (op, body) in requests {
            let _ = world.ask(op, body);
        }
        let mut bytes = Vec::new();
        snapshot::write(&world.state, &mut bytes).unwrap();
        let back = snapshot::read(&mut bytes.as_slice()).unwrap();
        tree::assert_whole(back.zk());
        prop_assert_eq!(back.checksum(), world.state.checksum());
        let mut again = Vec::new();
        snapshot::write(&back, &mut again).unwrap();
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn no_bytes_make_it_fail_otherwise_than_by_a_code(op in -12..110_i32, body in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut world = World::new();
        let request = ZkRequest::Op { caller: 0, op, body };
        let replies = world.batch(vec![world.caller.clone()], vec![request]);
        prop_assert!(ErrorCode::of(replies[0].err).is_some());
    }
}
