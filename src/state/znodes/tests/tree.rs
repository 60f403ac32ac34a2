//! What holds of every tree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::jute::op::Owner;
use crate::jute::path;
use crate::state::znodes::{Tree, digest};

/// Counts, indexes and the digest are what a fresh look at all nodes comes to.
pub(super) fn assert_whole(tree: &Tree) {
    let (mut sum, mut ascii, mut bytes) = (0_u64, 0_u64, 0_u64);
    let mut children = BTreeMap::<String, u32>::new();
    let (mut ephemerals, mut mortals) = (Vec::new(), Vec::new());
    let mut walked = 0;
    for (path, node) in tree.walk("/") {
        walked += 1;
        bytes += (node.data_len() + path.len()) as u64;
        assert_eq!(node.crc, digest::of(path, node.data(), node.persisted()), "{path}");
        if digest::counts(path) {
            sum = sum.wrapping_add(u64::from(node.crc));
            let crc = digest::of_ascii(path, node.data(), node.persisted());
            ascii = ascii.wrapping_add(u64::from(crc));
        }
        if let Some((parent, _)) = path::split(path) {
            assert!(tree.get(parent).is_some(), "{path} has no parent");
            *children.entry(parent.to_owned()).or_default() += 1;
        }
        match node.owner() {
            Owner::Session(session) => ephemerals.push((session, Arc::<str>::from(path))),
            Owner::Container | Owner::Ttl(_) => mortals.push(Arc::<str>::from(path)),
            Owner::Persistent => {}
        }
    }
    assert_eq!(walked, tree.node_count(), "every node is reached from the root");
    for (path, node) in tree.walk("/") {
        assert_eq!(node.children(), children.get(path).copied().unwrap_or(0), "{path}");
    }
    let limits = tree.walk("/zookeeper/quota").filter_map(|(path, _)| {
        path.strip_prefix("/zookeeper/quota")?.strip_suffix("/zookeeper_limits")
    });
    let quotas: BTreeSet<&str> = limits.filter(|top| !top.is_empty()).collect();
    assert!(tree.quotas.iter().map(AsRef::as_ref).eq(quotas));
    ephemerals.sort();
    mortals.sort();
    assert_eq!(tree.ephemerals.iter().cloned().collect::<Vec<_>>(), ephemerals);
    assert_eq!(tree.mortals.iter().cloned().collect::<Vec<_>>(), mortals);
    for (session, path) in &ephemerals {
        assert!(tree.session(*session).is_some(), "{path} has outlived its session");
    }
    assert_eq!((tree.digest(), tree.digest_ascii(), tree.data_bytes()), (sum, ascii, bytes));
}

#[test]
fn a_new_tree_has_what_every_ensemble_has() {
    let tree = Tree::default();
    assert_whole(&tree);
    let paths: Vec<&str> = tree.walk("/").map(|(path, _)| path).collect();
    assert_eq!(paths, ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]);
    // As a server of ZooKeeper shows them.
    assert_eq!(tree.get("/").map(|node| node.stat().cversion), Some(-1));
    assert_eq!(tree.get("/zookeeper").map(|node| node.stat().cversion), Some(-2));
}
