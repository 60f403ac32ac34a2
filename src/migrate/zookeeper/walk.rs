//! A copy as one of the ensemble's clients: node by node, while others go on. What clients are not
//! shown does not come along, and it is no picture of one moment unless nobody wrote meanwhile.

use std::collections::{BTreeMap, VecDeque};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::jute::file::{AclRow, NodeRow, OPEN_ACL_KEY};
use crate::jute::rows::Row;
use crate::jute::{Acl, ErrorCode, Stat, StatPersisted, path};
use crate::limits::{ZK_EXAMPLES_MAX, ZK_WALK_NODES_AT_ONCE};
use crate::zookeeper::client::{Client, ClientError};

/// What such a copy came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walked {
    /// Nodes copied.
    pub nodes: u64,
    /// Ephemeral nodes, which stay behind.
    pub ephemerals: u64,
    /// The newest transaction when it began and when it ended: the same if nobody wrote.
    pub zxids: (i64, i64),
    /// Nodes that went away before they could be read.
    pub gone: u64,
}

/// Why it ended before the end.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A node can't be read.
    #[error("{path}: {error}")]
    Node {
        /// Which one.
        path: String,
        /// Why not.
        error: ClientError,
    },
    /// Nodes that only others may read.
    #[error(
        "{count} nodes may not be read, or their access lists not: {}; say who you are with --auth \
         (digest:USER:PASSWORD of the super user, or of whoever may read them)", examples.join(", ")
    )]
    NoAuth {
        /// How many.
        count: u64,
        /// The first few.
        examples: Vec<String>,
    },
    /// Who takes the rows does not want more of them.
    #[error("{0}")]
    NotTaken(String),
}

/// A node as it was read.
struct Read {
    path: String,
    data: Option<Vec<u8>>,
    acl: Vec<Acl>,
    stat: Stat,
    children: Vec<String>,
}

/// Reads all nodes at and below `top` that the client sees, each after the one above it; rows go to
/// `take`.
///
/// # Errors
/// See [`WalkError`].
pub async fn walk(
    client: &Client,
    top: &str,
    mut take: impl AsyncFnMut(&Row<'_>) -> Result<(), String>,
) -> Result<Walked, WalkError> {
    let at_root = |error| WalkError::Node { path: "/".to_owned(), error };
    client.sync("/").await.map_err(at_root)?;
    let began = client.last_zxid();
    let mut waiting = VecDeque::from([top.to_owned()]);
    let mut reading = FuturesUnordered::new();
    let mut acls = AclKeys::default();
    let mut walked = Walked { zxids: (began, began), ..Walked::default() };
    let (mut forbidden, mut examples) = (0, Vec::new());
    loop {
        while reading.len() < ZK_WALK_NODES_AT_ONCE
            && let Some(path) = waiting.pop_front()
        {
            reading.push(read(client, path));
        }
        let Some((path, outcome)) = reading.next().await else { break };
        let node = match outcome {
            Ok(node) => node,
            Err(ClientError::Refused(ErrorCode::NoNode)) if path != top => {
                walked.gone += 1;
                continue;
            }
            Err(ClientError::Refused(ErrorCode::NoAuth)) => {
                forbidden += 1;
                if examples.len() < ZK_EXAMPLES_MAX {
                    examples.push(path);
                }
                continue;
            }
            Err(error) => return Err(WalkError::Node { path, error }),
        };
        if node.stat.ephemeral_owner != 0 {
            walked.ephemerals += 1;
            continue;
        }
        let (key, new) = acls.key_of(&node.acl);
        if new {
            let row = Row::Acl(AclRow { key, acl: node.acl.clone() });
            take(&row).await.map_err(WalkError::NotTaken)?;
        }
        let name = if node.path == "/" { "" } else { node.path.as_str() };
        let data = node.data.as_deref();
        let row = NodeRow { path: name, data, acl: key, stat: persisted(&node.stat) };
        take(&Row::Node(row)).await.map_err(WalkError::NotTaken)?;
        walked.nodes += 1;
        waiting.extend(node.children.iter().map(|name| path::join(&node.path, name)));
    }
    if forbidden > 0 {
        return Err(WalkError::NoAuth { count: forbidden, examples });
    }
    client.sync("/").await.map_err(at_root)?;
    walked.zxids.1 = client.last_zxid();
    Ok(walked)
}

async fn read(client: &Client, path: String) -> (String, Result<Read, ClientError>) {
    let outcome = async {
        let (data, acl) = tokio::join!(client.get_data(&path, false), client.get_acl(&path));
        let ((data, mut stat), (acl, _)) = (data?, acl?);
        // Hashes of passwords are hidden from those who may not change the list.
        if acl.iter().any(|entry| entry.id.scheme == "digest" && entry.id.id.ends_with(":x")) {
            return Err(ClientError::Refused(ErrorCode::NoAuth));
        }
        let mut children = Vec::new();
        if stat.num_children > 0 {
            // How many were made and how many there are: the next number hangs on both.
            let later;
            (children, later) = client.get_children(&path, false).await?;
            (stat.cversion, stat.num_children) = (later.cversion, later.num_children);
            stat.pzxid = later.pzxid;
        }
        Ok(Read { path: path.clone(), data, acl, stat, children })
    };
    let outcome = outcome.await;
    (path, outcome)
}

/// As files have it: clients are shown a `cversion` that counts children removed as well, and
/// sequential names go on from what it was made of.
fn persisted(stat: &Stat) -> StatPersisted {
    StatPersisted {
        czxid: stat.czxid,
        mzxid: stat.mzxid,
        ctime: stat.ctime,
        mtime: stat.mtime,
        version: stat.version,
        cversion: stat.cversion.wrapping_add(stat.num_children) / 2,
        aversion: stat.aversion,
        ephemeral_owner: 0,
        pzxid: stat.pzxid,
    }
}

/// Numbers for access lists.
#[derive(Default)]
struct AclKeys(BTreeMap<Vec<Acl>, i64>);

impl AclKeys {
    /// The number of a list, and whether it is new.
    fn key_of(&mut self, acl: &[Acl]) -> (i64, bool) {
        if *acl == [Acl::open()] {
            return (OPEN_ACL_KEY, false);
        }
        if let Some(key) = self.0.get(acl) {
            return (*key, false);
        }
        let key = self.0.len() as i64 + 1;
        self.0.insert(acl.to_vec(), key);
        (key, true)
    }
}

/// What this way does not carry.
pub fn losses(walked: &Walked) -> Vec<String> {
    let mut losses = vec![
        "times to live and containers: clients are not shown them, so those nodes are plain ones \
         here and stay until somebody removes them"
            .to_owned(),
        "sessions: clients begin new ones".to_owned(),
    ];
    if walked.ephemerals > 0 {
        losses.push(format!("{} ephemeral nodes, which go with their sessions", walked.ephemerals));
    }
    let (began, ended) = walked.zxids;
    if began != ended || walked.gone > 0 {
        losses.push(format!(
            "one moment: the source was written from {began:#x} to {ended:#x} while it was read, \
             so nodes are of different moments; stop its writers, or use its learners' port or files"
        ));
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_sequential_nodes_go_on() {
        // 7 made, 4 of them removed: 7 + 4.
        let stat = Stat { cversion: 11, num_children: 3, ..Stat::default() };
        assert_eq!(persisted(&stat).cversion, 7);
    }

    #[test]
    fn a_list_has_one_number() {
        let mut keys = AclKeys::default();
        let mut list = vec![Acl::open()];
        assert_eq!(keys.key_of(&list), (OPEN_ACL_KEY, false));
        list[0].perms = 1;
        assert_eq!((keys.key_of(&list), keys.key_of(&list)), ((1, true), (1, false)));
    }

    #[test]
    fn losses_are_told() {
        let still = Walked { zxids: (5, 5), ..Walked::default() };
        assert_eq!(losses(&still).len(), 2);
        let moving = Walked { zxids: (5, 6), ephemerals: 2, ..Walked::default() };
        assert!(losses(&moving).join(" ").contains("0x5 to 0x6"));
        assert_eq!(losses(&moving).len(), 4);
    }
}
