//! What the other tests here stand on: real servers start, are killed, and come back.

use crate::support::zookeeper::{Options, ZooKeeper};
use crate::support::{LONG, wait_until};

#[test]
fn a_standalone_server_comes_back_after_a_kill() {
    let mut zookeeper = ZooKeeper::standalone(Options::default());
    assert_eq!(zookeeper.mode(0).as_deref(), Some("standalone"));
    assert_eq!(zookeeper.mntr(0, "zk_znode_count").as_deref(), Some("5"));
    zookeeper.kill(0);
    assert_eq!(zookeeper.mode(0), None);
    zookeeper.start_all();
    assert_eq!(zookeeper.mode(0).as_deref(), Some("standalone"));
    assert!(zookeeper.data_dir(0).join("version-2").is_dir());
}

#[test]
fn an_ensemble_elects_another_leader() {
    let mut zookeeper = ZooKeeper::ensemble(3, Options::default());
    let first = zookeeper.leader();
    zookeeper.kill(first);
    let second = wait_until("another leader", LONG, || {
        let second = zookeeper.leader();
        if second == first { Err("still the old one".to_owned()) } else { Ok(second) }
    });
    zookeeper.start_all();
    assert_eq!(zookeeper.mode(first).as_deref(), Some("follower"));
    assert_eq!(zookeeper.leader(), second);
    assert_eq!(zookeeper.connect_string().split(',').count(), zookeeper.count());
}
