//! What a tree holds, counted while its rows pass by, and what that means for a move.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::jute::digest;
use crate::jute::file::{NodeRow, OPEN_ACL_KEY};
use crate::jute::op::Owner;
use crate::jute::rows::Row;
use crate::limits::{ZK_CHUNK_BYTES_MAX, ZK_EXAMPLES_MAX};

/// Bytes of data beyond which clients need another `jute.maxbuffer` than the usual one.
const USUAL_BUFFER: u64 = 0xf_ffff;

/// What a tree holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Inventory {
    /// Nodes.
    pub nodes: u64,
    /// Bytes of data.
    pub data_bytes: u64,
    /// Bytes of paths.
    pub path_bytes: u64,
    /// Sessions.
    pub sessions: u64,
    /// The shortest time-out of a session, in milliseconds.
    pub shortest_timeout_ms: Option<i32>,
    /// Different access lists, beside the open one.
    pub acls: u64,
    /// Nodes with another access list than the open one.
    pub restricted: u64,
    /// Schemes that access lists name.
    pub schemes: BTreeSet<String>,
    /// Ephemeral nodes.
    pub ephemerals: u64,
    /// Ephemeral nodes of sessions that are not there.
    pub orphans: u64,
    /// Container nodes.
    pub containers: u64,
    /// Nodes with a time to live.
    pub ttl: u64,
    /// Paths with a quota.
    pub quotas: u64,
    /// Whether the members of the ensemble are kept in the tree.
    pub reconfig: bool,
    /// Nodes that have made sequential children, or may have.
    pub counters: u64,
    /// Paths with letters beyond ASCII.
    pub non_ascii: u64,
    /// Nodes whose access list is not among those that came.
    pub unknown_acls: u64,
    /// The largest node and its bytes of data.
    pub largest: Option<(String, u64)>,
    /// Nodes of more than 1 MiB of data.
    pub over_1mib: u64,
    /// Nodes that are too large to come here.
    pub too_large: u64,
    /// The first few of those.
    pub too_large_examples: Vec<String>,
    /// The digest, as ZooKeeper 3.6 and later compute it.
    pub digest: u64,
    /// The same as a server computes whose character set is ASCII.
    pub digest_ascii: u64,
    #[serde(skip)]
    session_ids: BTreeSet<i64>,
    #[serde(skip)]
    acl_keys: BTreeSet<i64>,
}

impl Inventory {
    /// Counts a row.
    pub fn add(&mut self, row: &Row<'_>) {
        match row {
            Row::Session(session) => {
                self.sessions += 1;
                self.session_ids.insert(session.id);
                let shortest = self.shortest_timeout_ms.unwrap_or(i32::MAX);
                self.shortest_timeout_ms = Some(shortest.min(session.timeout));
            }
            Row::Acl(acl) => {
                self.acls += 1;
                self.acl_keys.insert(acl.key);
                for entry in &acl.acl {
                    if !self.schemes.contains(&entry.id.scheme) {
                        self.schemes.insert(entry.id.scheme.clone());
                    }
                }
            }
            Row::Node(node) => self.add_node(node),
        }
    }

    fn add_node(&mut self, node: &NodeRow<'_>) {
        let data = node.data.unwrap_or_default();
        let size = data.len() as u64;
        self.nodes += 1;
        self.data_bytes += size;
        self.path_bytes += node.path.len() as u64;
        self.restricted += u64::from(node.acl != OPEN_ACL_KEY);
        let known = node.acl == OPEN_ACL_KEY || self.acl_keys.contains(&node.acl);
        self.unknown_acls += u64::from(!known);
        match Owner::of(node.stat.ephemeral_owner) {
            Owner::Persistent => {}
            Owner::Session(session) => {
                self.ephemerals += 1;
                self.orphans += u64::from(!self.session_ids.contains(&session));
            }
            Owner::Container => self.containers += 1,
            Owner::Ttl(_) => self.ttl += 1,
        }
        self.counters += u64::from(node.stat.cversion > 0);
        if node.path.starts_with("/zookeeper/quota/") && node.path.ends_with("/zookeeper_limits") {
            self.quotas += 1;
        }
        if node.path == "/zookeeper/config" {
            self.reconfig |= size > 0;
        }
        let ascii = node.path.is_ascii();
        self.non_ascii += u64::from(!ascii);
        if size > self.largest.as_ref().map_or(0, |(_, size)| *size) {
            self.largest = Some((node.path.to_owned(), size));
        }
        self.over_1mib += u64::from(size > USUAL_BUFFER);
        // The row around the data takes some bytes as well.
        if size + node.path.len() as u64 + 100 > ZK_CHUNK_BYTES_MAX as u64 {
            self.too_large += 1;
            if self.too_large_examples.len() < ZK_EXAMPLES_MAX {
                self.too_large_examples.push(node.path.to_owned());
            }
        }
        if digest::counts(node.path) {
            let part = digest::of(node.path, node.data, &node.stat);
            self.digest = self.digest.wrapping_add(u64::from(part));
            let part = match ascii {
                true => part,
                false => digest::of_ascii(node.path, node.data, &node.stat),
            };
            self.digest_ascii = self.digest_ascii.wrapping_add(u64::from(part));
        }
    }

    /// What stands in the way of a copy.
    pub fn blockers(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.too_large > 0 {
            found.push(format!(
                "{} nodes have more data than the {ZK_CHUNK_BYTES_MAX} bytes that a node takes \
                 here: {}; make them smaller or remove them",
                self.too_large,
                self.too_large_examples.join(", ")
            ));
        }
        found
    }

    /// What is worth knowing before a move.
    pub fn remarks(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut say = |holds: bool, text: String| {
            if holds {
                found.push(text);
            }
        };
        say(
            self.reconfig,
            "the members of the ensemble are kept in /zookeeper/config; clients that read it find \
             what was there"
                .to_owned(),
        );
        say(
            self.quotas > 0,
            format!("{} paths have a quota: what they use is counted anew", self.quotas),
        );
        say(
            self.orphans > 0,
            format!(
                "{} ephemeral nodes belong to sessions that are not there; they stay until they \
                 are removed",
                self.orphans
            ),
        );
        say(
            self.over_1mib > 0,
            format!(
                "{} nodes have more than 1 MiB of data: clients need the jute.maxbuffer that they \
                 have now",
                self.over_1mib
            ),
        );
        for (scheme, what) in [
            (
                "sasl",
                "SASL: nobody can prove such an identity here, so only the super user gets in",
            ),
            ("x509", "X.509: clients must come over TLS with the certificates that they have now"),
        ] {
            say(self.schemes.contains(scheme), format!("access lists name identities of {what}"));
        }
        let others: Vec<&str> = self
            .schemes
            .iter()
            .map(String::as_str)
            .filter(|scheme| {
                !matches!(*scheme, "world" | "digest" | "ip" | "sasl" | "x509" | "auth" | "super")
            })
            .collect();
        say(
            !others.is_empty(),
            format!("access lists name schemes that are unknown here: {}", others.join(", ")),
        );
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jute::file::{AclRow, SessionRow};
    use crate::jute::op::CONTAINER_OWNER;
    use crate::jute::{Acl, Id, StatPersisted};

    #[test]
    fn what_passes_by_is_counted() {
        let mut inventory = Inventory::default();
        inventory.add(&Row::Session(SessionRow { id: 7, timeout: 4000 }));
        inventory.add(&Row::Session(SessionRow { id: 8, timeout: 2000 }));
        let id = Id { scheme: "sasl".into(), id: "bob".into() };
        inventory.add(&Row::Acl(AclRow { key: 1, acl: vec![Acl { perms: 31, id }] }));
        let mut node = |path: &str, data: &[u8], acl, ephemeral_owner| {
            let stat = StatPersisted { ephemeral_owner, ..StatPersisted::default() };
            inventory.add(&Row::Node(NodeRow { path, data: Some(data), acl, stat }));
        };
        node("", b"", -1, 0);
        node("/zookeeper", b"", -1, 0);
        node("/zookeeper/config", b"", -1, 0);
        node("/zookeeper/quota", b"", -1, 0);
        assert_eq!(inventory.digest, 1_371_985_504);
        let mut node = |path: &str, data: &[u8], acl, ephemeral_owner| {
            let stat = StatPersisted { ephemeral_owner, ..StatPersisted::default() };
            inventory.add(&Row::Node(NodeRow { path, data: Some(data), acl, stat }));
        };
        node("/zookeeper/quota/a/zookeeper_limits", b"count=1", -1, 0);
        node("/é", b"xyz", 1, 7);
        node("/f", b"", 2, 9);
        node("/c", b"", -1, CONTAINER_OWNER);
        node("/t", b"", -1, Owner::Ttl(5).number());
        node("/big", &vec![0; 2_000_000], -1, 0);
        assert_eq!((inventory.nodes, inventory.sessions, inventory.acls), (10, 2, 1));
        assert_eq!(inventory.shortest_timeout_ms, Some(2000));
        assert_eq!((inventory.ephemerals, inventory.orphans), (2, 1));
        assert_eq!((inventory.containers, inventory.ttl, inventory.quotas), (1, 1, 1));
        assert_eq!((inventory.restricted, inventory.unknown_acls), (2, 1));
        assert_eq!((inventory.non_ascii, inventory.over_1mib, inventory.too_large), (1, 1, 1));
        assert_ne!(inventory.digest, inventory.digest_ascii);
        assert!(inventory.blockers()[0].contains("/big"));
        let remarks = inventory.remarks().join("\n");
        for word in ["quota", "SASL", "1 MiB", "not there"] {
            assert!(remarks.contains(word), "{word}: {remarks}");
        }
    }
}
