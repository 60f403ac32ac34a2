//! One node, as small as it can be: there may be millions. All of it is one piece of memory, its
//! numbers packed: most are small, or close to another one.

use std::fmt;

use triomphe::ThinArc;

use super::acl::AclId;
use super::digest;
use crate::jute::file::NodeRow;
use crate::jute::op::Owner;
use crate::jute::{Stat, StatPersisted};

/// Bytes of data that are kept with the numbers. More have a place of their own, or each change of
/// a number would copy them.
const DATA_WITHIN: usize = 512;
/// The most that the numbers take: six of 64 bits, six of 32, and whether there are data.
const NUMBERS_MAX: usize = 6 * 10 + 6 * 5 + 1;

/// Data with a place of their own.
type Apart = ThinArc<(), u8>;

/// A node beside its path and its children. A clone is the same one, and costs nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Znode(ThinArc<Option<Apart>, u8>);

/// The numbers of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) stat: StatPersisted,
    pub(super) acl: AclId,
    pub(super) children: u32,
    /// Its share of the tree's digest.
    pub(super) crc: u32,
    /// Whether it has data. None is not the same as empty: ZooKeeper's digest and clients tell
    /// them apart.
    has_data: bool,
}

impl Numbers {
    /// As bytes: seven bits in each, the lowest first, the last one without the eighth.
    fn pack(&self, out: &mut [u8; NUMBERS_MAX + DATA_WITHIN]) -> usize {
        let StatPersisted { czxid, mzxid, ctime, mtime, pzxid, .. } = self.stat;
        let StatPersisted { version, cversion, aversion, ephemeral_owner, .. } = self.stat;
        let mut at = 0;
        let mut put = |mut number: u64| {
            while number >= 0x80 {
                out[at] = number as u8 | 0x80;
                number >>= 7;
                at += 1;
            }
            out[at] = number as u8;
            at += 1;
        };
        put(u64::from(self.has_data));
        put(u64::from(self.children));
        put(u64::from(self.acl));
        put(u64::from(self.crc));
        put(ephemeral_owner.cast_unsigned());
        put(czxid.cast_unsigned());
        put(near(czxid, mzxid));
        put(near(czxid, pzxid));
        put(ctime.cast_unsigned());
        put(near(ctime, mtime));
        for version in [version, cversion, aversion] {
            put(near(0, version.into()));
        }
        at
    }

    /// The numbers at the front of `bytes`, and where they end.
    fn unpack(bytes: &[u8]) -> (Self, usize) {
        let mut at = 0;
        let mut next = || {
            let (number, end) = number(bytes, at);
            at = end;
            number
        };
        let (has_data, children) = (next() == 1, next() as u32);
        let (acl, crc) = (next() as AclId, next() as u32);
        let ephemeral_owner = next().cast_signed();
        let czxid = next().cast_signed();
        let (mzxid, pzxid) = (far(czxid, next()), far(czxid, next()));
        let ctime = next().cast_signed();
        let mtime = far(ctime, next());
        let [version, cversion, aversion] = [(); 3].map(|()| far(0, next()) as i32);
        let stat = StatPersisted {
            czxid,
            mzxid,
            ctime,
            mtime,
            version,
            cversion,
            aversion,
            ephemeral_owner,
            pzxid,
        };
        (Self { stat, acl, children, crc, has_data }, at)
    }
}

/// The number that begins at `at`, and where it ends.
fn number(bytes: &[u8], mut at: usize) -> (u64, usize) {
    let (mut number, mut shift) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        number |= u64::from(byte & 0x7f) << shift;
        at += 1;
        if byte & 0x80 == 0 || shift > 56 {
            break;
        }
        shift += 7;
    }
    (number, at)
}

/// How far `value` is from `base`: small both for a little more and a little less.
fn near(base: i64, value: i64) -> u64 {
    let more = value.wrapping_sub(base);
    ((more << 1) ^ (more >> 63)).cast_unsigned()
}

/// What is so far from `base`.
fn far(base: i64, distance: u64) -> i64 {
    let more = (distance >> 1).cast_signed() ^ -(distance & 1).cast_signed();
    base.wrapping_add(more)
}

impl Znode {
    /// A node at `path` without children.
    pub(super) fn new(path: &str, data: Option<&[u8]>, acl: AclId, stat: StatPersisted) -> Self {
        let numbers = Numbers { stat, acl, children: 0, crc: 0, has_data: false };
        Self::with_data(path, numbers, data)
    }

    /// A node at `path` of those numbers, but for the checksum, which is computed.
    pub(super) fn with_data(path: &str, mut numbers: Numbers, data: Option<&[u8]>) -> Self {
        numbers.crc = digest::of(path, data, &numbers.stat);
        numbers.has_data = data.is_some();
        match data {
            Some(long) if long.len() > DATA_WITHIN => {
                Self::put_together(&numbers, Some(Apart::from_header_and_slice((), long)), &[])
            }
            data => Self::put_together(&numbers, None, data.unwrap_or_default()),
        }
    }

    /// The node at `path` with other numbers, but for the checksum, which is computed.
    pub(super) fn with_numbers(&self, path: &str, mut numbers: Numbers) -> Self {
        numbers.crc = digest::of(path, self.data(), &numbers.stat);
        self.renumbered(&numbers)
    }

    /// The node with another number of children, which its checksum does not cover.
    pub(super) fn with_children(&self, children: u32) -> Self {
        self.renumbered(&Numbers { children, ..self.numbers() })
    }

    fn renumbered(&self, numbers: &Numbers) -> Self {
        let apart = self.0.header.header.clone();
        let within = if apart.is_none() { self.data() } else { None };
        Self::put_together(numbers, apart, within.unwrap_or_default())
    }

    fn put_together(numbers: &Numbers, apart: Option<Apart>, within: &[u8]) -> Self {
        let mut bytes = [0; NUMBERS_MAX + DATA_WITHIN];
        let end = numbers.pack(&mut bytes);
        let whole = end + within.len();
        bytes[end..whole].copy_from_slice(within);
        Self(ThinArc::from_header_and_slice(apart, &bytes[..whole]))
    }

    /// Its numbers.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers::unpack(&self.0.slice).0
    }

    /// The `nth` of the packed numbers.
    fn nth(&self, nth: usize) -> u64 {
        let (mut number_at, mut at) = (0, 0);
        for _ in 0..=nth {
            (number_at, at) = number(&self.0.slice, at);
        }
        number_at
    }

    /// The data.
    pub fn data(&self) -> Option<&[u8]> {
        if let Some(apart) = &self.0.header.header {
            return Some(&apart.slice);
        }
        let (numbers, end) = Numbers::unpack(&self.0.slice);
        numbers.has_data.then(|| &self.0.slice[end..])
    }

    /// Bytes of data.
    pub fn data_len(&self) -> usize {
        self.data().map_or(0, <[u8]>::len)
    }

    /// How many children it has.
    pub fn children(&self) -> u32 {
        self.nth(1) as u32
    }

    /// The number of its access list.
    pub(super) fn acl(&self) -> AclId {
        self.nth(2) as AclId
    }

    /// Its share of the tree's digest.
    pub(super) fn crc(&self) -> u32 {
        self.nth(3) as u32
    }

    /// Whom it belongs to.
    pub fn owner(&self) -> Owner {
        Owner::of(self.nth(4).cast_signed())
    }

    /// As files have it.
    pub fn persisted(&self) -> StatPersisted {
        self.numbers().stat
    }

    /// As clients see it. What is kept counts children made; clients are shown both those made and
    /// those removed. That it is a container or has a time to live is not shown.
    pub fn stat(&self) -> Stat {
        let Numbers { stat, children, .. } = self.numbers();
        let StatPersisted { czxid, mzxid, ctime, mtime, version, aversion, pzxid, .. } = stat;
        let num_children = i32::try_from(children).unwrap_or(i32::MAX);
        let cversion = stat.cversion.wrapping_mul(2).wrapping_sub(num_children);
        let ephemeral_owner = match Owner::of(stat.ephemeral_owner) {
            Owner::Session(session) => session,
            _ => 0,
        };
        let data_length = i32::try_from(self.data_len()).unwrap_or(i32::MAX);
        Stat {
            czxid,
            mzxid,
            ctime,
            mtime,
            version,
            cversion,
            aversion,
            ephemeral_owner,
            data_length,
            num_children,
            pzxid,
        }
    }

    /// As a row of a snapshot; `path` is empty for the root.
    pub(super) fn row<'a>(&'a self, path: &'a str, acl: i64) -> NodeRow<'a> {
        NodeRow { path, data: self.data(), acl, stat: self.persisted() }
    }
}

impl fmt::Debug for Znode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (numbers, data) = (self.numbers(), self.data());
        f.debug_struct("Znode").field("numbers", &numbers).field("data", &data).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stat_of(longs: [i64; 6], ints: [i32; 3]) -> StatPersisted {
        let [czxid, mzxid, ctime, mtime, ephemeral_owner, pzxid] = longs;
        let [version, cversion, aversion] = ints;
        StatPersisted {
            czxid,
            mzxid,
            ctime,
            mtime,
            version,
            cversion,
            aversion,
            ephemeral_owner,
            pzxid,
        }
    }

    /// Any number, and the ones at the ends more often.
    fn long() -> impl Strategy<Value = i64> {
        prop_oneof![Just(i64::MIN), Just(i64::MAX), Just(-1), Just(0), any::<i64>()]
    }

    fn int() -> impl Strategy<Value = i32> {
        prop_oneof![Just(i32::MIN), Just(i32::MAX), Just(-1), Just(0), any::<i32>()]
    }

    proptest! {
        #[test]
        fn all_that_a_node_has_is_kept(
            longs in prop::array::uniform6(long()),
            ints in prop::array::uniform3(int()),
            acl in any::<u32>(),
            children in prop_oneof![Just(u32::MAX), any::<u32>()],
            length in prop::option::of(prop_oneof![0..3usize, Just(DATA_WITHIN), 0..2000usize]),
        ) {
            let (stat, data) = (stat_of(longs, ints), length.map(|length| vec![0xab; length]));
            let node = Znode::new("/a", data.as_deref(), acl, stat);
            let grown = node.with_children(children);
            for (node, children) in [(&node, 0), (&grown, children)] {
                prop_assert_eq!(node.persisted(), stat);
                prop_assert_eq!(node.data(), data.as_deref());
                prop_assert_eq!(node.data_len(), length.unwrap_or(0));
                prop_assert_eq!(node.acl(), acl);
                prop_assert_eq!(node.children(), children);
                prop_assert_eq!(node.owner(), Owner::of(stat.ephemeral_owner));
                prop_assert_eq!(node.crc(), digest::of("/a", data.as_deref(), &stat));
            }
            let other = Numbers { stat: StatPersisted::default(), ..grown.numbers() };
            let other = grown.with_numbers("/a", other);
            prop_assert_eq!(other.data(), data.as_deref());
            prop_assert_eq!(other.numbers().children, children);
            prop_assert_eq!(other.crc(), digest::of("/a", data.as_deref(), &other.persisted()));
        }
    }

    #[test]
    fn long_data_are_not_copied_with_the_numbers() {
        let node = Znode::new("/a", Some(&[7; DATA_WITHIN + 1]), 1, StatPersisted::default());
        let place = |node: &Znode| node.data().map(<[u8]>::as_ptr);
        assert_eq!(place(&node.with_children(9)), place(&node));
    }

    #[test]
    fn numbers_take_little() {
        let zxid = 0x5_0012_3456;
        let at = 1_700_000_000_000;
        let stat = stat_of([zxid, zxid + 400, at, at + 90_000, 0, zxid], [3, 0, 0]);
        let node = Znode::new("/a", Some(b"data"), 1, stat);
        assert!(node.0.slice.len() <= 36, "{} bytes", node.0.slice.len());
    }
}
