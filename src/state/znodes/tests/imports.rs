//! Trees that come from elsewhere: their rows, the transactions behind them, and what becomes of
//! them.

use super::*;
use crate::jute::StatPersisted;
use crate::jute::file::{AclRow, NodeRow, SessionRow};
use crate::jute::op::CONTAINER_OWNER;
use crate::jute::txn::{
    CreateKind, CreateTxn, SetAclTxn, SetDataTxn, SubTxn, Transaction, Txn, TxnDigest, TxnHeader,
};
use crate::state::znodes::imported_password;
use crate::state::znodes::{
    ROW_ACL, ROW_NODE, ROW_SESSION, ZkExisting, ZkImport, ZkImportPhase, ZkImportStatus,
    ZkImportStep,
};
use crate::state::{Rejected, RejectedCode};

pub(super) const S: i64 = 5 << 32 | 0x10;
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
    ZkImportStep::Start { source: "there".into(), live, again, why: String::new() }
}

pub(super) fn chunk(chunk: u64, bytes: Vec<u8>) -> ZkImportStep {
    ZkImportStep::Rows { chunk, bytes }
}

pub(super) fn behind(after: i64, bytes: Vec<u8>) -> ZkImportStep {
    ZkImportStep::Transactions { after: S + after, bytes }
}

fn merge(at: &str, only: &str, existing: ZkExisting) -> ZkImportStep {
    ZkImportStep::Merge { at: at.into(), only: only.into(), existing }
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
        imports.takes(ZkImportStep::Copied { zxid: S, fuzzy });
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
    imports.refuses(ZkImportStep::Copied { zxid: S, fuzzy: true }, RejectedCode::Invalid);
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
    imports.takes(ZkImportStep::Exact);
    assert_eq!(imports.status().phase, ZkImportPhase::Following);
    imports.takes(behind(1, transaction(2, set("/app", 2), Some(1))));
    let status = imports.status();
    assert_eq!((status.proven, status.mismatches), (0, 1));
    assert_eq!(status.unverified_since, Some(S + 2));
    let since = status.unverified_at;
    imports.refuses(ZkImportStep::CutOver { at: S + 2 }, RejectedCode::Conflict);
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
    imports.takes(ZkImportStep::Compared { zxid: S, difference: None });
    assert!(imports.status().unverified_since.is_some(), "it was of earlier");
    imports.takes(ZkImportStep::Compared { zxid: S + 1, difference: None });
    let status = imports.status();
    assert_eq!((status.unverified_since, status.compare_since), (None, None));
    assert_eq!(status.compared_at, Some(S + 1));
    let difference = Some("/app: its data are others".to_owned());
    imports.takes(ZkImportStep::Compared { zxid: S + 1, difference });
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
    imports.takes(ZkImportStep::Heard { zxid: S + 3 });
    assert_eq!((imports.status().source_zxid, imports.status().heard), (S + 3, 1));
    imports.refuses(ZkImportStep::CutOver { at: S + 3 }, RejectedCode::Conflict);
    let digest = imports.import().tree.digest();
    imports.takes(ZkImportStep::CutOver { at: S });
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
    imports.takes(ZkImportStep::Abort { reason: "they are back".into() });
    assert_eq!(imports.import().tree.node_count(), 0);
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
        step("once", ZkImportStep::Copied { zxid: S, fuzzy: true }),
        step("once", behind(0, transaction(1, set("/app", 1), None))),
        step("once", ZkImportStep::Exact),
        step("once", merge("/once", "/app", ZkExisting::Overwrite)),
        Command::Zk(Box::new(ZkBatch { callers: Vec::new(), requests, enforce_quota: true })),
        Command::Zk(Box::new(ZkBatch {
            callers: vec![caller],
            requests: ops,
            enforce_quota: false,
        })),
        Command::ExpireZkSessions { sessions: vec![(opened, 1)] },
        step("half", start(false, false)),
        step("half", chunk(0, first)),
        step("half", chunk(1, second)),
        step("half", ZkImportStep::Copied { zxid: S, fuzzy: false }),
        step("half", ZkImportStep::Heard { zxid: S + 5 }),
        step("half", ZkImportStep::Compare),
        step("half", ZkImportStep::Compared { zxid: S, difference: None }),
        step("half", ZkImportStep::Stop { reason: "a person must decide".into() }),
    ]
}
