//! A tree that was brought, or a part of it, goes into the one that clients see.

use std::sync::Arc;

use super::acl;
use super::import::{ZkImport, refuse};
use super::import_step::{ZkExisting, ZkImportPhase};
use super::node::Znode;
use super::tree::Tree;
use crate::jute::op::Owner;
use crate::jute::{StatPersisted, path};
use crate::state::apply::Change;
use crate::state::{Rejected, RejectedCode};

impl Change<'_> {
    /// See [`super::ZkImportStep::Merge`]. Nothing has changed if it is refused.
    pub(super) fn zk_merge(
        &mut self,
        import: &mut ZkImport,
        at: &str,
        only: &str,
        existing: ZkExisting,
    ) -> Result<(), Rejected> {
        for (what, place) in [("--at", at), ("--only", only)] {
            path::check(place).map_err(|error| {
                refuse(RejectedCode::Invalid, format!("{what} {place:?}: {error}"))
            })?;
        }
        let mut copy = std::mem::replace(&mut import.tree, Tree::empty());
        if copy.get(only).is_none() {
            return Err(Rejected::not_found("node in the source", only));
        }
        let whole = at == "/" && only == "/";
        if whole && matches!(existing, ZkExisting::Refuse | ZkExisting::Replace) {
            if existing == ZkExisting::Refuse {
                self.zk_must_be_new()?;
            }
            // Only so its quotas come along, and in this phase nobody may have counted yet.
            if import.status.phase == ZkImportPhase::CatchingUp {
                copy.quota_count_all();
            }
            self.zk_put_tree(copy);
            return Ok(());
        }
        let nodes = copy.walk(only).filter(|(path, node)| {
            // The system's own nodes stay what they are, and ephemeral ones have no session here.
            !path::is_within(path, "/zookeeper") && !matches!(node.owner(), Owner::Session(_))
        });
        let nodes: Vec<(String, Znode)> =
            nodes.map(|(path, node)| (place_of(path, at, only), node.clone())).collect();
        if nodes.is_empty() {
            let message = format!(
                "nothing of {only} can come here: ephemeral nodes and those of /zookeeper stay \
                 behind"
            );
            return Err(refuse(RejectedCode::Invalid, message));
        }
        may_be_put(&self.state.zk, at, &nodes, existing)?;

        let zxid = self.state.zk.zxid.max(copy.zxid) + 1;
        let now = self.stamp.at.0 as i64;
        let live = &mut self.state.zk;
        if existing == ZkExisting::Replace {
            live.clear(at, zxid);
        }
        let before = live.nodes.clone();
        live.make_above(at, zxid, now);
        for (path, node) in nodes {
            let acl = copy.acls.list(node.acl());
            match live.get(&path) {
                Some(old) => {
                    // Or numbers of sequential nodes would come again.
                    let had = old.persisted();
                    let made = had.cversion.max(node.persisted().cversion);
                    let root_of_its_own = path == "/" && !whole;
                    if existing != ZkExisting::Keep && !root_of_its_own {
                        let version = had.version.wrapping_add(1);
                        let aversion = had.aversion.wrapping_add(1);
                        let acl = live.acls.id_of(acl);
                        live.set_data(&path, node.data(), version, zxid, now);
                        live.set_acl(&path, acl, aversion);
                    }
                    live.change_stat(&path, |stat| stat.cversion = made);
                }
                None => {
                    let acl = live.acls.id_of(acl);
                    let node = Znode::new(&path, node.data(), acl, node.persisted());
                    let parent = path::split(&path).map_or("/", |(parent, _)| parent);
                    // A parent that came along has counted its children already.
                    match path == at || before.contains_key(&super::key::At::new(parent)) {
                        true => live.insert_counted(&path, node, zxid),
                        false => live.insert(&path, node),
                    }
                }
            }
        }
        live.quota_settle();
        live.zxid = zxid;
        Ok(())
    }
}

/// Where a node at or below `only` comes to.
fn place_of(path: &str, at: &str, only: &str) -> String {
    let below = if only == "/" { path } else { &path[only.len()..] };
    match (at, below) {
        (at, "" | "/") => at.to_owned(),
        ("/", below) => below.to_owned(),
        (at, below) => format!("{at}{below}"),
    }
}

/// Refuses if a node is there already and may not be, or can't have children.
fn may_be_put(
    live: &Tree,
    at: &str,
    nodes: &[(String, Znode)],
    existing: ZkExisting,
) -> Result<(), Rejected> {
    let there = |(path, _): &&(String, Znode)| path != "/" && live.get(path).is_some();
    if existing == ZkExisting::Refuse
        && let Some((path, _)) = nodes.iter().find(there)
    {
        let message = format!("there is a node {path} already; say what to do with --existing");
        return Err(refuse(RejectedCode::Conflict, message));
    }
    let mortal =
        |path: &str| live.get(path).is_some_and(|node| matches!(node.owner(), Owner::Session(_)));
    let parents = nodes.iter().filter_map(|(path, _)| path::split(path)).map(|(above, _)| above);
    let replaced = |path: &&str| existing == ZkExisting::Replace && path::is_within(path, at);
    let above_at = std::iter::successors(path::split(at), |(above, _)| path::split(above));
    let parents = parents.filter(|path| !replaced(path)).chain(above_at.map(|(above, _)| above));
    match parents.into_iter().find(|path| mortal(path)) {
        Some(path) => {
            let message = format!("the node {path} here is ephemeral and can't have children");
            Err(refuse(RejectedCode::Conflict, message))
        }
        None => Ok(()),
    }
}

impl Tree {
    /// Removes all at and below `top`, but the root and what every ensemble has.
    fn clear(&mut self, top: &str, zxid: i64) {
        let old: Vec<Arc<str>> = self
            .walk(top)
            .map(|(path, _)| Arc::from(path))
            .filter(|path: &Arc<str>| &**path != "/" && !path::is_within(path, "/zookeeper"))
            .collect();
        for path in old.iter().rev() {
            self.remove(path, zxid);
        }
        if !old.is_empty() {
            let stays = path::split(top).map_or("/", |(above, _)| above);
            self.change_stat(stays, |stat| stat.pzxid = stat.pzxid.max(zxid));
        }
    }

    /// Puts a node below one that takes note of it, as when a client makes it.
    fn insert_counted(&mut self, path: &str, node: Znode, zxid: i64) {
        self.insert(path, node);
        if let Some((parent, _)) = path::split(path) {
            self.change_stat(parent, |stat| {
                stat.cversion = stat.cversion.wrapping_add(1);
                stat.pzxid = stat.pzxid.max(zxid);
            });
        }
    }

    /// Makes the nodes above `path` that are missing.
    fn make_above(&mut self, path: &str, zxid: i64, at: i64) {
        let mut missing = Vec::new();
        let mut next = path::split(path);
        while let Some((above, _)) = next
            && self.get(above).is_none()
        {
            missing.push(above);
            next = path::split(above);
        }
        for above in missing.into_iter().rev() {
            let stat = StatPersisted {
                czxid: zxid,
                mzxid: zxid,
                pzxid: zxid,
                ctime: at,
                mtime: at,
                ..StatPersisted::default()
            };
            self.insert_counted(above, Znode::new(above, None, acl::OPEN, stat), zxid);
        }
    }
}
