//! One client's requests, each with the rule that it shows.

use super::*;
use crate::jute::op::{PERM_ALL, PERM_CREATE, PERM_READ};
use crate::jute::reply::{CreateReply, PathReply};
use crate::jute::request::SetAclRequest;
use crate::state::znodes::Asker;

fn path_of(body: &[u8]) -> String {
    PathReply::from_bytes(body).expect("a path").path.to_owned()
}

#[test]
fn a_node_is_made_changed_and_removed() {
    let mut world = World::new();
    world.now = 5_000;
    assert_eq!(path_of(&world.create("/a", 0).unwrap()), "/a");
    let zxid = world.tree().zxid();
    let stat = world.stat("/a");
    assert_eq!((stat.czxid, stat.mzxid, stat.pzxid), (zxid, zxid, zxid));
    assert_eq!((stat.ctime, stat.mtime, stat.version, stat.data_length), (5_000, 5_000, 0, 4));
    world.now = 6_000;
    world.set("/a", b"more", 0).unwrap();
    let stat = world.stat("/a");
    assert_eq!((stat.version, stat.mtime, stat.mzxid), (1, 6_000, zxid + 1));
    assert_eq!((stat.ctime, stat.czxid, stat.pzxid), (5_000, zxid, zxid));
    assert_eq!(world.set("/a", b"again", 0), Err(ErrorCode::BadVersion));
    world.delete("/a").unwrap();
    assert_eq!(world.delete("/a"), Err(ErrorCode::NoNode));
    assert_eq!(world.stat("/").pzxid, zxid + 2);
}

#[test]
fn a_request_that_fails_is_no_transaction() {
    let mut world = World::new();
    let before = world.tree().zxid();
    assert_eq!(world.create("/a/b", 0), Err(ErrorCode::NoNode));
    assert_eq!(world.create("/zookeeper", 0), Err(ErrorCode::NodeExists));
    for path in ["", "a", "/a/", "/a//b", "/a/./b"] {
        assert!(world.create(path, 0).is_err(), "{path:?}");
    }
    for flags in [-1, 5, 6, 7] {
        assert_eq!(world.create("/a", flags), Err(ErrorCode::BadArguments), "flags {flags}");
    }
    assert_eq!(world.delete("/"), Err(ErrorCode::BadArguments));
    assert_eq!(world.delete("/zookeeper/quota"), Err(ErrorCode::BadArguments));
    assert_eq!(world.tree().zxid(), before);
}

#[test]
fn numbers_count_nodes_made_and_never_come_again() {
    let mut world = World::new();
    world.create("/q", 0).unwrap();
    let first = path_of(&world.create("/q/n-", 2).unwrap());
    let second = path_of(&world.create("/q/n-", 2).unwrap());
    assert_eq!((first.as_str(), second.as_str()), ("/q/n-0000000000", "/q/n-0000000001"));
    world.delete(&first).unwrap();
    world.delete(&second).unwrap();
    assert_eq!(path_of(&world.create("/q/n-", 2).unwrap()), "/q/n-0000000002");
    // Clients are shown both those made and those removed.
    assert_eq!(world.stat("/q").cversion, 5);
}

#[test]
fn a_session_takes_its_nodes_along_in_one_transaction() {
    let mut world = World::new();
    for i in 0..10 {
        world.create(&format!("/e{i}"), 1).unwrap();
    }
    assert_eq!(world.create("/e1/x", 0), Err(ErrorCode::NoChildrenForEphemerals));
    assert_eq!(world.stat("/e3").ephemeral_owner, world.caller.session);
    let before = world.tree().zxid();
    let (session, attachment) = (world.caller.session, world.caller.attachment);
    world.batch(Vec::new(), vec![ZkRequest::Close { session, attachment }]);
    assert_eq!((world.tree().zxid(), world.tree().node_count()), (before + 1, 4));
    assert_eq!(world.create("/late", 0), Err(ErrorCode::SessionExpired));
}

#[test]
fn what_an_earlier_connection_still_asks_is_refused() {
    let mut world = World::new();
    let session = world.caller.session;
    let password = super::super::imported_password(session).to_vec();
    let attach =
        |password: Vec<u8>| ZkRequest::Attach { session, password, timeout: 9_000, attachment: 7 };
    let wrong = world.batch(Vec::new(), vec![attach(vec![0; 16])]).remove(0);
    assert_eq!(ConnectReply::from_bytes(&wrong.body).unwrap().session_id, 0);
    assert!(world.create("/before", 1).is_ok());
    let right = world.batch(Vec::new(), vec![attach(password)]).remove(0);
    assert_eq!(ConnectReply::from_bytes(&right.body).unwrap().session_id, session);
    assert_eq!(world.create("/after", 1), Err(ErrorCode::SessionMoved));
    // Nor can the time-out of the earlier connection end it.
    let old = world.caller.attachment;
    world.run(Command::ExpireZkSessions { sessions: vec![(session, old)] });
    assert!(world.tree().session(session).is_some());
    world.run(Command::ExpireZkSessions { sessions: vec![(session, 7)] });
    assert!(world.tree().get("/before").is_none());
}

#[test]
fn access_lists_are_completed_and_kept_to() {
    let mut world = World::new();
    let digest = id("digest", "alice:hash");
    let mine = [Acl { perms: PERM_READ, id: id("auth", "") }];
    assert_eq!(
        world.ask(Op::Create, create("/n", 0, &mine)),
        Err(ErrorCode::InvalidAcl),
        "nothing proven yet"
    );
    let alice = ZkCaller { ids: vec![digest.clone()], ..world.caller.clone() };
    world.ask_as(alice.clone(), Op::Create, create("/n", 0, &mine)).unwrap();
    let node = world.tree().get("/n").unwrap();
    assert_eq!(*world.tree().acl_of(node), [Acl { perms: PERM_READ, id: digest.clone() }]);
    let set = SetDataRequest { path: "/n", data: None, version: -1 }.to_bytes();
    assert_eq!(world.ask_as(alice, Op::SetData, set.clone()), Err(ErrorCode::NoAuth));
    let root = ZkCaller { ids: vec![id("super", "")], ..world.caller.clone() };
    world.ask_as(root, Op::SetData, set).unwrap();
    let near = [Acl { perms: PERM_CREATE, id: id("ip", "127.0.0.0/8") }];
    world.ask(Op::Create, create("/near", 0, &near)).unwrap();
    world.create("/near/x", 0).unwrap();
    assert_eq!(world.delete("/near/x"), Err(ErrorCode::NoAuth));
    for bad in [id("digest", "no-colon"), id("ip", "10.0.0.0/99"), id("what", "ever")] {
        let acl = [Acl { perms: PERM_READ, id: bad }];
        assert_eq!(world.ask(Op::Create, create("/b", 0, &acl)), Err(ErrorCode::InvalidAcl));
    }
    assert_eq!(world.ask(Op::Create, create("/b", 0, &[])), Err(ErrorCode::InvalidAcl));
}

#[test]
fn containers_and_times_to_live_end_when_they_should() {
    let mut world = World::new();
    let made = world.ask(Op::CreateContainer, create("/c", 4, &[Acl::open()])).unwrap();
    assert_eq!(CreateReply::from_bytes(&made).unwrap().stat.ephemeral_owner, 0);
    world.ask(Op::CreateTtl, create_ttl("/t", 1_000)).unwrap();
    for ttl in [0, -1, 1 << 40] {
        assert_eq!(
            world.ask(Op::CreateTtl, create_ttl("/u", ttl)),
            Err(ErrorCode::BadArguments),
            "{ttl}"
        );
    }
    let reap = |path| crate::jute::request::PathRequest { path }.to_bytes();
    // It never had a child.
    assert_eq!(world.ask(Op::DeleteContainer, reap("/c")), Err(ErrorCode::BadVersion));
    world.create("/c/x", 0).unwrap();
    assert_eq!(world.ask(Op::DeleteContainer, reap("/c")), Err(ErrorCode::NotEmpty));
    world.delete("/c/x").unwrap();
    world.ask(Op::DeleteContainer, reap("/c")).unwrap();
    assert_eq!(world.ask(Op::DeleteContainer, reap("/t")), Err(ErrorCode::BadVersion));
    world.now += 1_000;
    world.ask(Op::DeleteContainer, reap("/t")).unwrap();
    assert_eq!(world.tree().node_count(), 4);
}

#[test]
fn a_quota_counts_what_is_below_it() {
    let mut world = World::new();
    world.create("/app", 0).unwrap();
    world.create("/app/a", 0).unwrap();
    for path in ["/zookeeper/quota/app", "/zookeeper/quota/app/zookeeper_limits"] {
        world.create(path, 0).unwrap();
    }
    world.create("/zookeeper/quota/app/zookeeper_stats", 0).unwrap();
    let stats = |world: &World| {
        let node = world.tree().get("/zookeeper/quota/app/zookeeper_stats").unwrap();
        String::from_utf8(node.data().unwrap().to_vec()).unwrap()
    };
    assert_eq!(stats(&world), "count=2,bytes=8");
    world.create("/app/b", 0).unwrap();
    world.set("/app/a", b"longer data", -1).unwrap();
    assert_eq!(stats(&world), "count=3,bytes=19");
    world.delete("/app/b").unwrap();
    assert_eq!(stats(&world), "count=2,bytes=15");
    world
        .set(
            "/zookeeper/quota/app/zookeeper_limits",
            b"count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=2",
            -1,
        )
        .unwrap();
    let request = ZkRequest::Op {
        caller: 0,
        op: Op::Create.number(),
        body: create("/app/c", 0, &[Acl::open()]),
    };
    let batch = ZkBatch {
        callers: vec![world.caller.clone()],
        requests: vec![request],
        enforce_quota: true,
    };
    let Reply::Zk(replies) = world.run(Command::Zk(Box::new(batch))) else { panic!("no replies") };
    assert_eq!(replies[0].err, ErrorCode::QuotaExceeded.number());
}

#[test]
fn a_change_is_for_those_who_could_read_the_node_then() {
    let mut world = World::new();
    let alice = id("digest", "alice:hash");
    let private = [Acl { perms: PERM_ALL, id: alice.clone() }];
    world.create("/open", 0).unwrap();
    world.ask(Op::Create, create("/closed", 0, &private)).unwrap();
    let seen = world.tree().change_count();
    let root = ZkCaller { ids: vec![id("super", "")], ..world.caller.clone() };
    let set_acl =
        |acl: &[Acl]| SetAclRequest { path: "/open/x", acl: acl.to_vec(), version: -1 }.to_bytes();
    // Made, opened to everybody, and removed before anybody looks; its list is nowhere any more.
    let steps = [
        (Op::Create, create("/open/x", 0, &private)),
        (Op::SetAcl, set_acl(&[Acl::open()])),
        (Op::SetData, SetDataRequest { path: "/open/x", data: None, version: -1 }.to_bytes()),
        (Op::SetAcl, set_acl(&private)),
        (Op::Delete, VersionRequest { path: "/open/x", version: -1 }.to_bytes()),
        (Op::Create, create("/closed/y", 0, &[Acl::open()])),
    ];
    for (op, body) in steps {
        world.ask_as(root.clone(), op, body).unwrap();
    }
    let (alice, bob) = ([alice], [id("digest", "bob:hash")]);
    let asker = |ids| Asker { ids, superuser: false };
    let told: Vec<(bool, bool)> = world
        .tree()
        .changes_since(seen)
        .unwrap()
        .map(|change| {
            assert!(change.is_for(false, asker(&alice)) && change.is_for(true, asker(&alice)));
            (change.is_for(false, asker(&bob)), change.is_for(true, asker(&bob)))
        })
        .collect();
    // Of the node itself, and of the children of the one above.
    assert_eq!(told, [(false, true), (true, true), (false, true), (true, false)]);
}
