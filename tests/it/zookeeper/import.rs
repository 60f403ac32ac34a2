//! `orch zk import`: trees of real servers come here exactly.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use flate2::read::GzDecoder;
use orch::jute::StatPersisted;
use orch::jute::file::{AclRow, NodeRow, SessionRow};
use orch::zookeeper::snapshot_file::{SnapshotWriter, Tail};
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
    let only = ["zk", "import", &source, "--only", "/app", "--at", "/moved/app"];
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

#[test]
fn an_ensemble_is_copied_as_its_client_sees_it() {
    let zookeeper = ZooKeeper::standalone(Options::default());
    let mut client = Client::connect(zookeeper.client_address(0), 10_000).unwrap();
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
    let report = cluster.orch(&["zk", "import", &source, "-o", "json"]).ok().json();
    let losses = report["losses"].to_string();
    assert!(losses.contains("containers") && losses.contains("1 ephemeral"), "{losses}");
    let stat = cluster.orch(&["zk", "stat", "/app", "-o", "json"]).ok().json();
    // 7 made, one removed by its client, one left behind.
    assert_eq!(stat["stat"]["children"], 5);
    assert_eq!(stat["stat"]["cversion"], 7 * 2 - 5);
}
