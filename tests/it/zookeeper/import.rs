//! `orch zk import`: trees of real servers come here exactly.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use flate2::read::GzDecoder;
use orch::jute::file::{AclRow, NodeRow, SessionRow};
use orch::jute::request::{CreateRequest, MultiOp};
use orch::jute::txn::Transaction;
use orch::jute::{Acl, Field, StatPersisted};
use orch::zookeeper::data_dir::{DataDir, log_name};
use orch::zookeeper::snapshot_file::{SnapshotWriter, Tail};
use orch::zookeeper::txn_log_file::LogWriter;
use serde_json::Value;

use crate::support::zookeeper::{Options, ZooKeeper};
use crate::support::zookeeper_client::{Client, mode};
use crate::support::{Cluster, LONG, command, wait_until};

fn fixture() -> (tempfile::TempDir, Value) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/zookeeper-3.9.3");
    let target = tempfile::tempdir().unwrap();
    let archive = File::open(files.join("data.tar.gz")).unwrap();
    tar::Archive::new(GzDecoder::new(archive)).unpack(target.path()).unwrap();
    let expected = fs::read(files.join("expected.json")).unwrap();
    (target, serde_json::from_slice(&expected).unwrap())
}

fn hex(text: &Value) -> i64 {
    let text = text.as_str().unwrap().trim_start_matches("0x");
    u64::from_str_radix(text, 16).unwrap().cast_signed()
}

#[test]
fn a_directory_of_3_9_3_comes_exactly() {
    let (files, expected) = fixture();
    let source = files.path().join("data").display().to_string();
    let cluster = Cluster::start(1);
    let report = cluster.orch(&["zk", "import", &source, "-o", "json"]).ok().json();
    assert_eq!(report["proven"], true, "{report}");
    assert_eq!(hex(&report["zxid"]), expected["zxid"].as_i64().unwrap());
    let dump = cluster.orch(&["zk", "dump"]).ok().stdout;
    let nodes: std::collections::BTreeMap<String, Value> = dump
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|node| (node["path"].as_str().unwrap().to_owned(), node))
        .collect();
    let wanted = expected["nodes"].as_object().unwrap();
    for (path, wanted) in wanted.iter().filter(|(path, _)| !path.starts_with("/zookeeper/")) {
        let node = nodes.get(path).unwrap_or_else(|| panic!("{path} is missing"));
        let stat = &node["stat"];
        let number = |key: &str| wanted[key].as_i64().unwrap();
        assert_eq!(stat["bytes"], wanted["len"], "{path}");
        for (ours, theirs) in [("czxid", "czxid"), ("mzxid", "mzxid"), ("pzxid", "pzxid")] {
            assert_eq!(hex(&stat[ours]), number(theirs), "{path}: {ours}");
        }
        for key in ["version", "cversion", "aversion", "children"] {
            assert_eq!(stat[key], wanted[key], "{path}: {key}");
        }
        let owner = stat.get("session").map_or(0, hex);
        assert_eq!(owner, number("ephemeralOwner"), "{path}");
        let acls = wanted["acl"].as_array().unwrap();
        assert_eq!(node["acl"].as_array().unwrap().len(), acls.len(), "{path}");
    }
    assert_eq!(nodes.len(), wanted.len(), "nodes that nobody wrote");
    // There is something now: what comes again needs to be told what to do with it.
    cluster.orch(&["zk", "import", &source]).code(4).says(&["--existing"]);
}

#[test]
fn a_part_comes_under_another_node() {
    let (files, _) = fixture();
    let source = files.path().join("data").display().to_string();
    let cluster = Cluster::start(1);
    cluster.orch(&["zk", "set", "/keep", "mine", "--create"]).ok();
    let only = ["zk", "import", &source, "--only", "/app", "--at", "/moved"];
    cluster.orch(&only).ok();
    let tree = cluster.orch(&["zk", "tree", "/moved", "-o", "json"]).ok().json();
    let rows = tree["rows"].as_array().unwrap();
    assert!(rows.len() > 2, "{tree}");
    assert_eq!(rows[1]["path"], "/moved/app");
    cluster.orch(&["zk", "get", "/moved/app"]).ok();
    assert_eq!(cluster.orch(&["zk", "get", "/keep"]).ok().stdout, "mine");
    cluster.orch(&only).code(4).says(&["--existing"]);
    cluster.orch(&["zk", "set", "/moved/app", "changed"]).ok();
    cluster.orch(&[&only[..], &["--existing", "keep"]].concat()).ok();
    assert_eq!(cluster.orch(&["zk", "get", "/moved/app"]).ok().stdout, "changed");
    cluster.orch(&[&only[..], &["--existing", "overwrite"]].concat()).ok();
    assert_ne!(cluster.orch(&["zk", "get", "/moved/app"]).ok().stdout, "changed");
    cluster.orch(&["zk", "set", "/moved/app/stray", "x", "--create"]).ok();
    cluster.orch(&[&only[..], &["--existing", "replace"]].concat()).ok();
    cluster.orch(&["zk", "get", "/moved/app/stray"]).code(3);
}

#[test]
fn a_part_keeps_its_path_and_the_root_is_left_alone() {
    let (files, _) = fixture();
    let source = files.path().join("data").display().to_string();
    let cluster = Cluster::start(1);
    cluster.orch(&["zk", "set", "/", "mine"]).ok();
    let root = || cluster.orch(&["zk", "stat", "/", "-o", "json"]).ok().json()["stat"].clone();
    let before = root();
    cluster.orch(&["zk", "import", &source, "--only", "/app"]).ok();
    cluster.orch(&["zk", "get", "/app"]).ok();
    let after = root();
    assert_eq!(cluster.orch(&["zk", "get", "/"]).ok().stdout, "mine");
    assert_eq!((&after["version"], &after["aversion"]), (&1.into(), &0.into()));
    // It has a child more, and its clients can tell.
    assert_ne!(before["pzxid"], after["pzxid"]);
    assert!(after["cversion"].as_i64() > before["cversion"].as_i64(), "{before} {after}");
    cluster
        .orch(&["zk", "import", &source, "--only", "/zookeeper", "--at", "/there"])
        .code(4)
        .says(&["nothing of /zookeeper can come here"]);
}

/// A directory with that many nodes below `/many`.
fn many(nodes: usize) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let file = File::create(target.path().join("snapshot.100000000")).unwrap();
    let (sessions, acls): ([SessionRow; 0], [AclRow; 0]) = ([], []);
    let out = std::io::BufWriter::new(file);
    let mut writer = SnapshotWriter::new(out, sessions.iter(), acls.iter()).unwrap();
    let mut node = |path: &str, data: &[u8]| {
        let stat = StatPersisted::default();
        writer.node(&NodeRow { path, data: Some(data), acl: -1, stat }).unwrap();
    };
    node("", b"");
    node("/many", b"");
    for number in 0..nodes {
        node(&format!("/many/{number:07}"), &[7; 200]);
    }
    writer.finish(Tail::default()).unwrap().flush().unwrap();
    target
}

#[test]
fn an_import_that_was_interrupted_goes_on() {
    let files = many(60_000);
    let source = files.path().display().to_string();
    let mut cluster = Cluster::start(1);
    let address = cluster.api_address("s1");
    let mut importing = command(&[("ORCH_ADDR", &address)], &["zk", "import", &source])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let chunks = |cluster: &Cluster| {
        let imports = cluster.orch(&["zk", "migrate", "status", "-o", "json"]).json();
        imports[0]["next_chunk"].as_u64().unwrap_or(0)
    };
    // Neither the command nor the server ends in order.
    wait_until("the first lots", LONG, || match chunks(&cluster) {
        0 => Err("none has come".to_owned()),
        some => Ok(some),
    });
    importing.kill().unwrap();
    importing.wait().unwrap();
    cluster.kill("s1");
    cluster.restart("s1");
    let had = chunks(&cluster);
    assert!(had > 0);
    // What clients see has not changed by it.
    cluster.orch(&["zk", "get", "/many"]).code(3);
    let report = cluster.orch(&["zk", "import", &source, "-o", "json"]).ok();
    assert!(report.stderr.contains("going on behind lot"), "{}", report.stderr);
    assert_eq!(report.json()["nodes"], 60_002);
    let summary = cluster.orch(&["zk", "stat", "-o", "json"]).ok().json();
    assert_eq!(summary["nodes"], 60_002 + 3);
}

/// A server whose sessions outlive a slow machine's run: clients here don't say that they live.
fn standalone() -> ZooKeeper {
    ZooKeeper::standalone(Options::default().property("maxSessionTimeout", "600000"))
}

fn connect(zookeeper: &ZooKeeper) -> Client {
    Client::connect(zookeeper.client_address(0), 600_000).unwrap()
}

/// Makes so many nodes of 2 kB below `top`, in multis, from the number `from` on.
pub(super) fn make_nodes(client: &mut Client, top: &str, from: usize, count: usize) {
    const TOGETHER: usize = 100;
    let data = vec![b'd'; 2_000];
    for first in (from..from + count).step_by(TOGETHER) {
        let paths: Vec<String> =
            (first..first + TOGETHER).map(|number| format!("{top}/{number:06}")).collect();
        let create = |path| {
            let (data, acl) = (Some(data.as_slice()), vec![Acl::open()]);
            MultiOp::Create(CreateRequest { path, data, acl, flags: 0 })
        };
        client.multi(paths.iter().map(|path| create(path)).collect());
    }
}

/// The digest that the last transaction of a directory says its tree has.
fn last_digest(dir: &Path) -> u64 {
    let dir = DataDir::find(dir, None).unwrap();
    let (mut transactions, mut last) = (dir.transactions(0), None);
    while let Some((_, bytes)) = transactions.next_transaction().unwrap() {
        last = Transaction::from_bytes(bytes).unwrap().digest.or(last);
    }
    last.unwrap().digest.cast_unsigned()
}

/// How the import is, at once.
fn import_row(cluster: &Cluster) -> Option<Value> {
    let reply = cluster.http("s1").try_get("/v1/zk/imports/import").ok()?;
    (reply.status == 200).then(|| reply.value())
}

#[test]
fn an_import_goes_on_where_it_was_though_the_logs_have_grown() {
    let zookeeper = standalone();
    let mut client = connect(&zookeeper);
    client.create("/many", b"", mode::PERSISTENT);
    make_nodes(&mut client, "/many", 0, 6_000);
    let source = zookeeper.data_dir(0).display().to_string();
    let cluster = Cluster::start(1);
    let address = cluster.api_address("s1");
    let mut importing = command(&[("ORCH_ADDR", &address)], &["zk", "import", &source])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // 12 MB are over 20 lots of transactions; it is killed between two of the first.
    wait_until("the first transactions", LONG, || match import_row(&cluster) {
        Some(row) if row["transactions"].as_u64() > Some(0) => Ok(()),
        row => Err(format!("{row:?}")),
    });
    importing.kill().unwrap();
    importing.wait().unwrap();
    let had = import_row(&cluster).unwrap();
    assert!(had["nodes"].as_u64() < Some(6_000), "it was killed too late: {had}");
    // What was the end of the last lot is none any more.
    make_nodes(&mut client, "/many", 6_000, 300);
    let report = cluster.orch(&["zk", "import", &source, "-o", "json"]).ok().json();
    let digest = format!("{:#018x}", last_digest(zookeeper.data_dir(0)));
    assert_eq!((&report["proof"], &report["digest"]), (&"digest".into(), &digest.clone().into()));
    assert_eq!(report["source_digest"], Value::from(digest));
    assert_eq!(hex(&report["zxid"]), zookeeper.zxid(0).unwrap());
    assert_eq!(report["nodes"], 6_300 + 5);
    // The same once more, when all of it is here but was not put in: nothing is lost or doubled.
    let again = ["zk", "import", &source, "-o", "json"];
    cluster.orch(&again).code(4).says(&["--existing"]);
    make_nodes(&mut client, "/many", 6_300, 100);
    client.set("/many", Some(b"last")).unwrap();
    let report = cluster.orch(&[&again[..], &["--existing", "replace"]].concat()).ok().json();
    assert_eq!((&report["proof"], &report["nodes"]), (&"digest".into(), &(6_400 + 5).into()));
    assert_eq!(cluster.orch(&["zk", "get", "/many"]).ok().stdout, "last");
}

/// A copy of a directory in which the digests of some transactions are others; counted from the
/// last one that has one.
fn with_wrong_digests(from: &Path, wrong: impl Fn(usize) -> bool) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let dir = DataDir::find(from, None).unwrap();
    let first = &dir.snapshots()[0];
    fs::copy(&first.path, target.path().join(first.path.file_name().unwrap())).unwrap();
    let (mut transactions, mut all) = (dir.transactions(first.zxid), Vec::new());
    while let Some((_, bytes)) = transactions.next_transaction().unwrap() {
        all.push(bytes.to_vec());
    }
    let has = |bytes: &[u8]| Transaction::from_bytes(bytes).unwrap().digest.is_some();
    let marked = all.iter_mut().rev().filter(|bytes| has(bytes)).enumerate();
    for (_, bytes) in marked.filter(|(number, _)| wrong(*number)) {
        *bytes.last_mut().unwrap() ^= 1;
    }
    let log = File::create(target.path().join(log_name(first.zxid + 1))).unwrap();
    let mut log = LogWriter::new(log).unwrap();
    for bytes in &all {
        log.append(bytes).unwrap();
    }
    log.finish().unwrap();
    target
}

#[test]
fn wrong_digests_of_a_server_are_read_past_and_never_taken_in_silence() {
    let mut zookeeper = standalone();
    let mut client = connect(&zookeeper);
    client.create("/app", b"", mode::PERSISTENT);
    for _ in 0..20 {
        client.create("/app/n-", b"", mode::SEQUENTIAL);
    }
    client.close();
    zookeeper.kill(0);
    let cluster = Cluster::start(1);
    let import = |dir: &Path, at: &str, more: &[&str]| {
        let source = dir.display().to_string();
        cluster.orch(&[&["zk", "import", &source, "--at", at, "-o", "json"], more].concat())
    };
    // In the middle: they are right again.
    let healed = with_wrong_digests(zookeeper.data_dir(0), |number| (3..8).contains(&number));
    let done = import(healed.path(), "/healed", &[]).ok();
    assert_eq!(done.json()["proof"], "digest");
    assert!(done.stderr.contains("5 transactions told another digest"), "{}", done.stderr);
    // At the end, and nothing comes that is right: the last is the end of the session.
    let open = with_wrong_digests(zookeeper.data_dir(0), |number| number < 4);
    let refused = import(open.path(), "/open", &[]).code(4);
    for part in ["not proven", "/app/n-0000000017", "right before it", "--accept-unproven"] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    cluster.orch(&["zk", "get", "/open"]).code(3);
    let report = import(open.path(), "/open", &["--accept-unproven"]).ok().json();
    assert_eq!((&report["proven"], &report["proof"]), (&false.into(), &"accepted".into()));
    assert!(report["unproven"].as_str().unwrap().contains("/app/n-0000000017"), "{report}");
    let tree = cluster.orch(&["zk", "ls", "/open/app", "-o", "json"]).ok().json();
    assert_eq!(tree.as_array().unwrap().len(), 20);
    // Never right at all.
    let never = with_wrong_digests(zookeeper.data_dir(0), |_| true);
    import(never.path(), "/never", &[]).code(4).says(&["no digest was equal before"]);
}

#[test]
fn a_server_alone_is_copied_as_its_client_sees_it() {
    let zookeeper = standalone();
    let mut client = connect(&zookeeper);
    client.create("/app", b"data", mode::PERSISTENT);
    client.create("/app/container", b"", mode::CONTAINER);
    client.create("/app/mine", b"", mode::EPHEMERAL);
    let last = (0..5).map(|_| client.create("/app/job-", b"", mode::SEQUENTIAL)).last().unwrap();
    client.delete(&last).unwrap();
    let source = format!("zk://{}", zookeeper.connect_string());
    let cluster = Cluster::start(1);
    let inspected = cluster.orch(&["zk", "inspect", &source, "-o", "json"]).ok().json();
    assert_eq!(inspected["version"], "3.8.0", "{inspected}");
    assert_eq!(inspected["inventory"]["nodes"].as_u64(), Some(10), "{inspected}");
    let done = cluster.orch(&["zk", "import", &source, "-o", "json"]).ok();
    for part in ["no observer gets in", "stands alone", "copying as a client", "lost: sessions"] {
        assert!(done.stderr.contains(part), "{part}: {}", done.stderr);
    }
    let report = done.json();
    let losses = report["losses"].to_string();
    assert!(losses.contains("containers") && losses.contains("1 ephemeral"), "{losses}");
    let stat = cluster.orch(&["zk", "stat", "/app", "-o", "json"]).ok().json();
    // 7 made, one removed by its client, one left behind.
    assert_eq!(stat["stat"]["children"], 5);
    assert_eq!(stat["stat"]["cversion"], 7 * 2 - 5);
}

#[test]
fn a_chroot_comes_from_where_it_is() {
    let zookeeper = standalone();
    let mut client = connect(&zookeeper);
    for path in ["/top", "/top/app", "/top/app/part", "/top/app/part/leaf", "/top/other"] {
        client.create(path, path.as_bytes(), mode::PERSISTENT);
    }
    let source = format!("zk://{}/top/app", zookeeper.connect_string());
    let cluster = Cluster::start(1);
    cluster.orch(&["zk", "set", "/", "mine"]).ok();
    let get = |path: &str| cluster.orch(&["zk", "get", path]);
    cluster.orch(&["zk", "import", &source, "--at", "/new"]).ok();
    assert_eq!(get("/new").ok().stdout, "/top/app");
    assert_eq!(get("/new/part/leaf").ok().stdout, "/top/app/part/leaf");
    cluster.orch(&["zk", "import", &source, "--at", "/one", "--only", "/part"]).ok();
    assert_eq!(get("/one/part").ok().stdout, "/top/app/part");
    cluster.orch(&["zk", "import", &source]).ok();
    assert_eq!(get("/part/leaf").ok().stdout, "/top/app/part/leaf");
    assert_eq!(get("/").ok().stdout, "mine");
    get("/other").code(3);
    cluster.orch(&["zk", "import", &source, "--only", "/none"]).code(1).says(&["/top/app/none"]);
}
