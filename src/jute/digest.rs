//! The digest of a tree: the sum of every node's checksum, as ZooKeeper 3.6 and later compute it
//! (version 2 of the formula; `DigestCalculator` there). One change costs no more than the nodes
//! that it touches, and two trees whose digests are equal have the same paths, data and stats.
//!
//! Not in it: access lists (but for `aversion`), sessions, and what is below `/zookeeper`.

use super::data::StatPersisted;

/// Version of the formula.
pub const VERSION: i32 = 2;
/// What is under here does not count: each server of an ensemble has its own.
const NOT_COUNTED: &str = "/zookeeper/";

/// Whether a node counts.
pub fn counts(path: &str) -> bool {
    !path.starts_with(NOT_COUNTED)
}

/// A node's checksum. `path` is `/` or empty for the root, which counts as empty.
pub fn of(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
    let path = if path == "/" { "" } else { path };
    of_bytes(path.as_bytes(), data, stat)
}

/// The same as a server computes whose default character set is ASCII (ZOOKEEPER-3915): each
/// UTF-16 unit beyond it counts as a question mark.
pub fn of_ascii(path: &str, data: Option<&[u8]>, stat: &StatPersisted) -> u32 {
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

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: StatPersisted = StatPersisted {
        czxid: 0,
        mzxid: 0,
        ctime: 0,
        mtime: 0,
        version: 0,
        cversion: 0,
        aversion: 0,
        ephemeral_owner: 0,
        pzxid: 0,
    };

    #[test]
    fn an_empty_tree_has_the_digest_that_zookeeper_prints() {
        let nodes = ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"];
        let counted = nodes.into_iter().filter(|path| counts(path));
        let sum: u64 = counted.map(|path| u64::from(of(path, None, &ZERO))).sum();
        assert_eq!(sum, 1_371_985_504);
        assert_eq!(of("", Some(b""), &ZERO), of_ascii("/", None, &ZERO));
    }

    #[test]
    fn other_letters_are_question_marks_in_ascii() {
        let ascii = of("/caf?/?", Some(b"x"), &ZERO);
        assert_eq!(of_ascii("/café/中", Some(b"x"), &ZERO), ascii);
        assert_ne!(of("/café/中", Some(b"x"), &ZERO), ascii);
    }
}
