//! What must hold for every reader of bytes from outside, whatever the bytes: it neither panics
//! nor hangs, and what it accepts it can write and read again.

use orch::jute::quorum::{QuorumPacket, packet_bytes};
use orch::jute::reply::{ConnectReply, MultiReply, ReplyHeader};
use orch::jute::request::*;
use orch::jute::rows::Row;
use orch::jute::txn::Transaction;
use orch::jute::{Field, Op, Reader};
use orch::marathon::{Options, app_json, definitions, translate};
use orch::model::allocation::{AllocReport, Assignment};
use orch::model::job_file::{self, Format};
use orch::model::node::NodeSpec;
use orch::state::codec::{self, BatchWriter};
use orch::state::{Stamp, State, snapshot};
use orch::zookeeper::snapshot_file::{self, SnapshotReader, SnapshotWriter};
use orch::zookeeper::txn_log_file::{LogReader, LogWriter};

/// A job file in one of its three forms, chosen by the first byte.
pub fn job_file(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let format = [Format::Yaml, Format::Json, Format::Toml][usize::from(*choice) % 3];
    let text = String::from_utf8_lossy(text);
    match job_file::read(&text, format) {
        Ok(jobs) => {
            assert!(!jobs.is_empty(), "a file without jobs is an error");
            for job in jobs {
                let bytes = codec::to_bytes(&job).expect("a job encodes");
                assert_eq!(codec::from_bytes(&bytes).as_ref(), Ok(&job));
            }
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            let lines = text.lines().count() as u32 + 1;
            for problem in problems {
                assert!(!problem.message.is_empty());
                assert!(problem.line <= lines, "{problem} is beyond the {lines} lines");
            }
        }
    }
}

/// A log entry: what is accepted is also applied.
pub fn log_entry(data: &[u8]) {
    let Ok((at, requests)) = codec::decode_batch(data) else { return };
    let mut batch = BatchWriter::new(at);
    let mut state = State::default();
    for (index, request) in (1..).zip(&requests) {
        batch.push(&codec::to_bytes(request).expect("a request encodes"));
        state.apply(Stamp { index, at }, request);
    }
    assert_eq!(codec::decode_batch(&batch.finish()), Ok((at, requests)));
}

/// A snapshot.
pub fn snapshot(data: &[u8]) {
    let mut rest = data;
    let Ok(state) = snapshot::read(&mut rest) else { return };
    let mut bytes = Vec::new();
    snapshot::write(&state, &mut bytes).expect("memory takes it");
    let again = snapshot::read(&mut bytes.as_slice()).expect("what was written reads");
    let mut twice = Vec::new();
    snapshot::write(&again, &mut twice).expect("memory takes it");
    assert!(bytes == twice, "a snapshot of a snapshot differs");
}

/// Marathon's definitions, stored or shown, chosen by the first byte: what comes of them is a job
/// file, or told.
pub fn marathon(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let json = match choice % 2 {
        0 => app_json(bytes).map(serde_json::Value::Object).ok(),
        _ => serde_json::from_slice(bytes).ok(),
    };
    let Some(json) = json else { return };
    let translation = translate(&definitions(json), &Options::default());
    for job in translation.jobs {
        assert_eq!(job_file::read(&job.file, Format::Yaml), Ok(vec![job.spec]));
    }
    for finding in translation.findings {
        assert!(!finding.why.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
    }
}

/// What servers and agents tell each other, its kind chosen by the first byte.
pub fn message(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 3 {
        0 => same_again::<Assignment>(bytes),
        1 => same_again::<AllocReport>(bytes),
        _ => same_again::<NodeSpec>(bytes),
    }
}

fn same_again<T>(bytes: &[u8])
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let Ok(value) = codec::from_bytes::<T>(bytes) else { return };
    let bytes = codec::to_bytes(&value).expect("it encodes");
    assert_eq!(codec::from_bytes(&bytes).as_ref(), Ok(&value));
}

/// A record that is read is written, and read again as it was.
macro_rules! record {
    ($name:ident, $bytes:expr) => {
        if let Ok(value) = $name::from_bytes($bytes) {
            let again = value.to_bytes();
            assert_eq!($name::from_bytes(&again).as_ref(), Ok(&value));
        }
    };
}

/// What ZooKeeper's clients and servers tell each other, its kind chosen by the first byte.
pub fn zookeeper_message(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    match choice % 6 {
        0 => record!(ConnectRequest, bytes),
        1 => request(bytes),
        2 => record!(Transaction, bytes),
        3 => {
            record!(QuorumPacket, bytes);
            // Its length is told by its fields.
            if let (Ok(_), Ok(size)) = (QuorumPacket::from_bytes(bytes), packet_bytes(bytes)) {
                assert_eq!(size, bytes.len());
            }
        }
        4 => record!(ConnectReply, bytes),
        _ => record!(MultiReply, bytes),
    }
}

/// A request: its header, and the record of its operation.
fn request(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    let Ok(header) = reader.field::<RequestHeader>() else { return };
    let bytes = reader.rest();
    match Op::of(header.op) {
        Some(Op::Create | Op::Create2 | Op::CreateContainer) => record!(CreateRequest, bytes),
        Some(Op::CreateTtl) => record!(CreateTtlRequest, bytes),
        Some(Op::Delete | Op::Check) => record!(VersionRequest, bytes),
        Some(Op::SetData) => record!(SetDataRequest, bytes),
        Some(Op::SetAcl) => record!(SetAclRequest, bytes),
        Some(Op::Multi) => record!(MultiRequest, bytes),
        Some(Op::MultiRead) => record!(MultiReadRequest, bytes),
        Some(Op::SetWatches) => record!(SetWatchesRequest, bytes),
        Some(Op::SetWatches2) => record!(SetWatches2Request, bytes),
        Some(Op::AddWatch) => record!(AddWatchRequest, bytes),
        Some(Op::RemoveWatches | Op::CheckWatches) => record!(RemoveWatchesRequest, bytes),
        Some(Op::Reconfig) => record!(ReconfigRequest, bytes),
        Some(Op::Auth) => record!(AuthPacket, bytes),
        Some(Op::Sasl) => record!(SaslRequest, bytes),
        Some(Op::Exists | Op::GetData | Op::GetChildren | Op::GetChildren2) => {
            record!(WatchRequest, bytes)
        }
        Some(_) => record!(PathRequest, bytes),
        None => record!(ReplyHeader, bytes),
    }
}

/// A snapshot file of ZooKeeper's: what is whole is written again as it was, unless it was packed.
pub fn zookeeper_snapshot(data: &[u8]) {
    let Ok(contents) = snapshot_file::verify(data) else { return };
    if contents.tail.digest.is_some_and(|digest| digest.version < 2) {
        // Only the newer form is written.
        return;
    }
    let Ok(mut reader) = SnapshotReader::open(data) else { panic!("it was read before") };
    let (mut sessions, mut acls) = (Vec::new(), Vec::new());
    let mut nodes = Vec::new();
    while let Some(row) = reader.next_row().expect("it was read before") {
        match row {
            Row::Session(session) => sessions.push(session),
            Row::Acl(acl) => acls.push(acl),
            Row::Node(node) => {
                nodes.push((
                    node.path.to_owned(),
                    node.data.map(<[u8]>::to_vec),
                    node.acl,
                    node.stat,
                ));
            }
        }
    }
    assert_eq!(
        (sessions.len() as u64, acls.len() as u64, nodes.len() as u64),
        (contents.sessions, contents.acls, contents.nodes)
    );
    let mut writer = SnapshotWriter::new(Vec::new(), sessions.iter(), acls.iter()).expect("memory");
    for (path, data, acl, stat) in &nodes {
        let node =
            orch::jute::file::NodeRow { path, data: data.as_deref(), acl: *acl, stat: *stat };
        writer.node(&node).expect("memory takes it");
    }
    let written = writer.finish(contents.tail).expect("memory takes it");
    let again = snapshot_file::verify(written.as_slice()).expect("what was written reads");
    assert_eq!((again.nodes, again.tail), (contents.nodes, contents.tail));
}

/// A transaction log of ZooKeeper's, and the transactions in it.
pub fn zookeeper_log(data: &[u8]) {
    let mut reader = LogReader::new(data);
    let mut writer = LogWriter::new(Vec::new()).expect("memory takes it");
    while let Ok(Some(entry)) = reader.next_entry() {
        record!(Transaction, entry);
        writer.append(entry).expect("memory takes it");
    }
    assert!(reader.offset() <= data.len() as u64);
    let written = writer.finish().expect("memory takes it");
    let (ours, theirs) = (written.get(16..), data.get(16..written.len()));
    assert!(reader.offset() == 0 || ours == theirs, "entries are written differently");
}
