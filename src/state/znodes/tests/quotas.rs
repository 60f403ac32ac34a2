//! What quotas count: on trees that clients change, on those that are brought, and how much of it.

use super::imports::{
    G, Imports, behind, chunk, copied, cut_over, made, merge, node, rows, start, transaction,
};
use super::*;
use crate::jute::StatPersisted;
use crate::jute::reply::{MultiReply, MultiResult};
use crate::jute::request::{MultiOp, MultiRequest};
use crate::jute::txn::{CreateKind, Txn};
use crate::limits::ZK_RECOUNTED_NODES_MAX;
use crate::state::snapshot;
use crate::state::znodes::quota::Recounts;
use crate::state::znodes::{ZkExisting, ZkImportStep};

const LIMITS: &str = "/zookeeper/quota/app/zookeeper_limits";
const STATS: &str = "/zookeeper/quota/app/zookeeper_stats";

fn figures(tree: &Tree, stats: &str) -> String {
    let node = tree.get(stats).unwrap_or_else(|| panic!("no {stats}"));
    String::from_utf8(node.data().expect("figures").to_vec()).expect("text")
}

impl World {
    /// `/app` with two nodes below it, and a place for its quota.
    fn with_app() -> Self {
        let mut world = Self::new();
        for path in ["/app", "/app/a", "/app/a/b", "/zookeeper/quota/app", LIMITS] {
            world.create(path, 0).unwrap();
        }
        world
    }
}

#[test]
fn counting_anew_has_its_price_and_time_pays_it() {
    let mut world = World::with_app();
    world.state.zk.recounts = Recounts::of(ZK_RECOUNTED_NODES_MAX - 1, world.now);
    world.create(STATS, 0).unwrap();
    assert_eq!(figures(world.tree(), STATS), "count=3,bytes=12");
    world.delete(STATS).unwrap();
    let zxid = world.tree().zxid();
    assert_eq!(world.create(STATS, 0), Err(ErrorCode::ThrottledOp));
    assert_eq!(world.tree().zxid(), zxid, "what is refused is no transaction");
    // Anything else goes on, also below the quota.
    world.create("/app/c", 0).unwrap();
    world.create("/zookeeper/quota/app/note", 0).unwrap();
    let mut bytes = Vec::new();
    snapshot::write(&world.state, &mut bytes).unwrap();
    let back = snapshot::read(&mut bytes.as_slice()).unwrap();
    assert_eq!(back.checksum(), world.state.checksum());
    world.state = back;
    assert_eq!(world.create(STATS, 0), Err(ErrorCode::ThrottledOp), "a snapshot keeps it");
    world.now += 1000;
    world.create(STATS, 0).unwrap();
    assert_eq!(figures(world.tree(), STATS), "count=4,bytes=16");
}

#[test]
fn a_multi_that_fails_has_counted_all_the_same() {
    let mut world = World::with_app();
    world.state.zk.recounts = Recounts::of(ZK_RECOUNTED_NODES_MAX - 7, world.now);
    let body = |ops| MultiRequest { ops }.to_bytes();
    let one = CreateRequest { path: STATS, data: None, acl: vec![Acl::open()], flags: 0 };
    let gone = VersionRequest { path: STATS, version: -1 };
    let round = [MultiOp::Create(one), MultiOp::Delete(gone)];
    let none = MultiOp::Delete(VersionRequest { path: "/none", version: -1 });
    let failed = world.ask(Op::Multi, body([&round[..], &[none]].concat())).unwrap();
    let results = MultiReply::from_bytes(&failed).unwrap().results;
    assert_eq!(results[2], MultiResult::Error(ErrorCode::NoNode.number()));
    // Two more are within the bound, and the third in the same request is not.
    let failed = world.ask(Op::Multi, body([&round[..], &round, &round].concat())).unwrap();
    let results = MultiReply::from_bytes(&failed).unwrap().results;
    assert_eq!(results[4], MultiResult::Error(ErrorCode::ThrottledOp.number()));
    assert!(world.tree().get(STATS).is_none());
}

#[test]
fn only_nodes_below_the_place_for_quotas_are_about_quotas() {
    let mut world = World::with_app();
    world.create("/zookeeper/quotas", 0).unwrap();
    world.create("/zookeeper/quotas/zookeeper_limits", 0).unwrap();
    world.create("/zookeeper/quota/zookeeper_limits", 0).unwrap();
    let quotas: Vec<&str> = world.tree().quotas.iter().map(AsRef::as_ref).collect();
    assert_eq!(quotas, ["/app"]);
    world.delete(LIMITS).unwrap();
    assert!(world.tree().quotas.is_empty());
}

/// The rows of a tree with two quotas, one below the other; a server counts for itself.
fn rows_with_quotas() -> [Vec<u8>; 3] {
    let [first, second] = rows();
    let plain = |path: &str, data: &[u8]| node(path, data, -1, StatPersisted::default());
    let quotas = [
        plain("/zookeeper/quota", b""),
        plain("/zookeeper/quota/app", b""),
        plain(LIMITS, b"count=9,bytes=9"),
        plain(STATS, b"count=0,bytes=0"),
        plain("/zookeeper/quota/app/box", b""),
        plain("/zookeeper/quota/app/box/zookeeper_limits", b"count=9,bytes=9"),
        plain("/zookeeper/quota/app/box/zookeeper_stats", b"count=0,bytes=0"),
        plain("/app/box/x", b"four"),
    ];
    [first, second, quotas.concat()]
}

const INNER: &str = "/zookeeper/quota/app/box/zookeeper_stats";

#[test]
fn a_server_that_comes_in_the_middle_of_an_import_has_the_same_in_the_end() {
    let [first, second, third] = rows_with_quotas();
    let limits_gone = transaction(3, Txn::Delete(LIMITS), None);
    let steps = [
        start(true, false),
        chunk(0, first),
        chunk(1, second),
        chunk(2, third),
        copied(true),
        behind(0, transaction(1, made("/app/new", CreateKind::Persistent, 8), None)),
        behind(1, transaction(2, made("/app/box/y", CreateKind::Persistent, 1), None)),
        ZkImportStep::Exact { generation: G },
        behind(2, limits_gone),
        cut_over(3),
    ];
    let bytes = |imports: &Imports| {
        let mut bytes = Vec::new();
        snapshot::write(&imports.state, &mut bytes).unwrap();
        bytes
    };
    let (mut all, mut again) = (Imports::default(), Imports::default());
    for step in steps {
        let what = format!("{step:?}");
        all.takes(step.clone());
        again.takes(step);
        // One had every entry of the log, the other begins with a snapshot again and again.
        again.state = snapshot::read(&mut bytes(&again).as_slice()).unwrap();
        assert!(bytes(&all) == bytes(&again), "{what}");
        assert_eq!(all.state.checksum(), again.state.checksum(), "{what}");
    }
    assert_eq!(figures(all.state.zk(), INNER), "count=3,bytes=5");
}

#[test]
fn what_is_brought_is_counted_when_it_is_whole() {
    for fuzzy in [true, false] {
        let mut imports = Imports::default();
        imports.takes(start(true, false));
        for (number, lot) in (0..).zip(rows_with_quotas()) {
            imports.takes(chunk(number, lot));
        }
        imports.takes(copied(fuzzy));
        if fuzzy {
            assert_eq!(figures(&imports.import().tree, STATS), "count=0,bytes=0");
            imports.takes(ZkImportStep::Exact { generation: G });
        }
        let tree = &imports.import().tree;
        assert_eq!(figures(tree, STATS), "count=5,bytes=8", "fuzzy: {fuzzy}");
        assert_eq!(figures(tree, INNER), "count=2,bytes=4", "fuzzy: {fuzzy}");
        // The nearest quota counts what comes later.
        let new = transaction(1, made("/app/box/y", CreateKind::Persistent, 1), None);
        imports.takes(behind(0, new));
        assert_eq!(figures(&imports.import().tree, INNER), "count=3,bytes=5");
        assert_eq!(figures(&imports.import().tree, STATS), "count=5,bytes=8");
    }
}

#[test]
fn what_goes_in_whole_is_counted_and_a_part_brings_no_quotas() {
    let goes_in = |exact: bool, only: &str| {
        let mut imports = Imports::default();
        imports.takes(start(false, false));
        for (number, lot) in (0..).zip(rows_with_quotas()) {
            imports.takes(chunk(number, lot));
        }
        imports.takes(copied(true));
        if exact {
            imports.takes(ZkImportStep::Exact { generation: G });
        }
        imports.takes(merge("/", only, ZkExisting::Replace));
        imports.state.zk().clone()
    };
    // One that is not proven may go in before it is exact.
    for exact in [false, true] {
        let whole = goes_in(exact, "/");
        assert_eq!(
            (figures(&whole, STATS), figures(&whole, INNER)),
            ("count=5,bytes=8".to_owned(), "count=2,bytes=4".to_owned())
        );
        assert!(goes_in(exact, "/app").get(STATS).is_none());
    }
}

#[test]
fn a_quota_that_the_source_sets_late_is_counted_at_the_end() {
    let mut imports = Imports::copied(true, false);
    let paths = ["/zookeeper/quota", "/zookeeper/quota/app", LIMITS, STATS];
    for (number, path) in (0..).zip(paths) {
        let new = transaction(number + 1, made(path, CreateKind::Persistent, -1), None);
        imports.takes(behind(number, new));
    }
    assert_eq!(figures(&imports.import().tree, STATS), "x", "as the source has it in its log");
    imports.takes(cut_over(4));
    assert_eq!(figures(imports.state.zk(), STATS), "count=4,bytes=4");
}
