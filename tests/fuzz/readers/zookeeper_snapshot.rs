//! Snapshot files of ZooKeeper's.

use orch::jute::file::NodeRow;
use orch::jute::rows::Row;
use orch::zookeeper::snapshot_file::{self, SnapshotReader, SnapshotWriter};

/// A snapshot file of ZooKeeper's: what is whole is written again as it was, unless it was packed.
pub fn feed(data: &[u8]) {
    let Ok(contents) = snapshot_file::verify(data) else { return };
    if contents.tail.digest.is_some_and(|digest| digest.version < 2) {
        // Only the newer form is written.
        return;
    }
    let Ok(mut reader) = SnapshotReader::open(data) else { panic!("it was read before") };
    let (mut sessions, mut acls) = (Vec::new(), Vec::new());
    let mut nodes = Vec::new();
    while let Some(row) = reader.next_row().expect("it was read before") {
        match row {
            Row::Session(session) => sessions.push(session),
            Row::Acl(acl) => acls.push(acl),
            Row::Node(node) => {
                nodes.push((
                    node.path.to_owned(),
                    node.data.map(<[u8]>::to_vec),
                    node.acl,
                    node.stat,
                ));
            }
        }
    }
    assert_eq!(
        (sessions.len() as u64, acls.len() as u64, nodes.len() as u64),
        (contents.sessions, contents.acls, contents.nodes)
    );
    let mut writer = SnapshotWriter::new(Vec::new(), sessions.iter(), acls.iter()).expect("memory");
    for (path, data, acl, stat) in &nodes {
        let node = NodeRow { path, data: data.as_deref(), acl: *acl, stat: *stat };
        writer.node(&node).expect("memory takes it");
    }
    let written = writer.finish(contents.tail).expect("memory takes it");
    let again = snapshot_file::verify(written.as_slice()).expect("what was written reads");
    assert_eq!((again.nodes, again.tail), (contents.nodes, contents.tail));
}
