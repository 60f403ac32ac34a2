//! What two trees differ in: everything that a copy must have, access lists and sessions too.

use super::node::Znode;
use super::tree::Tree;
use crate::jute::path;

/// Each server of an ensemble has its own data under here.
fn is_each_servers_own(path: &str) -> bool {
    path != "/zookeeper" && path::is_within(path, "/zookeeper")
}

impl Tree {
    /// The first thing that is not the same in `other`, which is another copy of the same source.
    pub fn difference(&self, other: &Self) -> Option<String> {
        self.nodes_differ(other).or_else(|| self.sessions_differ(other))
    }

    fn nodes_differ(&self, other: &Self) -> Option<String> {
        let (mut mine, mut theirs) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            while mine.next_if(|(key, _)| is_each_servers_own(&key.0)).is_some() {}
            while theirs.next_if(|(key, _)| is_each_servers_own(&key.0)).is_some() {}
            match (mine.peek(), theirs.peek()) {
                (None, None) => return None,
                (Some((key, _)), None) => return Some(format!("{} is not in the source", key.0)),
                (None, Some((key, _))) => return Some(format!("{} is missing", key.0)),
                (Some((a, _)), Some((b, _))) if a < b => {
                    return Some(format!("{} is not in the source", a.0));
                }
                (Some((a, _)), Some((b, _))) if a > b => {
                    return Some(format!("{} is missing", b.0));
                }
                (Some((key, a)), Some((_, b))) => {
                    if let Some(what) = self.node_differs(a, other, b) {
                        return Some(format!("{}: {what}", key.0));
                    }
                }
            }
            mine.next();
            theirs.next();
        }
    }

    fn node_differs(&self, mine: &Znode, other: &Self, theirs: &Znode) -> Option<&'static str> {
        if mine.persisted() != theirs.persisted() {
            return Some("its stat is another");
        }
        if mine.data() != theirs.data() {
            return Some("its data are others");
        }
        (self.acl_of(mine) != other.acl_of(theirs)).then_some("its access list is another")
    }

    fn sessions_differ(&self, other: &Self) -> Option<String> {
        for (id, session) in &self.sessions {
            match other.sessions.get(id) {
                None => return Some(format!("session {id:#x} is not in the source")),
                Some(theirs) if theirs.timeout != session.timeout => {
                    return Some(format!("session {id:#x} has another time-out"));
                }
                Some(_) => {}
            }
        }
        let missing = other.sessions.keys().find(|id| !self.sessions.contains_key(*id));
        missing.map(|id| format!("session {id:#x} is missing"))
    }
}
