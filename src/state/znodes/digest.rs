//! The digest of a tree, kept as it changes: the sum of every node's checksum, as ZooKeeper 3.6
//! and later compute it (version 2 of the formula; `DigestCalculator` there).

use crate::jute::StatPersisted;

/// What is under here does not count: each server of an ensemble has its own.
const NOT_COUNTED: &str = "/zookeeper/";

/// Whether a node counts.
pub(super) fn counts(path: &str) -> bool {
    !path.starts_with(NOT_COUNTED)
}

/// A node's checksum. `path` is `/` for the root, which counts as empty.
pub(super) fn of(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
    let path = if path == "/" { "" } else { path };
    of_bytes(path.as_bytes(), data, stat)
}

/// The same as a server computes whose default character set is ASCII (ZOOKEEPER-3915): each
/// UTF-16 unit beyond it counts as a question mark.
pub(super) fn of_ascii(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
    let path = if path == "/" { "" } else { path };
    let ascii: Vec<u8> = path
        .encode_utf16()
        .map(|unit| u8::try_from(unit).ok().filter(u8::is_ascii).unwrap_or(b'?'))
        .collect();
    of_bytes(&ascii, data, stat)
}

fn of_bytes(path: &[u8], data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
    let mut tail = [0; 60];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        tail[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    for long in [stat.czxid, stat.mzxid, stat.pzxid, stat.ctime, stat.mtime] {
        put(&long.to_be_bytes());
    }
    for int in [stat.version, stat.cversion, stat.aversion] {
        put(&int.to_be_bytes());
    }
    put(&stat.ephemeral_owner.to_be_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(path);
    crc.update(data.unwrap_or_default());
    crc.update(&tail);
    crc.finalize()
}
