//! Trees that come from elsewhere: their rows, the transactions behind them, and what becomes of
//! them.

use super::*;
use crate::jute::StatPersisted;
use crate::jute::file::{AclRow, NodeRow, SessionRow};
use crate::jute::op::CONTAINER_OWNER;
use crate::jute::txn::{
    CreateKind, CreateTxn, SetAclTxn, SetDataTxn, SubTxn, Transaction, Txn, TxnDigest, TxnHeader,
};
use crate::limits::{ZK_PORT_NAME_BYTES_MAX, ZK_PORTS_SEEN_MAX};
use crate::state::znodes::imported_password;
use crate::state::znodes::{
    ROW_ACL, ROW_NODE, ROW_SESSION, ZkExisting, ZkImport, ZkImportPhase, ZkImportStatus,
    ZkImportStep,
};
use crate::state::{Rejected, RejectedCode};

pub(super) const S: i64 = 5 << 32 | 0x10;
/// Of the first copy: the log's entry that began it.
pub(super) const G: u64 = 1;
const SESSION: i64 = 0x1000_0000_0000_0007;

pub(super) fn node(path: &str, data: &[u8], acl: i64, stat: StatPersisted) -> Vec<u8> {
    let mut bytes = vec![ROW_NODE];
    NodeRow { path, data: Some(data), acl, stat }.write(&mut bytes);
    bytes
}

fn owned(ephemeral_owner: i64) -> StatPersisted {
    StatPersisted { ephemeral_owner, czxid: 3, mzxid: 3, pzxid: 3, ..StatPersisted::default() }
}

/// A session, an access list, and a few nodes, in two lots.
pub(super) fn rows() -> [Vec<u8>; 2] {
    let mut first = vec![ROW_SESSION];
    SessionRow { id: SESSION, timeout: 9_000 }.write(&mut first);
    first.push(ROW_ACL);
    let acl = vec![Acl { perms: 1, id: id("world", "anyone") }];
    AclRow { key: 4, acl }.write(&mut first);
    first.extend(node("", b"", -1, StatPersisted::default()));
    first.extend(node("/zookeeper", b"", -1, StatPersisted::default()));
    let made = StatPersisted { cversion: 7, ..owned(0) };
    let second = [
        node("/app", b"data", 4, made),
        node("/app/mine", b"", -1, owned(SESSION)),
        node("/app/box", b"", -1, owned(CONTAINER_OWNER)),
        // Its list did not come: the server wrote while it changed.
        node("/app/odd", b"", 99, owned(0)),
    ];
    [first, second.concat()]
}

/// A transaction behind its length; its number is `S` and that many.
pub(super) fn transaction(behind: i64, txn: Txn<'_>, digest: Option<u64>) -> Vec<u8> {
    let op = match &txn {
        Txn::Create(create) => match create.kind {
            CreateKind::Container => Op::CreateContainer,
            CreateKind::Ttl(_) => Op::CreateTtl,
            _ => Op::Create2,
        },
        Txn::Delete(_) => Op::Delete,
        Txn::SetData(_) => Op::SetData,
        Txn::SetAcl(_) => Op::SetAcl,
        Txn::CreateSession(_) => Op::CreateSession,
        Txn::CloseSession(_) => Op::CloseSession,
        Txn::Multi(_) => Op::Multi,
        Txn::Check(_) => Op::Check,
        Txn::Error(_) => Op::Error,
    };
    let (zxid, op) = (S + behind, op.number());
    let header = TxnHeader { client_id: SESSION, cxid: 1, zxid, time: 77_000, op };
    let digest = digest.map(|digest| TxnDigest { version: 2, digest: digest.cast_signed() });
    Some(Transaction { header, txn, digest }.to_bytes().as_slice()).to_bytes()
}

pub(super) fn made(path: &str, kind: CreateKind, parent_cversion: i32) -> Txn<'_> {
    Txn::Create(CreateTxn { path, data: Some(b"x"), acl: vec![Acl::open()], kind, parent_cversion })
}

fn set(path: &str, version: i32) -> Txn<'_> {
    Txn::SetData(SetDataTxn { path, data: Some(b"new"), version })
}

pub(super) fn start(live: bool, again: bool) -> ZkImportStep {
    ZkImportStep::Start { source: "there".into(), live, again }
}

pub(super) fn chunk(chunk: u64, bytes: Vec<u8>) -> ZkImportStep {
    ZkImportStep::Rows { generation: G, chunk, bytes }
}

pub(super) fn behind(after: i64, bytes: Vec<u8>) -> ZkImportStep {
    ZkImportStep::Transactions { generation: G, after: S + after, bytes }
}

pub(super) fn copied(fuzzy: bool) -> ZkImportStep {
    ZkImportStep::Copied { generation: G, zxid: S, fuzzy }
}

fn compared(behind: i64, difference: Option<String>) -> ZkImportStep {
    ZkImportStep::Compared { generation: G, zxid: S + behind, difference }
}

pub(super) fn cut_over(behind: i64) -> ZkImportStep {
    ZkImportStep::CutOver { at: S + behind, attempt: None }
}

fn abort(open: bool) -> ZkImportStep {
    ZkImportStep::Abort { reason: "given up".into(), generation: None, open }
}

pub(super) fn merge(at: &str, only: &str, existing: ZkExisting) -> ZkImportStep {
    ZkImportStep::Merge { generation: None, at: at.into(), only: only.into(), existing }
}

#[derive(Default)]
pub(super) struct Imports {
    pub(super) state: State,
    index: u64,
}

impl Imports {
    fn step(&mut self, step: ZkImportStep) -> Result<Reply, Rejected> {
        self.index += 1;
        let stamp = Stamp { index: self.index, at: Timestamp(1_000 * self.index) };
        let command = Command::ImportZk { name: "move".into(), step: Box::new(step) };
        let applied = self.state.apply(stamp, &command.into());
        tree::assert_whole(self.state.zk());
        applied.reply
    }

    #[track_caller]
    pub(super) fn takes(&mut self, step: ZkImportStep) {
        assert_eq!(self.step(step), Ok(Reply::Done));
        if !self.import().tree.nodes.is_empty() {
            tree::assert_whole(&self.import().tree);
        }
    }

    #[track_caller]
    fn refuses(&mut self, step: ZkImportStep, code: RejectedCode) {
        let before = self.import().clone();
        assert_eq!(self.step(step).map_err(|rejected| rejected.code), Err(code));
        assert_eq!(self.import().status, before.status);
        assert_eq!(self.import().tree.digest(), before.tree.digest());
    }

    pub(super) fn import(&self) -> &ZkImport {
        self.state.zk_import("move").expect("it was begun")
    }

    fn status(&self) -> &ZkImportStatus {
        &self.import().status
    }

    /// All rows are here.
    pub(super) fn copied(live: bool, fuzzy: bool) -> Self {
        let mut imports = Self::default();
        imports.takes(start(live, false));
        for (number, lot) in (0..).zip(rows()) {
            imports.takes(chunk(number, lot));
        }
        imports.takes(copied(fuzzy));
        imports
    }

    /// The digest that the copy has once these are applied.
    fn digest_after(&self, transactions: &[Vec<u8>]) -> u64 {
        let mut copy = self.import().clone();
        copy.add_transactions(&transactions.concat()).expect("fine transactions");
        copy.tree.digest()
    }
}

#[test]
fn lots_come_in_order_and_repeats_change_nothing() {
    let mut imports = Imports::default();
    imports.takes(start(false, false));
    let [first, second] = rows();
    imports.refuses(chunk(1, second.clone()), RejectedCode::Conflict);
    imports.takes(chunk(0, first.clone()));
    imports.takes(chunk(0, first.clone()));
    // Whoever begins again goes on.
    imports.takes(start(false, false));
    assert_eq!(imports.status().next_chunk, 1);
    imports.takes(chunk(1, second.clone()));
    assert_eq!((imports.import().tree.node_count(), imports.status().next_chunk), (6, 2));
    imports.refuses(chunk(2, node("/none/x", b"", -1, owned(0))), RejectedCode::Invalid);
    imports.refuses(chunk(2, node("/app", b"", -1, owned(0))), RejectedCode::Invalid);
    imports.refuses(chunk(2, node("/a//b", b"", -1, owned(0))), RejectedCode::Invalid);
    imports.refuses(chunk(2, b"?".to_vec()), RejectedCode::Invalid);
    imports.refuses(chunk(2, second[..20].to_vec()), RejectedCode::Invalid);
    imports.takes(start(false, true));
    assert_eq!((imports.import().tree.node_count(), imports.status().next_chunk), (0, 0));
    let generation = imports.status().generation;
    let copied = ZkImportStep::Copied { generation, zxid: S, fuzzy: true };
    imports.refuses(copied, RejectedCode::Invalid);
}

#[test]
fn transactions_are_absolute() {
    let mut imports = Imports::copied(true, true);
    let txns = |digest: Option<u64>| {
        vec![
            // The copy has this one already, and did not know its access list.
            transaction(1, made("/app/odd", CreateKind::Persistent, 6), None),
            transaction(2, made("/app/new", CreateKind::Persistent, 8), None),
            transaction(3, set("/app", 5), None),
            // These two it does not have any more.
            transaction(4, set("/gone", 1), None),
            transaction(5, Txn::Delete("/app/gone"), None),
            transaction(6, made("/app/ttl", CreateKind::Ttl(60_000), 9), None),
            transaction(7, Txn::Error(-101), None),
            transaction(8, Txn::CreateSession(5_000), digest),
        ]
    };
    imports.takes(behind(0, txns(None).concat()));
    let import = imports.import();
    let stat = |path: &str| import.tree.get(path).expect(path).persisted();
    assert_eq!(import.tree.acl_of(import.tree.get("/app/odd").unwrap())[..], [Acl::open()]);
    // The parent counts only what it had not counted.
    let app = stat("/app");
    assert_eq!((app.cversion, app.version, app.mzxid, app.mtime), (9, 5, S + 3, 77_000));
    assert_eq!(app.pzxid, S + 6);
    assert_eq!(stat("/app/new").czxid, S + 2);
    assert_eq!(import.tree.session(SESSION).unwrap().timeout, 5_000);
    assert_eq!((import.tree.zxid(), import.status.transactions), (S + 8, 8));
    // Lost answers: the same ones come again and are refused, or are passed over in a larger lot.
    imports.refuses(behind(0, txns(None).concat()), RejectedCode::Conflict);
    let digest = imports.import().tree.digest();
    imports.takes(behind(8, txns(None).concat()));
    assert_eq!((imports.import().tree.digest(), imports.status().transactions), (digest, 8));
    let half = &txns(None)[0][..9];
    imports.refuses(behind(8, half.to_vec()), RejectedCode::Invalid);
}

#[test]
fn a_session_that_ends_takes_its_nodes_along() {
    for paths in [Some(vec!["/app/mine"]), None] {
        let mut imports = Imports::copied(true, true);
        imports.takes(behind(0, transaction(1, Txn::CloseSession(paths), None)));
        let tree = &imports.import().tree;
        assert!(tree.get("/app/mine").is_none() && tree.session(SESSION).is_none());
        assert_eq!(tree.get("/app").unwrap().persisted().pzxid, S + 1);
    }
}

#[test]
fn a_multi_that_failed_changes_nothing() {
    let mut imports = Imports::copied(true, true);
    let digest = imports.import().tree.digest();
    let (mut fine, mut failed) = (Vec::new(), Vec::new());
    set("/app", 9).write(&mut fine);
    Txn::Error(-2).write(&mut failed);
    let sub = |op: Op, data| SubTxn { op: op.number(), data: Some(data) };
    let both = vec![sub(Op::SetData, fine.as_slice()), sub(Op::Error, failed.as_slice())];
    imports.takes(behind(0, transaction(1, Txn::Multi(both), None)));
    assert_eq!(imports.import().tree.digest(), digest);
    let one = vec![sub(Op::SetData, fine.as_slice())];
    imports.takes(behind(1, transaction(2, Txn::Multi(one), None)));
    let app = imports.import().tree.get("/app").unwrap().persisted();
    assert_eq!((app.version, app.mzxid), (9, S + 2));
}

#[test]
fn digests_prove_the_copy_from_when_it_is_exact() {
    let mut imports = Imports::copied(true, true);
    let one = transaction(1, set("/app", 1), None);
    let right = imports.digest_after(&[one]);
    imports.takes(behind(0, transaction(1, set("/app", 1), Some(right + 1))));
    assert_eq!((imports.status().proven, imports.status().mismatches), (0, 0), "not exact yet");
    imports.takes(ZkImportStep::Exact { generation: G });
    assert_eq!(imports.status().phase, ZkImportPhase::Following);
    imports.takes(behind(1, transaction(2, set("/app", 2), Some(1))));
    let status = imports.status();
    assert_eq!((status.proven, status.mismatches), (0, 1));
    assert_eq!(status.unverified_since, Some(S + 2));
    let since = status.unverified_at;
    imports.refuses(cut_over(2), RejectedCode::Conflict);
    imports.takes(behind(2, transaction(3, set("/app", 3), Some(1))));
    assert_eq!(imports.status().unverified_at, since);
    // ZooKeeper's own mistakes heal.
    let next = transaction(4, set("/app", 4), None);
    let right = imports.digest_after(&[next]);
    imports.takes(behind(3, transaction(4, set("/app", 4), Some(right))));
    let status = imports.status();
    assert_eq!((status.proven, status.mismatches, status.unverified_since), (1, 2, None));
    assert_eq!(status.unverified_at, None);
}

#[test]
fn a_comparison_proves_or_stops() {
    let mut imports = Imports::copied(true, false);
    imports.takes(behind(0, transaction(1, set("/app", 1), Some(1))));
    imports.takes(ZkImportStep::Compare);
    assert_eq!(imports.status().compare_since, Some(S + 1));
    imports.takes(compared(0, None));
    assert!(imports.status().unverified_since.is_some(), "it was of earlier");
    imports.takes(compared(1, None));
    let status = imports.status();
    assert_eq!((status.unverified_since, status.compare_since), (None, None));
    assert_eq!(status.compared_at, Some(S + 1));
    let difference = Some("/app: its data are others".to_owned());
    imports.takes(compared(1, difference));
    assert_eq!(imports.status().phase, ZkImportPhase::Stopped);
    assert!(imports.status().reason.contains("/app"));
    imports.refuses(behind(1, transaction(2, set("/app", 2), None)), RejectedCode::Conflict);
}

#[test]
fn two_copies_differ_where_anything_does() {
    let same = Imports::copied(true, false);
    let tree = &same.import().tree;
    assert_eq!(tree.difference(&Imports::copied(true, false).import().tree), None);
    let acl = vec![Acl { perms: 3, id: id("world", "anyone") }];
    for (txn, told) in [
        (made("/app/new", CreateKind::Persistent, 8), "/app"),
        (set("/app/odd", 1), "/app/odd"),
        (Txn::Delete("/app/odd"), "/app"),
        (Txn::SetAcl(SetAclTxn { path: "/app/odd", acl, version: 0 }), "/app/odd: its access list"),
        (Txn::CreateSession(1), "has another time-out"),
    ] {
        let mut other = Imports::copied(true, false);
        other.takes(behind(0, transaction(1, txn, None)));
        for difference in
            [tree.difference(&other.import().tree), other.import().tree.difference(tree)]
        {
            let difference = difference.expect(told);
            assert!(difference.contains(told), "{difference}");
        }
    }
    // Each server has its own there.
    let mut other = Imports::copied(true, false);
    other.takes(behind(0, transaction(1, made("/zookeeper/x", CreateKind::Persistent, 0), None)));
    assert_eq!(tree.difference(&other.import().tree), None);
}

#[test]
fn clients_go_over_and_back() {
    let mut imports = Imports::copied(true, false);
    imports.refuses(ZkImportStep::Finish, RejectedCode::Conflict);
    imports.refuses(ZkImportStep::RolledBack, RejectedCode::Conflict);
    imports.refuses(merge("/", "/", ZkExisting::Refuse), RejectedCode::Conflict);
    imports.takes(ZkImportStep::Heard { generation: G, zxid: S + 3 });
    assert_eq!((imports.status().source_zxid, imports.status().heard), (S + 3, 1));
    imports.refuses(cut_over(3), RejectedCode::Conflict);
    let digest = imports.import().tree.digest();
    imports.takes(cut_over(0));
    let tree = imports.state.zk();
    assert_eq!(tree.zxid(), ((S >> 32) + 1) << 32, "a new epoch");
    assert_eq!(tree.digest(), digest);
    assert_eq!(tree.session(SESSION).unwrap().password, imported_password(SESSION));
    assert!(tree.get("/zookeeper/quota").is_some(), "what did not come along is made");
    assert_eq!(tree.ephemeral_count(), 1);
    assert_eq!(imports.status().cut_over_zxid, Some(S));
    // Clients write; then they go back with it.
    let callers = vec![ZkCaller { superuser: true, ..ZkCaller::default() }];
    let body = create("/app/here", 0, &[Acl::open()]);
    let requests = vec![ZkRequest::Op { caller: 0, op: Op::Create2.number(), body }];
    let batch = ZkBatch { callers, requests, enforce_quota: false };
    let stamp = Stamp { index: 100, at: Timestamp(100_000) };
    imports.state.apply(stamp, &Command::Zk(Box::new(batch)).into()).reply.unwrap();
    imports.index = 100;
    let now = imports.state.zk().digest();
    imports.takes(ZkImportStep::RolledBack);
    assert_eq!(imports.import().tree.digest(), now);
    assert!(imports.import().tree.get("/app/here").is_some());
    assert_eq!(imports.state.zk().node_count(), Tree::default().node_count());
    assert!(imports.status().keeps_closed, "their tree is elsewhere");
    imports.takes(abort(false));
    assert_eq!(imports.import().tree.node_count(), 0);
    assert!(imports.status().keeps_closed, "nothing is here for them");
    imports.refuses(abort(false), RejectedCode::Conflict);
    imports.takes(abort(true));
    assert!(!imports.status().keeps_closed);
}

#[test]
fn what_was_sent_for_an_earlier_copy_has_no_place_in_a_later_one() {
    let mut imports = Imports::default();
    let [first, second] = rows();
    imports.takes(start(true, false));
    imports.takes(chunk(0, first.clone()));
    imports.takes(ZkImportStep::Anew { generation: G, why: "it broke off".into() });
    let anew = imports.status().generation;
    assert!(anew > G);
    assert_eq!(
        (imports.status().next_chunk, imports.status().reason.as_str()),
        (0, "it broke off")
    );
    // Each of these was on its way when the copy was begun anew.
    let late = [
        chunk(0, first.clone()),
        chunk(1, second.clone()),
        copied(true),
        behind(0, transaction(1, set("/app", 1), None)),
        ZkImportStep::Exact { generation: G },
        compared(0, Some("/app: its data are others".into())),
        ZkImportStep::Heard { generation: G, zxid: S },
        ZkImportStep::Anew { generation: G, why: String::new() },
        ZkImportStep::Stop { generation: G, reason: "of the earlier one".into() },
    ];
    for step in &late {
        imports.refuses(step.clone(), RejectedCode::Conflict);
    }
    imports.takes(rows_of(anew, 0, first));
    imports.takes(rows_of(anew, 1, second));
    imports.takes(ZkImportStep::Copied { generation: anew, zxid: S, fuzzy: false });
    for step in late {
        imports.refuses(step, RejectedCode::Conflict);
    }
    // Begun anew by a person it is another one as well, and so are those of that name later.
    imports.takes(start(true, true));
    let third = imports.status().generation;
    imports.takes(abort(false));
    imports.takes(start(true, false));
    assert!(imports.status().generation > third && third > anew);
}

#[test]
fn an_attempt_that_was_called_off_comes_to_nothing() {
    let mut imports = Imports::copied(true, false);
    let attempt = |attempt| ZkImportStep::CutOver { at: S, attempt: Some(attempt) };
    imports.takes(ZkImportStep::CallOff);
    imports.refuses(attempt(0), RejectedCode::Conflict);
    assert_eq!(imports.status().attempt, 1);
    imports.takes(attempt(1));
    // Whoever calls off what was carried out learns so.
    imports.refuses(ZkImportStep::CallOff, RejectedCode::Conflict);
    assert_eq!(imports.status().phase, ZkImportPhase::CutOver);
}

#[test]
fn an_attempt_does_not_outlive_its_copy() {
    let mut imports = Imports::copied(true, false);
    imports.takes(ZkImportStep::Anew { generation: G, why: String::new() });
    let generation = imports.status().generation;
    for (number, lot) in (0..).zip(rows()) {
        imports.takes(rows_of(generation, number, lot));
    }
    imports.takes(ZkImportStep::Copied { generation, zxid: S, fuzzy: false });
    let of_the_first = ZkImportStep::CutOver { at: S, attempt: Some(0) };
    imports.refuses(of_the_first, RejectedCode::Conflict);
}

#[test]
fn ports_that_were_seen_open_are_remembered_within_bounds() {
    let mut imports = Imports::copied(true, false);
    let seen = |ports: &[String], from: &str| {
        let (ports, from) = (ports.to_vec(), from.to_owned());
        ZkImportStep::PortsOpen { ports, from }
    };
    let zk1 = ["zk1:2181".to_owned()];
    imports.takes(seen(&zk1, "ops1"));
    imports.takes(seen(&zk1, "ops2"));
    imports.takes(seen(&zk1, "ops1"));
    let from: Vec<&str> =
        imports.status().ports_seen.iter().map(|seen| seen.from.as_str()).collect();
    assert_eq!(from, ["ops2", "ops1"]);
    let last = imports.status().ports_seen[1].at;
    assert!(last > imports.status().ports_seen[0].at, "the last time counts");
    imports.takes(ZkImportStep::Anew { generation: G, why: String::new() });
    assert_eq!(imports.status().ports_seen.len(), 2, "the source is the same");
    let many: Vec<String> = (0..ZK_PORTS_SEEN_MAX).map(|port| format!("zk:{port}")).collect();
    imports.takes(seen(&many, "ops1"));
    assert_eq!(imports.status().ports_seen.len(), ZK_PORTS_SEEN_MAX);
    let too_many = [many, zk1.to_vec()].concat();
    imports.refuses(seen(&too_many, "ops1"), RejectedCode::TooLarge);
    let long = ["z".repeat(ZK_PORT_NAME_BYTES_MAX + 1)];
    imports.refuses(seen(&long, "ops1"), RejectedCode::TooLarge);
}

#[test]
fn what_cannot_be_read_is_named() {
    let mut imports = Imports::copied(true, true);
    let told = |imports: &mut Imports, step: ZkImportStep| imports.step(step).unwrap_err().message;
    let whole = transaction(1, set("/app/odd", 1), None);
    // Its data are cut off within.
    let cut = Some(&whole[4..whole.len() - 6]).to_bytes();
    let message = told(&mut imports, behind(0, cut));
    assert!(message.contains(&format!("{:#x} (node \"/app/odd\")", S + 1)), "{message}");
    // One change of several is of no known kind, and the first one is fine.
    let mut fine = Vec::new();
    set("/app", 9).write(&mut fine);
    let odd = "/app/odd".to_bytes();
    let subs = vec![
        SubTxn { op: Op::SetData.number(), data: Some(fine.as_slice()) },
        SubTxn { op: Op::SetAcl.number(), data: Some(odd.as_slice()) },
    ];
    let message = told(&mut imports, behind(0, transaction(1, Txn::Multi(subs), None)));
    assert!(message.contains("(node \"/app/odd\")"), "{message}");
    let long = format!("/{}", "x".repeat(5_000));
    let whole = transaction(1, set(&long, 1), None);
    let cut = Some(&whole[4..whole.len() - 6]).to_bytes();
    let message = told(&mut imports, behind(0, cut));
    assert!(message.len() < 500, "{message}");
    let mut rows = Imports::default();
    rows.takes(start(false, false));
    let row = node("/app", b"data", -1, owned(0));
    let message = told(&mut rows, chunk(0, row[..row.len() - 9].to_vec()));
    assert!(message.contains("the node \"/app\" can't be read"), "{message}");
}

#[test]
fn the_endpoint_opens_with_a_cut_over_or_when_a_person_says_so() {
    let mut imports = Imports::copied(true, false);
    imports.takes(abort(false));
    assert!(imports.status().keeps_closed);
    let keeper = |imports: &Imports, name: &str| {
        imports.state.zk_import(name).is_some_and(|import| import.status.keeps_closed)
    };
    let other = |imports: &mut Imports, step: ZkImportStep| {
        imports.index += 1;
        let stamp = Stamp { index: imports.index, at: Timestamp(1_000 * imports.index) };
        let command = Command::ImportZk { name: "other".into(), step: Box::new(step) };
        imports.state.apply(stamp, &command.into()).reply.unwrap();
        imports.index
    };
    // Of those that were given up, the last one keeps it closed.
    other(&mut imports, start(true, false));
    other(&mut imports, abort(false));
    assert_eq!((keeper(&imports, "move"), keeper(&imports, "other")), (false, true));
    let generation = other(&mut imports, start(true, false));
    for (chunk, lot) in (0..).zip(rows()) {
        other(&mut imports, rows_of(generation, chunk, lot));
    }
    other(&mut imports, ZkImportStep::Copied { generation, zxid: S, fuzzy: false });
    other(&mut imports, cut_over(0));
    assert_eq!((keeper(&imports, "move"), keeper(&imports, "other")), (false, false));
    // One that was only to be copied once leaves the endpoint as it is.
    let mut once = Imports::copied(false, false);
    once.takes(abort(false));
    assert!(!once.status().keeps_closed);
}

#[test]
fn a_live_move_needs_an_empty_place() {
    let mut imports = Imports::copied(false, false);
    imports.takes(merge("/", "/", ZkExisting::Refuse));
    let stamp = Stamp { index: 50, at: Timestamp(50_000) };
    let step = Box::new(start(true, false));
    let command = Command::ImportZk { name: "other".into(), step };
    let refused = imports.state.apply(stamp, &command.into()).reply.unwrap_err();
    assert_eq!(refused.code, RejectedCode::Conflict);
    assert!(refused.message.contains("not empty"), "{}", refused.message);
}

#[test]
fn a_part_goes_into_what_is_there() {
    let merged = |existing, before: &[(&str, &[u8])]| {
        let mut imports = Imports::copied(false, false);
        for (number, (path, data)) in (0..).zip(before) {
            let callers = vec![ZkCaller { superuser: true, ..ZkCaller::default() }];
            let acl = vec![Acl::open()];
            let body = CreateRequest { path, data: Some(data), acl, flags: 0 }.to_bytes();
            let requests = vec![ZkRequest::Op { caller: 0, op: Op::Create.number(), body }];
            let batch = ZkBatch { callers, requests, enforce_quota: false };
            let stamp = Stamp { index: 20 + number, at: Timestamp(20_000) };
            imports.state.apply(stamp, &Command::Zk(Box::new(batch)).into()).reply.unwrap();
        }
        imports.index = 40;
        let outcome = imports.step(merge("/x/y", "/app", existing));
        (imports, outcome)
    };
    let data = |imports: &Imports, path: &str| {
        imports.state.zk().get(path).map(|node| node.data().unwrap_or_default().to_vec())
    };
    let (imports, outcome) = merged(ZkExisting::Refuse, &[]);
    outcome.unwrap();
    assert_eq!(data(&imports, "/x/y"), Some(b"data".to_vec()));
    assert!(data(&imports, "/x/y/box").is_some(), "a container stays one");
    assert!(data(&imports, "/x/y/mine").is_none(), "nobody's session");
    assert_eq!(imports.state.zk().get("/x/y").unwrap().persisted().cversion, 7);
    assert_eq!(imports.status().phase, ZkImportPhase::Finished);
    assert_eq!(imports.import().tree.node_count(), 0);

    let there: &[(&str, &[u8])] = &[("/x", b""), ("/x/y", b"old"), ("/x/y/more", b"m")];
    let (imports, outcome) = merged(ZkExisting::Refuse, there);
    assert_eq!(outcome.unwrap_err().code, RejectedCode::Conflict);
    assert_eq!(imports.status().phase, ZkImportPhase::Following);
    assert!(imports.import().tree.get("/app").is_some(), "nothing is lost by a refusal");
    for (existing, top, more) in [
        (ZkExisting::Keep, &b"old"[..], true),
        (ZkExisting::Overwrite, b"data", true),
        (ZkExisting::Replace, b"data", false),
    ] {
        let (imports, outcome) = merged(existing, there);
        outcome.unwrap();
        assert_eq!(data(&imports, "/x/y"), Some(top.to_vec()), "{existing:?}");
        assert_eq!(data(&imports, "/x/y/more").is_some(), more, "{existing:?}");
        assert!(data(&imports, "/x/y/odd").is_some(), "{existing:?}");
    }
}

/// Nodes that a client makes here.
fn make_here(imports: &mut Imports, nodes: &[(&str, i32)]) {
    for (path, flags) in nodes {
        let callers = vec![ZkCaller { superuser: true, ..ZkCaller::default() }];
        let requests = vec![ZkRequest::Op {
            caller: 0,
            op: Op::Create2.number(),
            body: create(path, *flags, &[Acl::open()]),
        }];
        let batch = ZkBatch { callers, requests, enforce_quota: false };
        imports.index += 1;
        let stamp = Stamp { index: imports.index, at: Timestamp(1_000 * imports.index) };
        imports.state.apply(stamp, &Command::Zk(Box::new(batch)).into()).reply.unwrap();
    }
}

#[test]
fn who_gets_a_child_takes_note_of_it() {
    let mut imports = Imports::copied(false, false);
    make_here(&mut imports, &[("/a", 0), ("/a/one", 0), ("/a/two", 0)]);
    let before = imports.state.zk().clone();
    imports.takes(merge("/a/x/y", "/app", ZkExisting::Refuse));
    let tree = imports.state.zk();
    let stat = |path: &str| tree.get(path).expect(path).persisted();
    assert!(tree.zxid() > before.zxid());
    // One that was there, one that is made on the way, and what came along as it was.
    assert_eq!((stat("/a").cversion, stat("/a").pzxid), (3, tree.zxid()));
    assert_eq!((stat("/a/x").cversion, stat("/a/x").pzxid), (1, tree.zxid()));
    assert_eq!((stat("/a/x/y").cversion, stat("/a/x/y").pzxid), (7, 3));
    assert_eq!(tree.get("/a").unwrap().stat().cversion, 3 * 2 - 3);
    assert_eq!(stat("/"), before.get("/").unwrap().persisted());

    // Into a node that both have: what clients are shown never goes back.
    for existing in [ZkExisting::Keep, ZkExisting::Overwrite, ZkExisting::Replace] {
        let mut imports = Imports::copied(false, false);
        make_here(&mut imports, &[("/app", 0), ("/app/here", 0)]);
        let before = imports.state.zk().clone();
        let shown = |tree: &Tree, path: &str| tree.get(path).unwrap().stat();
        imports.takes(merge("/app", "/app", existing));
        let tree = imports.state.zk();
        let parent = if existing == ZkExisting::Replace { "/" } else { "/app" };
        assert_eq!(shown(tree, parent).pzxid, tree.zxid(), "{existing:?}");
        assert!(shown(tree, parent).cversion > shown(&before, parent).cversion, "{existing:?}");
        assert!(tree.get("/app").unwrap().persisted().cversion >= 7, "{existing:?}");
    }
}

#[test]
fn a_copy_that_somebody_began_anew_does_not_go_in_for_the_one_before() {
    let mut imports = Imports::copied(false, false);
    let step = |generation| ZkImportStep::Merge {
        generation: Some(generation),
        at: "/".into(),
        only: "/app".into(),
        existing: ZkExisting::Refuse,
    };
    imports.refuses(step(G + 1), RejectedCode::Conflict);
    imports.takes(step(G));
}

#[test]
fn the_root_stays_its_own_unless_all_is_taken() {
    for existing in [ZkExisting::Refuse, ZkExisting::Overwrite, ZkExisting::Replace] {
        let mut imports = Imports::copied(false, false);
        let before = imports.state.zk().clone();
        imports.takes(merge("/", "/app", existing));
        let tree = imports.state.zk();
        let (root, was) = (tree.get("/").unwrap(), before.get("/").unwrap());
        assert_eq!((root.data(), tree.acl_of(root)), (was.data(), before.acl_of(was)));
        assert_eq!(root.persisted().version, was.persisted().version);
        assert!(tree.get("/box").is_some() && tree.get("/zookeeper/quota").is_some());
    }
}

#[test]
fn what_can_not_be_put_there_is_refused_and_nothing_changes() {
    let mut imports = Imports::copied(false, false);
    let session = vec![ZkRequest::Open { timeout: 9_000, password: Some([7; 16]), attachment: 9 }];
    let batch = ZkBatch { callers: Vec::new(), requests: session, enforce_quota: false };
    let stamp = Stamp { index: 20, at: Timestamp(20_000) };
    imports.state.apply(stamp, &Command::Zk(Box::new(batch)).into()).reply.unwrap();
    imports.index = 20;
    let session = imports.state.zk().sessions().next().expect("it was opened").0;
    let caller = ZkCaller { session, attachment: 9, superuser: true, ..ZkCaller::default() };
    let body = create("/mortal", 1, &[Acl::open()]);
    let requests = vec![ZkRequest::Op { caller: 0, op: Op::Create2.number(), body }];
    let batch = ZkBatch { callers: vec![caller], requests, enforce_quota: false };
    let stamp = Stamp { index: 21, at: Timestamp(21_000) };
    imports.state.apply(stamp, &Command::Zk(Box::new(batch)).into()).reply.unwrap();
    imports.index = 21;
    assert_eq!(imports.state.zk().ephemeral_count(), 1);
    let before = imports.state.zk().digest();
    imports.refuses(merge("/mortal/x", "/app", ZkExisting::Keep), RejectedCode::Conflict);
    imports.refuses(merge("/mortal", "/app", ZkExisting::Overwrite), RejectedCode::Conflict);
    imports.refuses(merge("/new", "/zookeeper", ZkExisting::Keep), RejectedCode::Invalid);
    imports.refuses(merge("/new", "/app/mine", ZkExisting::Keep), RejectedCode::Invalid);
    assert_eq!(imports.state.zk().digest(), before);
    imports.takes(merge("/mortal", "/app", ZkExisting::Replace));
    assert_eq!(imports.state.zk().ephemeral_count(), 0);
}

/// The entries that begin the other two copies among these.
const HALF: u64 = 11;
const ANEW: u64 = 21;

fn rows_of(generation: u64, chunk: u64, bytes: Vec<u8>) -> ZkImportStep {
    ZkImportStep::Rows { generation, chunk, bytes }
}

/// Each command about the tree, and most steps, so that their bytes can be pinned.
pub(in crate::state) fn one_of_each() -> Vec<Command> {
    let step = |name: &str, step: ZkImportStep| Command::ImportZk {
        name: name.to_owned(),
        step: Box::new(step),
    };
    let [first, second] = rows();
    let password = Some([7; 16]);
    let requests = vec![ZkRequest::Open { timeout: 4_000, password, attachment: 9 }];
    let opened = 0x6f << 56 | (1_700_000_000_006_i64 << 24 >> 8 & 0x00ff_ffff_ffff_ffff);
    let caller =
        ZkCaller { session: 0, attachment: 0, ids: vec![id("ip", "::1")], superuser: true };
    let body = create("/here", 0, &[Acl::open()]);
    let ops = vec![
        ZkRequest::Op { caller: 0, op: Op::Create2.number(), body },
        ZkRequest::Attach { session: 1, password: vec![1; 16], timeout: 4_000, attachment: 3 },
        ZkRequest::Close { session: 2, attachment: 4 },
    ];
    vec![
        step("once", start(false, false)),
        step("once", chunk(0, first.clone())),
        step("once", chunk(1, second.clone())),
        step("once", copied(true)),
        step("once", behind(0, transaction(1, set("/app", 1), None))),
        step("once", ZkImportStep::Exact { generation: G }),
        step("once", merge("/once", "/app", ZkExisting::Overwrite)),
        Command::Zk(Box::new(ZkBatch { callers: Vec::new(), requests, enforce_quota: true })),
        Command::Zk(Box::new(ZkBatch {
            callers: vec![caller],
            requests: ops,
            enforce_quota: false,
        })),
        Command::ExpireZkSessions { sessions: vec![(opened, 1)] },
        step("half", start(false, false)),
        step("half", rows_of(HALF, 0, first)),
        step("half", rows_of(HALF, 1, second)),
        step("half", ZkImportStep::Copied { generation: HALF, zxid: S, fuzzy: false }),
        step("half", ZkImportStep::Heard { generation: HALF, zxid: S + 5 }),
        step("half", ZkImportStep::Compare),
        step("half", ZkImportStep::Compared { generation: HALF, zxid: S, difference: None }),
        step(
            "half",
            ZkImportStep::PortsOpen { ports: vec!["zk1:2181".into()], from: "ops".into() },
        ),
        step("half", ZkImportStep::CallOff),
        step(
            "half",
            ZkImportStep::Stop { generation: HALF, reason: "a person must decide".into() },
        ),
        step("anew", start(false, false)),
        step("anew", ZkImportStep::Anew { generation: ANEW, why: "it was interrupted".into() }),
        step("anew", abort(false)),
    ]
}
