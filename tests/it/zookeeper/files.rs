//! Files that real servers wrote, and files for real servers to start from.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use orch::jute::file::{AclRow, NodeRow, OPEN_ACL_KEY, SessionRow};
use orch::jute::op::{Owner, PERM_ALL, PERM_READ};
use orch::jute::request::{CreateRequest, MultiOp, SetDataRequest, VersionRequest};
use orch::jute::rows::Row;
use orch::jute::{Acl, Id, path};
use orch::zookeeper::data_dir::{DataDir, log_name, snapshot_name};
use orch::zookeeper::snapshot_file::{
    Packing, SnapshotDigest, SnapshotReader, SnapshotWriter, Tail,
};
use orch::zookeeper::txn_log_file::{LogEnd, LogWriter};
use serde_json::Value;

use super::tree::Tree;
use crate::support::zookeeper::{Options, ZooKeeper};
use crate::support::zookeeper_client::{Client, mode};
use crate::support::{LONG, wait_until};

/// Reads a snapshot.
fn read_snapshot(path: &Path, zxid: i64) -> (Tree, Tail, Packing) {
    let mut reader = SnapshotReader::open(File::open(path).unwrap()).unwrap();
    let mut tree = Tree { zxid, ..Tree::default() };
    while let Some(row) = reader.next_row().unwrap() {
        tree.add(&row);
    }
    (tree, reader.tail().unwrap(), reader.packing())
}

/// Reads a directory from one of its snapshots on to the end of its logs.
fn replay(dir: &DataDir, snapshot: &Path, zxid: i64) -> Tree {
    let (mut tree, tail, _) = read_snapshot(snapshot, zxid);
    let mut transactions = dir.transactions(zxid);
    while let Some((zxid, bytes)) = transactions.next_transaction().unwrap() {
        tree.apply(bytes);
        assert_eq!(tree.zxid, zxid);
        // What came while the snapshot was written may be in it already.
        if tail.last_zxid.is_some_and(|last| zxid < last) {
            tree.proven = (0, 0);
        }
    }
    tree
}

fn fixture() -> tempfile::TempDir {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/zookeeper-3.9.3");
    let target = tempfile::tempdir().unwrap();
    let archive = File::open(files.join("data.tar.gz")).unwrap();
    tar::Archive::new(GzDecoder::new(archive)).unpack(target.path()).unwrap();
    target
}

fn expected() -> Value {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/zookeeper-3.9.3");
    serde_json::from_slice(&fs::read(files.join("expected.json")).unwrap()).unwrap()
}

#[test]
fn a_directory_of_3_9_3_is_read_exactly() {
    let files = fixture();
    let dir = DataDir::find(&files.path().join("data"), None).unwrap();
    let chosen = dir.newest_snapshot().unwrap();
    assert!(chosen.refused.is_empty(), "{:?}", chosen.refused);
    let (newest, contents) = chosen.snapshot.unwrap();
    // It was written while changes went on, and tells both ends of them.
    assert!(contents.tail.last_zxid > Some(newest.zxid), "{:?}", contents.tail);
    let expected = expected();
    // From each of the snapshots the logs lead to the same tree.
    let mut trees = Vec::new();
    for file in dir.snapshots() {
        let tree = replay(&dir, &file.path, file.zxid);
        assert!(tree.proven.0 > 50, "{:?}", tree.proven);
        assert_eq!(tree.proven.1, 0, "{:?} from {}", tree.proven, file.path.display());
        assert_eq!(Some(tree.zxid), expected["zxid"].as_i64());
        println!("{}: {:?} proven", file.path.display(), tree.proven);
        trees.push(tree.common());
    }
    assert_eq!(trees.len(), 3);
    for tree in &trees {
        assert_eq!(tree.difference(&trees[0]), None);
    }

    let session = &expected["session"];
    let timeout = trees[0].sessions.get(&session["id"].as_i64().unwrap());
    assert_eq!(timeout.copied().map(i64::from), session["timeout_ms"].as_i64());
    compare(&trees[0], expected["nodes"].as_object().unwrap());
}

/// Compares a tree with what clients saw.
fn compare(tree: &Tree, expected: &serde_json::Map<String, Value>) {
    let mut children = BTreeMap::<&str, i32>::new();
    for path in tree.nodes.keys() {
        if let Some((parent, _)) = path::split(path) {
            *children.entry(parent).or_default() += 1;
        }
    }
    let mut compared = 0;
    for (path, seen) in expected.iter().filter(|(path, _)| !path.starts_with("/zookeeper")) {
        let node = tree.nodes.get(path).unwrap_or_else(|| panic!("{path} is missing"));
        let children = children.get(path.as_str()).copied().unwrap_or(0);
        let owner = match Owner::of(node.stat.ephemeral_owner) {
            Owner::Session(id) => id,
            _ => 0,
        };
        let stat = node.stat;
        for (name, ours) in [
            ("len", node.data.as_ref().map_or(0, Vec::len) as i64),
            ("czxid", stat.czxid),
            ("mzxid", stat.mzxid),
            ("pzxid", stat.pzxid),
            ("ctime", stat.ctime),
            ("mtime", stat.mtime),
            ("version", stat.version.into()),
            ("cversion", (2 * stat.cversion - children).into()),
            ("aversion", stat.aversion.into()),
            ("ephemeralOwner", owner),
            ("children", children.into()),
        ] {
            assert_eq!(seen[name].as_i64(), Some(ours), "{name} of {path}");
        }
        let acl: Vec<Value> = (node.acl.iter().flatten())
            .map(|acl| serde_json::json!([acl.perms, acl.id.scheme, acl.id.id]))
            .collect();
        assert_eq!(seen["acl"], Value::Array(acl), "access list of {path}");
        compared += 1;
    }
    let ours = tree.nodes.keys().filter(|path| !path.starts_with("/zookeeper")).count();
    assert_eq!(ours, compared, "nodes that clients did not see");
}

fn acl(perms: i32, scheme: &str, id: &str) -> Acl {
    Acl { perms, id: Id { scheme: scheme.to_owned(), id: id.to_owned() } }
}

/// Makes one of everything, and a few hundred changes. The sessions stay open.
fn fill(zookeeper: &ZooKeeper) -> Vec<Client> {
    let address = zookeeper.client_address(0);
    let mut client = Client::connect(address, 20_000).unwrap();
    let mut other = Client::connect(address, 15_000).unwrap();
    client.create("/app", b"", mode::PERSISTENT);
    client.create("/app/größe-中文", "wörter".as_bytes(), mode::PERSISTENT);
    client.create("/app/big", &vec![0xa5; 1_000_000], mode::PERSISTENT);
    client.create("/box", b"", mode::CONTAINER);
    client.create("/box/in", b"x", mode::PERSISTENT);
    client.create_ttl("/short", b"ttl", 3_600_000);
    let secret = acl(PERM_ALL, "digest", "alice:aYXlLOpEooaV1cRAvUL1fp9Qt7E=");
    client.create_with("/secret", b"s", mode::PERSISTENT, vec![secret]);
    let readers = vec![acl(PERM_READ, "world", "anyone"), acl(3, "ip", "127.0.0.1")];
    client.create("/app/acl", b"", mode::PERSISTENT);
    client.set_acl("/app/acl", readers).unwrap();
    client.create("/queue", b"", mode::PERSISTENT);
    for turn in 0..120 {
        let name = client.create("/queue/n-", turn.to_string().as_bytes(), mode::SEQUENTIAL);
        if turn % 3 == 0 {
            client.delete(&name).unwrap();
        } else {
            client.set(&name, (turn % 2 == 0).then_some(b"new".as_slice())).unwrap();
        }
        other.create("/queue/e-", b"", mode::EPHEMERAL_SEQUENTIAL);
    }
    let create = |path| {
        let data = Some(b"m".as_slice());
        MultiOp::Create(CreateRequest { path, data, acl: vec![Acl::open()], flags: 0 })
    };
    client.multi(vec![
        create("/app/m"),
        create("/app/m/child"),
        MultiOp::SetData(SetDataRequest { path: "/app", data: Some(b"by multi"), version: 0 }),
        MultiOp::Check(VersionRequest { path: "/app/acl", version: 0 }),
        MultiOp::Delete(VersionRequest { path: "/app/m/child", version: -1 }),
    ]);
    // Nothing of this one happens.
    client.multi(vec![
        create("/app/never"),
        MultiOp::Check(VersionRequest { path: "/app", version: 77 }),
    ]);
    assert_eq!(client.delete("/nowhere"), Err(-101));
    let mut third = Client::connect(address, 4_000).unwrap();
    third.create("/gone", b"", mode::EPHEMERAL);
    third.close();
    vec![client, other]
}

/// A server that is killed while sessions are open; its directory holds several snapshots.
fn killed(packing: &str) -> ZooKeeper {
    let options = Options::default().property("snapCount", "120");
    let options = match packing {
        "" => options,
        packing => options.property("snapshot.compression.method", packing),
    };
    let mut zookeeper = ZooKeeper::standalone(options);
    let clients = fill(&zookeeper);
    // Snapshots are written beside the changes.
    let dir = zookeeper.data_dir(0).to_owned();
    wait_until("a snapshot behind the first", LONG, || {
        let dir = DataDir::find(&dir, None).map_err(|error| error.to_string())?;
        let zxid = dir.newest_snapshot().map_err(|error| error.to_string())?.zxid();
        if zxid > 0 { Ok(()) } else { Err("only the first".to_owned()) }
    });
    zookeeper.kill(0);
    drop(clients);
    zookeeper
}

#[test]
fn what_a_server_wrote_is_read_and_proven_however_it_is_packed() {
    for (name, packing) in [("", Packing::None), ("gz", Packing::Gzip), ("snappy", Packing::Snappy)]
    {
        let zookeeper = killed(name);
        let dir = DataDir::find(zookeeper.data_dir(0), None).unwrap();
        let (newest, contents) = dir.newest_snapshot().unwrap().snapshot.unwrap();
        assert!(contents.nodes > 10);
        assert_eq!(read_snapshot(&newest.path, newest.zxid).2, packing, "{name}");

        // From nothing, every transaction's digest is the tree's.
        let first = &dir.snapshots()[0];
        assert_eq!(first.zxid, 0);
        let whole = replay(&dir, &first.path, 0);
        assert_eq!(whole.proven.1, 0, "{:?}", whole.proven);
        assert!(whole.proven.0 > 370, "{:?}", whole.proven);
        assert_eq!(whole.sessions.len(), 2);
        assert_eq!(whole.nodes["/app"].data.as_deref(), Some(b"by multi".as_slice()));
        assert_eq!(whole.nodes["/app/big"].data.as_ref().unwrap().len(), 1_000_000);
        assert!(!whole.nodes.contains_key("/gone") && !whole.nodes.contains_key("/app/never"));
        assert_eq!(whole.nodes["/queue"].stat.cversion, 240, "persisted: only what was made");

        // From the newest one, which was written while changes went on, to the same tree.
        let (mut tree, ..) = read_snapshot(&newest.path, newest.zxid);
        let mut transactions = dir.transactions(newest.zxid);
        while let Some((_, bytes)) = transactions.next_transaction().unwrap() {
            tree.apply(bytes);
        }
        assert_eq!(transactions.last_zxid(), whole.zxid);
        assert!(transactions.used().iter().all(|log| log.end == Some(LogEnd::Whole)));
        assert_eq!(tree.common().difference(&whole.common()), None);
    }
}

#[test]
fn the_same_rows_give_the_same_file() {
    let zookeeper = killed("");
    let dir = DataDir::find(zookeeper.data_dir(0), None).unwrap();
    for file in dir.snapshots() {
        let bytes = fs::read(&file.path).unwrap();
        let (mut sessions, mut acls) = (Vec::new(), Vec::new());
        let mut nodes = Vec::new();
        let mut reader = SnapshotReader::open(bytes.as_slice()).unwrap();
        while let Some(row) = reader.next_row().unwrap() {
            match row {
                Row::Session(session) => sessions.push(session),
                Row::Acl(acl) => acls.push(acl),
                Row::Node(NodeRow { path, data, acl, stat }) => {
                    nodes.push((path.to_owned(), data.map(<[u8]>::to_vec), acl, stat));
                }
            }
        }
        let mut writer = SnapshotWriter::new(Vec::new(), sessions.iter(), acls.iter()).unwrap();
        for (path, data, acl, stat) in &nodes {
            let (data, acl, stat) = (data.as_deref(), *acl, *stat);
            writer.node(&NodeRow { path, data, acl, stat }).unwrap();
        }
        let written = writer.finish(reader.tail().unwrap()).unwrap();
        assert!(written == bytes, "{} is written differently", file.path.display());
    }
}

/// Writes a tree as a snapshot.
fn write_snapshot(tree: &Tree, dir: &Path) -> PathBuf {
    let sessions: Vec<_> = tree
        .sessions
        .iter()
        .map(|(id, timeout)| SessionRow { id: *id, timeout: *timeout })
        .collect();
    let mut acls: Vec<AclRow> = Vec::new();
    let mut key_of = |acl: &[Acl]| {
        if acl == [Acl::open()] {
            return OPEN_ACL_KEY;
        }
        let known = acls.iter().find(|row| row.acl == acl).map(|row| row.key);
        known.unwrap_or_else(|| {
            let key = acls.len() as i64 + 1;
            acls.push(AclRow { key, acl: acl.to_vec() });
            key
        })
    };
    let keys: Vec<_> =
        tree.nodes.values().map(|node| key_of(node.acl.as_deref().unwrap())).collect();
    let path = dir.join(snapshot_name(tree.zxid));
    let out = File::create_new(&path).unwrap();
    let mut writer = SnapshotWriter::new(out, sessions.iter(), acls.iter()).unwrap();
    for ((path, node), acl) in tree.nodes.iter().zip(keys) {
        let path = if path == "/" { "" } else { path };
        writer.node(&NodeRow { path, data: node.data.as_deref(), acl, stat: node.stat }).unwrap();
    }
    let digest = SnapshotDigest { zxid: tree.zxid, version: 2, digest: tree.digest() };
    writer.finish(Tail { digest: Some(digest), last_zxid: None }).unwrap();
    path
}

#[test]
fn a_real_server_starts_from_what_was_written() {
    let source = killed("");
    let dir = DataDir::find(source.data_dir(0), None).unwrap();
    // A snapshot in the middle, and a log of all that came later.
    let mut tree = Tree::default();
    let (first, ..) = read_snapshot(&dir.snapshots()[0].path, 0);
    tree.clone_from(&first);
    let mut transactions = dir.transactions(0);
    for _ in 0..200 {
        tree.apply(transactions.next_transaction().unwrap().unwrap().1);
    }
    let mut target = ZooKeeper::prepared(1, Options::default());
    let files = target.data_dir(0).join("version-2");
    fs::create_dir_all(&files).unwrap();
    let snapshot = write_snapshot(&tree, &files);
    let written = read_snapshot(&snapshot, tree.zxid).0;
    assert_eq!(written.common().difference(&tree.clone().common()), None);
    let log = File::create_new(files.join(log_name(tree.zxid + 1))).unwrap();
    let mut log = LogWriter::new(log).unwrap();
    while let Some((_, bytes)) = transactions.next_transaction().unwrap() {
        tree.apply(bytes);
        log.append(bytes).unwrap();
    }
    log.finish().unwrap();
    let last = tree.zxid;

    target.start_all();
    assert_eq!(target.zxid(0), Some(last));
    // The server counts its root twice.
    assert_eq!(target.mntr(0, "zk_znode_count"), Some((tree.nodes.len() + 1).to_string()));
    assert_eq!(target.mntr(0, "zk_digest_mismatches_count").as_deref(), Some("0"));
    let log = target.log(0);
    assert!(!log.contains("Digests are not matching"), "{log}");

    // It goes on from there, and its own digests say that its tree is ours. Sequence numbers too.
    let mut client = Client::connect(target.client_address(0), 10_000).unwrap();
    let name = client.create("/queue/n-", b"", mode::SEQUENTIAL);
    assert_eq!(name, "/queue/n-0000000240");
    client.set("/app/größe-中文", None).unwrap();
    let dir = DataDir::find(target.data_dir(0), None).unwrap();
    let mut transactions = dir.transactions(last);
    let before = tree.proven.0;
    wait_until("the server's log", LONG, || {
        while let Some((_, bytes)) =
            transactions.poll_transaction().map_err(|error| error.to_string())?
        {
            tree.apply(bytes);
        }
        if tree.proven.0 >= before + 3 { Ok(()) } else { Err(format!("{:?}", tree.proven)) }
    });
    assert_eq!(tree.proven.1, 0, "{:?}", tree.proven);
    assert!(tree.nodes.contains_key(&name));
}

#[test]
fn a_log_is_followed_while_its_server_writes() {
    let zookeeper = ZooKeeper::standalone(Options::default().property("snapCount", "100"));
    let dir = DataDir::find(zookeeper.data_dir(0), None).unwrap();
    let first = &dir.snapshots()[0];
    let (mut tree, ..) = read_snapshot(&first.path, first.zxid);
    let mut transactions = dir.transactions(first.zxid);
    let mut client = Client::connect(zookeeper.client_address(0), 10_000).unwrap();
    client.create("/n", b"", mode::PERSISTENT);
    for turn in 0..400_usize {
        client.set("/n", Some(&vec![b'x'; turn * 50])).unwrap();
        while let Some((_, bytes)) = transactions.poll_transaction().unwrap() {
            tree.apply(bytes);
        }
    }
    let last = zookeeper.zxid(0).unwrap();
    wait_until("the last transaction", LONG, || {
        while let Some((_, bytes)) =
            transactions.poll_transaction().map_err(|error| error.to_string())?
        {
            tree.apply(bytes);
        }
        if tree.zxid == last { Ok(()) } else { Err(format!("at {:#x}", tree.zxid)) }
    });
    assert_eq!(tree.proven, (402, 0));
    assert!(transactions.used().len() > 2, "logs were changed: {:?}", transactions.used());
}

#[test]
fn in_a_locale_without_letters_digests_are_of_question_marks() {
    let options = Options::default().environment("LC_ALL", "C");
    let mut zookeeper = ZooKeeper::standalone(options);
    let mut client = Client::connect(zookeeper.client_address(0), 10_000).unwrap();
    client.create("/größe-中文", b"x", mode::PERSISTENT);
    zookeeper.stop(0);
    drop(client);
    let dir = DataDir::find(zookeeper.data_dir(0), None).unwrap();
    let mut tree = replay(&dir, &dir.snapshots()[0].path, 0);
    let mut digests = Vec::new();
    let mut transactions = dir.transactions(0);
    while let Some((_, bytes)) = transactions.next_transaction().unwrap() {
        digests.extend(bytes.last_chunk::<8>().map(|digest| i64::from_be_bytes(*digest)));
    }
    // The session may have been closed, which changes nothing here.
    assert_eq!(digests.last(), Some(&tree.digest_ascii()));
    assert_ne!(tree.digest_ascii(), tree.digest());
    tree.nodes.remove("/größe-中文");
    assert_ne!(digests.last(), Some(&tree.digest_ascii()));
}
