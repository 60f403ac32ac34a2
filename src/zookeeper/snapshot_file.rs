//! Snapshot files (`snapshot.<zxid in hex>`): a head, the rows of the tree, a seal over all of it;
//! since 3.6 the tree's digest with a seal, since 3.9 the last transaction with one more.
//!
//! A file is written while transactions go on: its name tells the last one that is surely in it;
//! later ones may be in it in part, and take nothing by being applied again.

use std::io::{self, Read, Write};

use simd_adler32::Adler32;

pub use super::packed::Packing;
use super::packed::Unpacked;
use super::window::Window;
use crate::jute::Field;
use crate::jute::file::{
    AclRow, FORMAT_VERSION, FileHeader, NODES_END, NodeRow, SNAPSHOT_MAGIC, SessionRow,
};
use crate::jute::rows::{self, Decoder, Next, Row, RowError};

/// Why a file is no whole snapshot. Offsets count unpacked bytes.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It can't be read, or not be unpacked.
    #[error("reading at byte {offset}: {source}")]
    Read {
        /// How far it was read.
        offset: u64,
        /// Why not further.
        source: io::Error,
    },
    /// It is empty, as ZooKeeper leaves one when its disk is full.
    #[error("the file is empty")]
    Empty,
    /// It is cut off.
    #[error("the file ends at byte {offset}, within {place}: it was not written to its end")]
    Short {
        /// Where it ends.
        offset: u64,
        /// Within what.
        place: &'static str,
    },
    /// It is something else.
    #[error("no snapshot of ZooKeeper: it begins with {0:#010x} instead of {SNAPSHOT_MAGIC:#x}")]
    Magic(i32),
    /// It is of a version that nobody knows.
    #[error("a snapshot of version {0}; {FORMAT_VERSION} can be read")]
    Version(i32),
    /// A row that can't be.
    #[error("at byte {offset}, in {place}: {error}")]
    Row {
        /// Where it begins.
        offset: u64,
        /// In which table.
        place: &'static str,
        /// Why.
        error: RowError,
    },
    /// The bytes are not those that were written.
    #[error("the seal at byte {offset} does not fit: the file is damaged")]
    Seal {
        /// Where it stands.
        offset: u64,
    },
    /// A digest in an old form that is no number.
    #[error("the digest at byte {offset} is no hexadecimal number")]
    Digest {
        /// Where it stands.
        offset: u64,
    },
}

/// The tree's digest as a file has it. A server that has applied no transaction since its start
/// writes zeros here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotDigest {
    /// The transaction after which the tree had it.
    pub zxid: i64,
    /// Of the formula.
    pub version: i32,
    /// The digest.
    pub digest: i64,
}

/// What comes behind the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tail {
    /// Since 3.6, unless digests are off.
    pub digest: Option<SnapshotDigest>,
    /// The last transaction; since 3.9.
    pub last_zxid: Option<i64>,
}

/// Bytes of a seal: the checksum, and a path.
const SEAL: usize = 8 + 4 + NODES_END.len();

/// Reads a file row by row; rows borrow from its buffer.
pub struct SnapshotReader<R: Read> {
    window: Window<Unpacked<R>>,
    packing: Packing,
    rows: Decoder,
    tail: Option<Tail>,
}

impl<R: Read> SnapshotReader<R> {
    /// Reads the head. `input` needs no buffer of its own.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn open(input: R) -> Result<Self, SnapshotError> {
        let input =
            Unpacked::open(input).map_err(|source| SnapshotError::Read { offset: 0, source })?;
        let packing = input.packing();
        let mut reader =
            Self { window: Window::new(input), packing, rows: Decoder::default(), tail: None };
        if !reader.fill(1)? {
            return Err(SnapshotError::Empty);
        }
        let header: FileHeader = reader.field(16, "its head")?;
        if header.magic != SNAPSHOT_MAGIC {
            return Err(SnapshotError::Magic(header.magic));
        }
        if header.version != FORMAT_VERSION {
            return Err(SnapshotError::Version(header.version));
        }
        Ok(reader)
    }

    /// How the file is packed.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// Unpacked bytes read so far.
    pub fn offset(&self) -> u64 {
        self.window.offset()
    }

    /// The next row; none at the end, when all seals have been found right.
    ///
    /// # Errors
    /// See [`SnapshotError`]; there is no way on after one.
    pub fn next_row(&mut self) -> Result<Option<Row<'_>>, SnapshotError> {
        if self.tail.is_some() {
            return Ok(None);
        }
        let size = loop {
            match self.rows.next(self.window.unused()).map_err(|error| self.row(error))? {
                Next::Need(size) => {
                    if !self.fill(size)? {
                        return Err(self.short(self.rows.place()));
                    }
                }
                Next::Skip(size) => {
                    self.window.take(size);
                }
                Next::Row(size) => break size,
                Next::End(size) => {
                    self.window.take(size);
                    self.tail = Some(self.read_tail()?);
                    return Ok(None);
                }
            }
        };
        let (offset, place) = (self.window.offset(), self.rows.place());
        let row = self.rows.read(self.window.take(size));
        row.map(Some).map_err(|error| SnapshotError::Row { offset, place, error })
    }

    /// What comes behind the tree, once that has been read.
    pub fn tail(&self) -> Option<Tail> {
        self.tail
    }

    fn read_tail(&mut self) -> Result<Tail, SnapshotError> {
        self.seal("the first seal")?;
        let mut tail = Tail::default();
        if self.fill(1)? {
            let zxid: i64 = self.field(8, "the digest")?;
            // With digests off the last transaction follows at once; then its seal fits here.
            let last = self.fill(SEAL)? && self.seal_fits();
            if last {
                tail.last_zxid = Some(zxid);
                self.seal("the second seal")?;
                return Ok(tail);
            }
            tail.digest = Some(self.read_digest(zxid)?);
            self.seal("the second seal")?;
        }
        if self.fill(1)? {
            tail.last_zxid = Some(self.field(8, "the last transaction")?);
            self.seal("the third seal")?;
        }
        Ok(tail)
    }

    fn read_digest(&mut self, zxid: i64) -> Result<SnapshotDigest, SnapshotError> {
        let version: i32 = self.field(4, "the digest")?;
        if version >= crate::jute::digest::VERSION {
            let digest = self.field(8, "the digest")?;
            return Ok(SnapshotDigest { zxid, version, digest });
        }
        // Text before version 2.
        let offset = self.window.offset();
        let wrong = || SnapshotError::Digest { offset };
        let length: i32 = self.field(4, "the digest")?;
        let length =
            usize::try_from(length).ok().filter(|length| *length <= 16).ok_or_else(wrong)?;
        if !self.fill(length)? {
            return Err(self.short("the digest"));
        }
        let text = std::str::from_utf8(self.window.take(length)).map_err(|_| wrong())?;
        let digest = u64::from_str_radix(text, 16).map_err(|_| wrong())?.cast_signed();
        Ok(SnapshotDigest { zxid, version, digest })
    }

    fn seal_fits(&mut self) -> bool {
        let seal = seal(self.window.sum());
        self.window.unused().starts_with(&seal)
    }

    fn seal(&mut self, place: &'static str) -> Result<(), SnapshotError> {
        if !self.fill(SEAL)? {
            return Err(self.short(place));
        }
        if !self.seal_fits() {
            return Err(SnapshotError::Seal { offset: self.window.offset() });
        }
        self.window.take(SEAL);
        Ok(())
    }

    fn field<T: for<'a> Field<'a>>(
        &mut self,
        size: usize,
        place: &'static str,
    ) -> Result<T, SnapshotError> {
        if !self.fill(size)? {
            return Err(self.short(place));
        }
        T::from_bytes(self.window.take(size)).map_err(|error| {
            let error = RowError::Field { what: place, error };
            SnapshotError::Row { offset: self.window.offset(), place, error }
        })
    }

    fn fill(&mut self, need: usize) -> Result<bool, SnapshotError> {
        self.window.fill(need).map_err(|source| match source.kind() {
            // A packed file that is cut off.
            io::ErrorKind::UnexpectedEof => self.short(self.rows.place()),
            _ => SnapshotError::Read { offset: self.end(), source },
        })
    }

    fn end(&self) -> u64 {
        self.window.offset() + self.window.unused().len() as u64
    }

    fn short(&self, place: &'static str) -> SnapshotError {
        SnapshotError::Short { offset: self.end(), place }
    }

    fn row(&self, error: RowError) -> SnapshotError {
        SnapshotError::Row { offset: self.window.offset(), place: self.rows.place(), error }
    }
}

/// A seal with that checksum.
fn seal(sum: u32) -> [u8; SEAL] {
    let mut seal = [0; SEAL];
    seal[4..8].copy_from_slice(&sum.to_be_bytes());
    seal[8..].copy_from_slice(b"\0\0\0\x01/");
    seal
}

/// How much a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Contents {
    /// Sessions.
    pub sessions: u64,
    /// Access lists.
    pub acls: u64,
    /// Nodes.
    pub nodes: u64,
    /// Bytes, unpacked.
    pub bytes: u64,
    /// What comes behind them.
    pub tail: Tail,
}

/// Reads a snapshot to its end: whether it is whole, and how much it holds.
///
/// # Errors
/// See [`SnapshotError`].
pub fn verify(input: impl Read) -> Result<Contents, SnapshotError> {
    let mut reader = SnapshotReader::open(input)?;
    let mut contents = Contents::default();
    while let Some(row) = reader.next_row()? {
        match row {
            Row::Session(_) => contents.sessions += 1,
            Row::Acl(_) => contents.acls += 1,
            Row::Node(_) => contents.nodes += 1,
        }
    }
    contents.bytes = reader.offset();
    contents.tail = reader.tail().unwrap_or_default();
    Ok(contents)
}

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 64 << 10;

/// Writes a file as ZooKeeper 3.6 and later do, byte for byte; not packed.
pub struct SnapshotWriter<W: Write> {
    out: W,
    sum: Adler32,
    bytes: Vec<u8>,
}

impl<W: Write> SnapshotWriter<W> {
    /// Writes the head and the tables. `out` needs no buffer of its own.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn new<'s, 'a>(
        out: W,
        sessions: impl ExactSizeIterator<Item = &'s SessionRow>,
        acls: impl ExactSizeIterator<Item = &'a AclRow>,
    ) -> io::Result<Self> {
        let header = FileHeader { magic: SNAPSHOT_MAGIC, version: FORMAT_VERSION, dbid: -1 };
        let mut bytes = header.to_bytes();
        rows::write_tables(sessions, acls, &mut bytes);
        let mut writer = Self { out, sum: Adler32::new(), bytes };
        writer.flush(WRITE_BYTES)?;
        Ok(writer)
    }

    /// Writes a node: the root first, and each one after those above it.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn node(&mut self, node: &NodeRow<'_>) -> io::Result<()> {
        node.write(&mut self.bytes);
        self.flush(WRITE_BYTES)
    }

    /// Writes what comes behind the nodes, with the seals, and hands the output back. A last
    /// transaction is for 3.9 and later.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(mut self, tail: Tail) -> io::Result<W> {
        NODES_END.write(&mut self.bytes);
        self.seal()?;
        if let Some(SnapshotDigest { zxid, version, digest }) = tail.digest {
            zxid.write(&mut self.bytes);
            version.write(&mut self.bytes);
            digest.write(&mut self.bytes);
            self.seal()?;
        }
        if let Some(zxid) = tail.last_zxid {
            zxid.write(&mut self.bytes);
            self.seal()?;
        }
        self.out.flush()?;
        Ok(self.out)
    }

    fn seal(&mut self) -> io::Result<()> {
        self.flush(1)?;
        self.bytes.extend(seal(self.sum.finish()));
        self.flush(1)
    }

    /// Writes what was gathered if it is that much.
    fn flush(&mut self, least: usize) -> io::Result<()> {
        if self.bytes.len() >= least {
            self.sum.write(&self.bytes);
            self.out.write_all(&self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::jute::{Acl, StatPersisted};

    #[derive(Debug, Clone, PartialEq, Default)]
    struct Tree {
        sessions: Vec<SessionRow>,
        acls: Vec<AclRow>,
        /// Path, data and access list.
        nodes: Vec<(String, Option<Vec<u8>>, i64)>,
        tail: Tail,
    }

    fn write(tree: &Tree) -> Vec<u8> {
        let (sessions, acls) = (tree.sessions.iter(), tree.acls.iter());
        let mut writer = SnapshotWriter::new(Vec::new(), sessions, acls).unwrap();
        for (path, data, acl) in &tree.nodes {
            let stat = StatPersisted { czxid: path.len() as i64, ..StatPersisted::default() };
            writer.node(&NodeRow { path, data: data.as_deref(), acl: *acl, stat }).unwrap();
        }
        writer.finish(tree.tail).unwrap()
    }

    fn read(bytes: impl Read) -> Result<Tree, SnapshotError> {
        let mut reader = SnapshotReader::open(bytes)?;
        let mut tree = Tree::default();
        while let Some(row) = reader.next_row()? {
            match row {
                Row::Session(session) => tree.sessions.push(session),
                Row::Acl(acl) => tree.acls.push(acl),
                Row::Node(NodeRow { path, data, acl, stat }) => {
                    assert_eq!(stat.czxid, path.len() as i64);
                    tree.nodes.push((path.to_owned(), data.map(<[u8]>::to_vec), acl));
                }
            }
        }
        assert!(reader.next_row()?.is_none());
        tree.tail = reader.tail().unwrap();
        Ok(tree)
    }

    fn small() -> Tree {
        Tree {
            sessions: vec![SessionRow { id: 7, timeout: 4000 }],
            acls: vec![AclRow { key: 1, acl: vec![Acl::open()] }],
            nodes: vec![
                (String::new(), Some(Vec::new()), -1),
                ("/ä".to_owned(), Some(b"data".to_vec()), 1),
                // A list that is missing, as a fuzzy file has it.
                ("/ä/b".to_owned(), None, 99),
            ],
            tail: Tail {
                digest: Some(SnapshotDigest { zxid: 9, version: 2, digest: -5 }),
                last_zxid: Some(10),
            },
        }
    }

    /// Hands bytes out in small pieces.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(out.len());
            self.0.read(&mut out[..count])
        }
    }

    fn tails() -> impl Strategy<Value = Tail> {
        let digest = prop::option::of(any::<(i64, i64)>());
        (digest, any::<Option<i64>>()).prop_map(|(digest, last_zxid)| Tail {
            digest: digest.map(|(zxid, digest)| SnapshotDigest { zxid, version: 2, digest }),
            last_zxid,
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            sessions in prop::collection::vec(any::<(i64, i32)>(), 0..5),
            acls in prop::collection::vec((any::<i64>(), 0..4usize), 0..5),
            nodes in prop::collection::vec(
                ("/[a-zé]{0,8}x", prop::option::of(prop::collection::vec(any::<u8>(), 0..300))),
                0..8,
            ),
            tail in tails(),
            at_once in 1..100usize,
        ) {
            let mut tree = Tree { tail, ..Tree::default() };
            tree.sessions.extend(sessions.iter().map(|(id, timeout)| SessionRow { id: *id, timeout: *timeout }));
            tree.acls.extend(acls.iter().map(|(key, n)| AclRow { key: *key, acl: vec![Acl::open(); *n] }));
            tree.nodes.push((String::new(), None, -1));
            tree.nodes.extend(nodes.into_iter().map(|(path, data)| (path, data, 1)));
            let bytes = write(&tree);
            prop_assert_eq!(read(Dribble(&bytes, at_once)).unwrap(), tree.clone());
            let contents = verify(bytes.as_slice()).unwrap();
            prop_assert_eq!(contents.nodes, tree.nodes.len() as u64);
            prop_assert_eq!(contents.bytes, bytes.len() as u64);
        }

        #[test]
        fn no_bytes_make_it_panic(
            magic in any::<bool>(),
            mut bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..200),
        ) {
            if magic {
                bytes.splice(0..0, write(&small())[..16].iter().copied());
            }
            prop_assert!(verify(bytes.as_slice()).is_err());
        }
    }

    #[test]
    fn a_file_of_each_version_is_read() {
        for tail in [
            Tail::default(),
            Tail { last_zxid: None, ..small().tail },
            Tail { digest: None, ..small().tail },
            small().tail,
        ] {
            let tree = Tree { tail, ..small() };
            assert_eq!(read(write(&tree).as_slice()).unwrap(), tree);
        }
    }

    #[test]
    fn digests_of_the_first_version_are_text() {
        let mut tree = small();
        let mut bytes = write(&Tree { tail: Tail::default(), ..small() });
        bytes.extend(9i64.to_be_bytes());
        bytes.extend(1i32.to_be_bytes());
        "ff".write(&mut bytes);
        let sum = simd_adler32::adler32(&bytes.as_slice());
        bytes.extend(seal(sum));
        let digest = SnapshotDigest { zxid: 9, version: 1, digest: 255 };
        tree.tail = Tail { digest: Some(digest), last_zxid: None };
        assert_eq!(read(bytes.as_slice()).unwrap(), tree);
    }

    #[test]
    fn a_torn_file_is_told_from_a_whole_one() {
        let bytes = write(&small());
        // Older versions end with the first or the second seal.
        let no_tail = write(&Tree { tail: Tail::default(), ..small() }).len();
        let no_last = no_tail + 8 + 4 + 8 + SEAL;
        assert!(matches!(read(&b""[..]), Err(SnapshotError::Empty)));
        for end in 1..bytes.len() {
            match read(&bytes[..end]) {
                Ok(_) => assert!(end == no_tail || end == no_last, "cut at {end}"),
                Err(SnapshotError::Short { offset, .. }) => assert_eq!(offset, end as u64),
                Err(error) => panic!("cut at {end}: {error}"),
            }
        }
    }

    #[test]
    fn every_bit_is_under_a_seal() {
        let bytes = write(&small());
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(verify(damaged.as_slice()).is_err(), "bit {at}");
        }
    }

    #[test]
    fn messages_say_what_and_where() {
        let told = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        assert_eq!(
            told(b"PK\x03\x04 is no snapshot"),
            "no snapshot of ZooKeeper: it begins with 0x504b0304 instead of 0x5a4b534e"
        );
        let bytes = write(&small());
        assert_eq!(
            told(&bytes[..100]),
            "the file ends at byte 100, within the nodes: it was not written to its end"
        );
        let mut bytes = bytes.clone();
        bytes[16 + 4 + 12..][..4].fill(0xff);
        assert_eq!(
            told(&bytes),
            "at byte 32, in the access lists: -1 access lists: a count can't be negative"
        );
    }
}
