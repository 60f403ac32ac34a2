//! What ZooKeeper's clients and servers tell each other.

use orch::jute::quorum::{QuorumPacket, packet_bytes};
use orch::jute::reply::{ConnectReply, MultiReply, ReplyHeader};
use orch::jute::request::*;
use orch::jute::txn::Transaction;
use orch::jute::{Field, Op, Reader};

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
pub fn feed(data: &[u8]) {
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
