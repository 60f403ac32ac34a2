//! Nodes and imports as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::api::error::Problem;
use crate::api::view::time::Time;
use crate::api::view::zk::{ZkAcl, ZkImportRow, ZkMember, ZkNode, ZkPortSeen, ZkStat, ZkSummary};
use crate::jute::op::{Owner, PERM_ADMIN, PERM_CREATE, PERM_DELETE, PERM_READ, PERM_WRITE};
use crate::jute::{Acl, path};
use crate::limits::ZK_SERVERS_MAX;
use crate::model::time::Timestamp;
use crate::state::znodes::{Tree, ZkImport, ZkImportPhase, Znode};
use crate::zookeeper::observer::{EnsembleServer, read_config};

/// A number of a transaction or a session.
pub(super) fn hex(number: i64) -> String {
    format!("{number:#x}")
}

/// The number in such a text.
pub(super) fn number(what: &str, text: &str) -> Result<i64, Problem> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map(u64::cast_signed).map_err(|_| {
        Problem::bad_request(format!("{what} is {text:?}; write a hexadecimal number as 0x1f"))
    })
}

/// A path that may be a node's; `/` if none is given.
pub(super) fn checked(text: Option<String>) -> Result<String, Problem> {
    let text = text.unwrap_or_else(|| "/".to_owned());
    match path::check(&text) {
        Ok(()) => Ok(text),
        Err(why) => Err(Problem::invalid(format!("?path={text}: {why}"))),
    }
}

fn time(millis: i64) -> Time {
    Time(Timestamp(u64::try_from(millis).unwrap_or(0)))
}

pub(super) fn kind(node: &Znode) -> &'static str {
    match node.owner() {
        Owner::Persistent => "persistent",
        Owner::Session(_) => "ephemeral",
        Owner::Container => "container",
        Owner::Ttl(_) => "ttl",
    }
}

pub(super) fn stat(node: &Znode) -> ZkStat {
    let stat = node.stat();
    ZkStat {
        kind: kind(node).to_owned(),
        czxid: hex(stat.czxid),
        mzxid: hex(stat.mzxid),
        pzxid: hex(stat.pzxid),
        created_at: time(stat.ctime),
        modified_at: time(stat.mtime),
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        session: match node.owner() {
            Owner::Session(session) => Some(hex(session)),
            _ => None,
        },
        ttl_ms: match node.owner() {
            Owner::Ttl(millis) => Some(millis),
            _ => None,
        },
        bytes: node.data_len() as u64,
        children: node.children(),
    }
}

fn acl(entry: &Acl) -> ZkAcl {
    let letters = [
        (PERM_CREATE, 'c'),
        (PERM_DELETE, 'd'),
        (PERM_READ, 'r'),
        (PERM_WRITE, 'w'),
        (PERM_ADMIN, 'a'),
    ];
    let has = letters.iter().filter(|(bit, _)| entry.perms & bit != 0);
    ZkAcl {
        perms: has.map(|(_, letter)| letter).collect(),
        scheme: entry.id.scheme.clone(),
        id: entry.id.id.clone(),
    }
}

pub(super) fn node(tree: &Tree, path: &str, node: &Znode) -> ZkNode {
    ZkNode {
        path: path.to_owned(),
        data: node.data().map(|data| STANDARD.encode(data)),
        stat: stat(node),
        acl: tree.acl_of(node).iter().map(acl).collect(),
    }
}

pub(super) fn summary(tree: &Tree) -> ZkSummary {
    ZkSummary {
        zxid: hex(tree.zxid()),
        digest: digest(tree.digest()),
        nodes: tree.node_count() as u64,
        bytes: tree.data_bytes(),
        acls: tree.acl_count() as u64,
        sessions: tree.session_count() as u64,
        ephemerals: tree.ephemeral_count() as u64,
        mortals: tree.mortals().count() as u64,
        position: tree.change_count(),
    }
}

fn digest(digest: u64) -> String {
    format!("{digest:#018x}")
}

/// Stable, for programs.
fn phase(phase: ZkImportPhase) -> &'static str {
    match phase {
        ZkImportPhase::Copying => "copying",
        ZkImportPhase::CatchingUp => "catching_up",
        ZkImportPhase::Following => "following",
        ZkImportPhase::CutOver => "cut_over",
        ZkImportPhase::Stopped => "stopped",
        ZkImportPhase::Finished => "finished",
        ZkImportPhase::RolledBack => "rolled_back",
        ZkImportPhase::Aborted => "aborted",
    }
}

/// An import; `live` is what clients see, which is the copy once it is cut over.
pub(super) fn import(name: &str, import: &ZkImport, live: &Tree) -> ZkImportRow {
    let status = &import.status;
    let tree = match status.phase {
        ZkImportPhase::CutOver | ZkImportPhase::Finished => live,
        _ => &import.tree,
    };
    ZkImportRow {
        name: name.to_owned(),
        source: status.source.clone(),
        live: status.live,
        phase: phase(status.phase).to_owned(),
        reason: status.reason.clone(),
        generation: status.generation,
        attempt: status.attempt,
        keeps_closed: status.keeps_closed,
        ports_seen: status.ports_seen.iter().map(port_seen).collect(),
        members: members(&import.tree),
        next_chunk: status.next_chunk,
        zxid: hex(tree.zxid()),
        digest: digest(tree.digest()),
        digest_ascii: digest(tree.digest_ascii()),
        nodes: tree.node_count() as u64,
        bytes: tree.data_bytes(),
        sessions: tree.session_count() as u64,
        ephemerals: tree.ephemeral_count() as u64,
        transactions: status.transactions,
        proven: status.proven,
        mismatches: status.mismatches,
        unverified_since: status.unverified_since.map(hex),
        compared_at: status.compared_at.map(hex),
        compare_since: status.compare_since.map(hex),
        source_zxid: hex(status.source_zxid),
        lag_transactions: lag(status.source_zxid, tree.zxid()),
        lag_ms: match status.source_zxid > tree.zxid() {
            true => status.heard_at.since(status.zxid_at).0,
            false => 0,
        },
        heard: status.heard,
        shortest_timeout_ms: tree.sessions().map(|(_, session)| session.timeout).min(),
        started_at: status.started_at.into(),
        heard_at: status.heard_at.into(),
        cut_over_at: status.cut_over_at.map(Into::into),
        cut_over_zxid: status.cut_over_zxid.map(hex),
    }
}

fn port_seen(seen: &crate::state::znodes::ZkPortSeen) -> ZkPortSeen {
    let (address, from) = (seen.address.clone(), seen.from.clone());
    ZkPortSeen { address, from, at: seen.at.into() }
}

/// Who belongs to the ensemble that a copy is of: it has a list of its own among its nodes.
fn members(copy: &Tree) -> Vec<ZkMember> {
    let config = copy.get("/zookeeper/config").and_then(|node| node.data()).unwrap_or_default();
    let servers = read_config(&String::from_utf8_lossy(config)).into_iter().take(ZK_SERVERS_MAX);
    let member = |EnsembleServer { id, quorum, client, .. }| ZkMember { id, quorum, client };
    servers.map(member).collect()
}

/// Transactions between two, if no epoch lies between them. An epoch that has just begun has none.
fn lag(source: i64, copy: i64) -> Option<u64> {
    if source <= copy || source & 0xffff_ffff == 0 {
        return Some(0);
    }
    (source >> 32 == copy >> 32).then(|| source.abs_diff(copy))
}
