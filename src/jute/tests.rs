//! Every record round-trips; no bytes make a reader panic, or take more than a small multiple of
//! their own length.

use std::fmt::Debug;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::codec::{Error, Field, Reader};
use super::data::{Acl, Id, Stat, StatPersisted};
use super::file::*;
use super::op::Op;
use super::quorum::*;
use super::reply::*;
use super::request::*;
use super::rows::{Decoder, Next, Row, RowError, write_tables};
use super::txn::*;

/// What random values are made of.
struct Pool<'p> {
    texts: &'p [String],
    buffers: &'p [Vec<u8>],
    random: StdRng,
}

/// A type whose random values hold what is easily lost.
trait Any<'p>: Sized {
    fn any(pool: &mut Pool<'p>) -> Self;
}

impl<'p> Pool<'p> {
    fn any<T: Any<'p>>(&mut self) -> T {
        T::any(self)
    }
}

impl Any<'_> for i32 {
    fn any(pool: &mut Pool<'_>) -> Self {
        match pool.random.random_range(0..4) {
            0 => [-1, 0, i32::MIN, i32::MAX][pool.random.random_range(0..4)],
            _ => pool.random.random(),
        }
    }
}

impl Any<'_> for i64 {
    fn any(pool: &mut Pool<'_>) -> Self {
        match pool.random.random_range(0..4) {
            0 => [-1, 0, i64::MIN, i64::MAX][pool.random.random_range(0..4)],
            _ => pool.random.random(),
        }
    }
}

impl Any<'_> for bool {
    fn any(pool: &mut Pool<'_>) -> Self {
        pool.random.random()
    }
}

impl<'p> Any<'p> for &'p str {
    fn any(pool: &mut Pool<'p>) -> Self {
        &pool.texts[pool.random.random_range(0..pool.texts.len())]
    }
}

impl Any<'_> for String {
    fn any(pool: &mut Pool<'_>) -> Self {
        pool.any::<&str>().to_owned()
    }
}

impl<'p> Any<'p> for &'p [u8] {
    fn any(pool: &mut Pool<'p>) -> Self {
        &pool.buffers[pool.random.random_range(0..pool.buffers.len())]
    }
}

impl<'p, T: Any<'p>> Any<'p> for Option<T> {
    fn any(pool: &mut Pool<'p>) -> Self {
        let some: bool = pool.any();
        some.then(|| pool.any())
    }
}

impl<'p, T: Any<'p>> Any<'p> for Vec<T> {
    fn any(pool: &mut Pool<'p>) -> Self {
        (0..pool.random.random_range(0..5)).map(|_| pool.any()).collect()
    }
}

impl Any<'_> for [u8; 16] {
    fn any(pool: &mut Pool<'_>) -> Self {
        pool.random.random()
    }
}

impl Any<'_> for u8 {
    fn any(pool: &mut Pool<'_>) -> Self {
        pool.random.random()
    }
}

/// Random values of records, by the names of their fields.
macro_rules! any {
    ($( $name:ident $(<$life:lifetime>)? { $( $field:ident ),* } )*) => {$(
        impl<'p> Any<'p> for $name $(<$life>)? {
            fn any(pool: &mut Pool<'p>) -> Self {
                Self { $( $field: pool.any(), )* }
            }
        }
    )*};
}

any! {
    Id { scheme, id }
    Acl { perms, id }
    Stat { czxid, mzxid, ctime, mtime, version, cversion, aversion, ephemeral_owner, data_length,
        num_children, pzxid }
    StatPersisted { czxid, mzxid, ctime, mtime, version, cversion, aversion, ephemeral_owner, pzxid }
    FileHeader { magic, version, dbid }
    SessionRow { id, timeout }
    AclRow { key, acl }
    NodeRow<'p> { path, data, acl, stat }
    QuorumPacket<'p> { kind, zxid, data, auth }
    LearnerInfo { server_id, protocol_version, config_version }
    ConnectRequest { protocol_version, last_zxid_seen, timeout, session_id, password, read_only }
    RequestHeader { xid, op }
    CreateRequest<'p> { path, data, acl, flags }
    CreateTtlRequest<'p> { path, data, acl, flags, ttl }
    VersionRequest<'p> { path, version }
    SetDataRequest<'p> { path, data, version }
    SetAclRequest<'p> { path, acl, version }
    WatchRequest<'p> { path, watch }
    PathRequest<'p> { path }
    SetWatchesRequest<'p> { relative_zxid, data, exist, child }
    SetWatches2Request<'p> { relative_zxid, data, exist, child, persistent, persistent_recursive }
    AddWatchRequest<'p> { path, mode }
    RemoveWatchesRequest<'p> { path, kind }
    ReconfigRequest<'p> { joining, leaving, new_members, config_id }
    AuthPacket<'p> { kind, scheme, auth }
    SaslRequest<'p> { token }
    MultiRequest<'p> { ops }
    ConnectReply { protocol_version, timeout, session_id, password, read_only }
    ReplyHeader { xid, zxid, err }
    WatcherEvent<'p> { kind, state, path }
    PathReply<'p> { path }
    CreateReply<'p> { path, stat }
    StatReply { stat }
    DataReply<'p> { data, stat }
    AclReply { acl, stat }
    NamesReply<'p> { names }
    ChildrenReply<'p> { names, stat }
    NumberReply { number }
    WhoAmIReply { clients }
    ErrorReply { err }
    SaslReply<'p> { token }
    MultiReply<'p> { results }
    TxnHeader { client_id, cxid, zxid, time, op }
    TxnDigest { version, digest }
    SetDataTxn<'p> { path, data, version }
    SetAclTxn<'p> { path, acl, version }
    CheckTxn<'p> { path, version }
    SubTxn<'p> { op, data }
    CreateTxn<'p> { path, data, acl, kind, parent_cversion }
}

impl<'p> Any<'p> for AuthInfo {
    fn any(pool: &mut Pool<'p>) -> Self {
        Self(pool.any())
    }
}

impl<'p> Any<'p> for MultiOp<'p> {
    fn any(pool: &mut Pool<'p>) -> Self {
        match pool.random.random_range(0..7) {
            0 => Self::Create(pool.any()),
            1 => Self::Create2(pool.any()),
            2 => Self::CreateContainer(pool.any()),
            3 => Self::CreateTtl(pool.any()),
            4 => Self::Delete(pool.any()),
            5 => Self::SetData(pool.any()),
            _ => Self::Check(pool.any()),
        }
    }
}

impl<'p> Any<'p> for MultiResult<'p> {
    fn any(pool: &mut Pool<'p>) -> Self {
        match pool.random.random_range(0..8) {
            0 => Self::Error(pool.any()),
            1 => Self::Create(pool.any()),
            2 => Self::Create2(pool.any()),
            3 => Self::Delete,
            4 => Self::SetData(pool.any()),
            5 => Self::Check,
            6 => Self::GetData(pool.any()),
            _ => Self::GetChildren(pool.any()),
        }
    }
}

impl<'p> Any<'p> for MultiReadRequest<'p> {
    fn any(pool: &mut Pool<'p>) -> Self {
        let ops: Vec<bool> = pool.any();
        let op = |data| if data { Op::GetData } else { Op::GetChildren };
        Self { ops: ops.into_iter().map(|data| (op(data), pool.any())).collect() }
    }
}

impl Any<'_> for CreateKind {
    fn any(pool: &mut Pool<'_>) -> Self {
        match pool.random.random_range(0..4) {
            0 => Self::Persistent,
            1 => Self::Ephemeral,
            2 => Self::Container,
            _ => Self::Ttl(pool.any()),
        }
    }
}

impl<'p> Any<'p> for Transaction<'p> {
    fn any(pool: &mut Pool<'p>) -> Self {
        let (op, txn) = match pool.random.random_range(0..9) {
            0 => {
                let create: CreateTxn<'p> = pool.any();
                let op = match create.kind {
                    CreateKind::Persistent => Op::Create,
                    CreateKind::Ephemeral => Op::Create2,
                    CreateKind::Container => Op::CreateContainer,
                    CreateKind::Ttl(_) => Op::CreateTtl,
                };
                (op, Txn::Create(create))
            }
            1 => (Op::Delete, Txn::Delete(pool.any())),
            2 => (Op::SetData, Txn::SetData(pool.any())),
            3 => (Op::SetAcl, Txn::SetAcl(pool.any())),
            4 => (Op::CreateSession, Txn::CreateSession(pool.any())),
            5 => {
                let paths: Option<Vec<&str>> = pool.any();
                let paths = paths.map(|paths| {
                    paths.into_iter().filter(|path| !path.is_empty()).collect::<Vec<_>>()
                });
                (Op::CloseSession, Txn::CloseSession(paths))
            }
            6 => (Op::Error, Txn::Error(pool.any())),
            7 => (Op::Check, Txn::Check(pool.any())),
            _ => (Op::Multi, Txn::Multi(pool.any())),
        };
        let header = TxnHeader { op: op.number(), ..pool.any() };
        // As servers write it: an old digest of 0 could stand for paths.
        let digest = pool.any::<Option<i64>>().map(|digest| TxnDigest { version: 2, digest });
        Self { header, txn, digest }
    }
}

/// What was read is written as it was, and nothing may be missing of it or stand behind it.
fn round_trip<'a, T: Field<'a> + PartialEq + Debug>(value: &T, bytes: &'a [u8]) {
    assert_eq!(T::from_bytes(bytes).as_ref(), Ok(value));
}

macro_rules! all_records {
    ($do:ident!($($argument:tt)*)) => {
        $do!($($argument)*;
            Id, Acl, Stat, StatPersisted, FileHeader, SessionRow, AclRow, NodeRow, QuorumPacket,
            LearnerInfo, ConnectRequest, RequestHeader, CreateRequest, CreateTtlRequest,
            VersionRequest, SetDataRequest, SetAclRequest, WatchRequest, PathRequest,
            SetWatchesRequest, SetWatches2Request, AddWatchRequest, RemoveWatchesRequest, ReconfigRequest,
            AuthPacket, SaslRequest, MultiRequest, MultiReadRequest, ConnectReply, ReplyHeader,
            WatcherEvent, PathReply, CreateReply, StatReply, DataReply, AclReply, NamesReply,
            ChildrenReply, NumberReply, WhoAmIReply, ErrorReply, SaslReply, MultiReply, TxnHeader,
            TxnDigest, SetDataTxn, SetAclTxn, CheckTxn, SubTxn, Transaction)
    };
}

macro_rules! all_round_trip {
    ($pool:ident; $($name:ident),*) => {$({
        let value: $name = $pool.any();
        let bytes = value.to_bytes();
        round_trip(&value, &bytes);
        // Cut off anywhere it is no such record, or a shorter one.
        for end in 0..bytes.len() {
            if let Ok(shorter) = $name::from_bytes(&bytes[..end]) {
                // Old logs leave out how many children the parent had; it counts as -1.
                assert!(shorter != value || bytes[end..] == [0xff; 4], "{end} bytes of {value:?}");
            }
        }
    })*};
}

macro_rules! none_panics {
    ($bytes:ident; $($name:ident),*) => {$(
        if let Ok(value) = $name::from_bytes($bytes) {
            let again = value.to_bytes();
            assert!(again.len() <= 4 * $bytes.len() + 64, "{} bytes of {}", again.len(), $bytes.len());
            round_trip(&value, &again);
        }
    )*};
}

fn buffers() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..4)
}

proptest! {
    #[test]
    fn every_record_round_trips(
        seed: u64,
        texts in prop::collection::vec("\\PC{0,12}", 1..6),
        buffers in buffers(),
    ) {
        let random = StdRng::seed_from_u64(seed);
        let mut pool = Pool { texts: &texts, buffers: &buffers, random };
        all_records!(all_round_trip!(pool));
    }

    #[test]
    fn the_length_of_a_message_is_told_before_it_is_there(
        seed: u64,
        texts in prop::collection::vec("\\PC{0,12}", 1..6),
        buffers in buffers(),
        behind in 0..20usize,
    ) {
        let random = StdRng::seed_from_u64(seed);
        let mut pool = Pool { texts: &texts, buffers: &buffers, random };
        let packet: QuorumPacket<'_> = pool.any();
        let mut bytes = packet.to_bytes();
        let size = bytes.len();
        for end in 0..size {
            let needed = packet_bytes(&bytes[..end]).unwrap();
            prop_assert!(end < needed && needed <= size, "{needed} at {end} of {size}");
        }
        bytes.resize(size + behind, 0);
        prop_assert_eq!(packet_bytes(&bytes), Ok(size));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = bytes.as_slice();
        all_records!(none_panics!(bytes));
        if let Ok(needed) = packet_bytes(bytes) {
            prop_assert!(needed >= 16);
        }
    }

    /// Small numbers are lengths that nearly fit.
    #[test]
    fn no_short_lengths_make_a_reader_panic(
        numbers in prop::collection::vec(prop_oneof![-2..6i32, Just(14), Just(i32::MAX)], 0..60),
        end in 0..4usize,
    ) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        let bytes = &bytes[..bytes.len().saturating_sub(end)];
        all_records!(none_panics!(bytes));
    }

    #[test]
    fn rows_round_trip_however_the_bytes_come(
        seed: u64,
        texts in prop::collection::vec("[a-zé]{1,9}", 1..6),
        buffers in buffers(),
        at_once in 1..50usize,
    ) {
        let random = StdRng::seed_from_u64(seed);
        let mut pool = Pool { texts: &texts, buffers: &buffers, random };
        let (sessions, acls): (Vec<SessionRow>, Vec<AclRow>) = (pool.any(), pool.any());
        let mut nodes: Vec<NodeRow<'_>> = pool.any();
        nodes.insert(0, NodeRow { path: "", ..pool.any() });
        let mut bytes = Vec::new();
        write_tables(sessions.iter(), acls.iter(), &mut bytes);
        nodes.iter().for_each(|node| node.write(&mut bytes));
        NODES_END.write(&mut bytes);
        bytes.extend(b"behind");

        let mut found = (Vec::new(), Vec::new(), Vec::new());
        let (mut decoder, mut start, mut come) = (Decoder::default(), 0, 0);
        loop {
            match decoder.next(&bytes[start..come]) {
                Ok(Next::Need(size)) => {
                    prop_assert!(size > come - start, "it asks for what it has");
                    prop_assert!(start + size <= bytes.len() - 6, "it asks for too much");
                    come = (come + at_once).min(bytes.len());
                }
                Ok(Next::Skip(size)) => start += size,
                Ok(Next::Row(size)) => {
                    match decoder.read(&bytes[start..start + size]) {
                        Ok(Row::Session(row)) => found.0.push(row),
                        Ok(Row::Acl(row)) => found.1.push(row),
                        Ok(Row::Node(row)) => found.2.push(row),
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                    start += size;
                }
                Ok(Next::End(size)) => {
                    start += size;
                    break;
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
        prop_assert_eq!(&bytes[start..], b"behind");
        prop_assert_eq!(found, (sessions, acls, nodes));
    }

    #[test]
    fn no_bytes_make_the_rows_panic_or_stand_still(
        numbers in prop::collection::vec(prop_oneof![-2..6i32, any::<i32>()], 0..100),
    ) {
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
        let (mut decoder, mut start) = (Decoder::default(), 0);
        loop {
            let rest = &bytes[start..];
            match decoder.next(rest) {
                Ok(Next::Need(size)) => {
                    prop_assert!(size > rest.len());
                    break;
                }
                Ok(Next::Skip(size)) => start += size,
                Ok(Next::Row(size)) => {
                    prop_assert!(size > 0);
                    if decoder.read(&rest[..size]).is_err() {
                        break;
                    }
                    start += size;
                }
                Ok(Next::End(_)) | Err(_) => break,
            }
        }
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_before_they_are_believed() {
    let claim = |length: i32| length.to_be_bytes().to_vec();
    assert_eq!(<&str>::from_bytes(&claim(i32::MAX)), Err(Error::Short));
    assert_eq!(<&str>::from_bytes(&claim(-2)), Err(Error::Length(-2)));
    assert_eq!(Vec::<&str>::from_bytes(&claim(i32::MAX)), Err(Error::Length(i32::MAX)));
    assert_eq!(Vec::<Acl>::from_bytes(&claim(-1)), Ok(Vec::new()));
    assert_eq!(<&str>::from_bytes(&[0, 0, 0, 1, 0xff]), Err(Error::Utf8));
    assert_eq!(bool::from_bytes(&[1, 2]), Err(Error::Behind(1)));
}

#[test]
fn rows_beyond_the_bounds_are_refused_at_their_length() {
    let tables = |numbers: &[i32]| -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    };
    let refused = |bytes: &[u8]| -> RowError {
        let (mut decoder, mut start) = (Decoder::default(), 0);
        loop {
            match decoder.next(&bytes[start..]) {
                Ok(Next::Skip(size)) => start += size,
                Ok(Next::Row(size)) => {
                    decoder.read(&bytes[start..start + size]).unwrap();
                    start += size;
                }
                Ok(next) => panic!("{next:?}"),
                Err(error) => return error,
            }
        }
    };
    assert_eq!(refused(&tables(&[-1])), RowError::Count { what: "sessions", count: -1 });
    assert_eq!(refused(&tables(&[0, -5])), RowError::Count { what: "access lists", count: -5 });
    // A list that claims four billion entries is none; one identity of 2 GiB neither.
    for entry in [[-7, 0, 0], [1, 31, i32::MAX]] {
        let bytes = tables(&[&[0, 1, 0, 0], entry.as_slice()].concat());
        let error = refused(&bytes);
        assert!(matches!(error, RowError::Count { .. } | RowError::Length { .. }), "{error}");
    }
    // The root comes first, and once.
    assert_eq!(refused(&[tables(&[0, 0, 1]), b"a".to_vec()].concat()), RowError::Root);
    let root = NodeRow { path: "", data: None, acl: -1, stat: StatPersisted::default() }.to_bytes();
    let bytes = [tables(&[0, 0]), root.clone(), root.clone()].concat();
    assert_eq!(refused(&bytes), RowError::Root);
    let path = refused(&[tables(&[0, 0]), root.clone(), tables(&[i32::MAX])].concat());
    assert!(path.to_string().starts_with("a path of 2147483647 bytes"), "{path}");
    let data = [tables(&[0, 0]), root, tables(&[4]), b"/abc".to_vec(), tables(&[1 << 30])].concat();
    let data = refused(&data);
    assert_eq!(data.to_string(), "data of 1073741824 bytes: it can have 0 to 67108864");
}

#[test]
fn old_transactions_are_read() {
    // A create from before 3.4, without the parent's cversion.
    let header = TxnHeader { client_id: 1, cxid: 2, zxid: 3, time: 4, op: Op::Create.number() };
    let mut bytes = header.to_bytes();
    "/a".write(&mut bytes);
    None::<&[u8]>.write(&mut bytes);
    vec![Acl::open()].write(&mut bytes);
    true.write(&mut bytes);
    let transaction = Transaction::from_bytes(&bytes).unwrap();
    assert_eq!(
        transaction.txn,
        Txn::Create(CreateTxn {
            path: "/a",
            data: None,
            acl: vec![Acl::open()],
            kind: CreateKind::Ephemeral,
            parent_cversion: -1,
        })
    );
    // The end of a session without a list, with and without a digest.
    let header = TxnHeader { op: Op::CloseSession.number(), ..header };
    for digest in [None, Some(TxnDigest { version: 2, digest: 0 })] {
        let closed = Transaction { header, txn: Txn::CloseSession(None), digest };
        assert_eq!(Transaction::from_bytes(&closed.to_bytes()), Ok(closed.clone()));
    }
}

#[test]
fn a_new_epoch_begins_with_its_first_transaction() {
    assert!(follows(0x1_0000_0007, 0x1_0000_0008));
    assert!(follows(0x1_0000_0007, 0x3_0000_0001));
    assert!(follows(0x3_0000_0000, 0x3_0000_0001));
    assert!(!follows(0x1_0000_0007, 0x3_0000_0002));
    assert!(!follows(0x1_0000_0007, 0x1_0000_0009));
    assert!(!follows(0x3_0000_0007, 0x1_0000_0008));
}

#[test]
fn messages_beyond_the_bounds_are_refused_at_their_length() {
    let numbers = |numbers: &[i32]| -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    };
    for (bytes, expected) in [
        (numbers(&[]), Ok(16)),
        (numbers(&[8, 0, 1, -1]), Ok(20)),
        (numbers(&[8, 0, 1, -1, -1]), Ok(20)),
        (numbers(&[8, 0, 1, 3]), Ok(23)),
        (numbers(&[8, 0, 1, i32::MAX]), Err(Error::Length(i32::MAX))),
        (numbers(&[8, 0, 1, -2]), Err(Error::Length(-2))),
        (numbers(&[8, 0, 1, -1, i32::MAX]), Err(Error::Length(i32::MAX))),
        (numbers(&[8, 0, 1, -1, 2, 0, 0, 0, 0]), Ok(36)),
        (numbers(&[8, 0, 1, -1, 2, 0, -7]), Err(Error::Length(-7))),
    ] {
        assert_eq!(packet_bytes(&bytes), expected, "{bytes:?}");
    }
}

#[test]
fn identities_that_are_not_utf8_are_replaced_as_zookeeper_does() {
    let mut bytes = Vec::new();
    Some(b"digest".as_slice()).write(&mut bytes);
    Some(b"a\xff:x".as_slice()).write(&mut bytes);
    let mut reader = Reader::new(&bytes);
    let id: Id = reader.field().unwrap();
    assert_eq!((id.scheme.as_str(), id.id.as_str()), ("digest", "a\u{fffd}:x"));
    assert_eq!(reader.end(), Ok(()));
}
