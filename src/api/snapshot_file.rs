//! A saved snapshot: the state's bytes, then a word and their checksum, so that a damaged file is
//! known before it is restored.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::view::time::Time;
use crate::state::{State, snapshot};

/// The word before the checksum.
const TRAILER: &[u8; 8] = b"ORCHSUM1";
/// Bytes behind the state's own.
pub(super) const TRAILER_BYTES: usize = 16;

/// A file that is no saved snapshot, or a damaged one.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// It can't be read.
    #[error("the snapshot can't be read: {0}")]
    Io(#[from] io::Error),
    /// Its state can't be read.
    #[error("the snapshot can't be read: {0}")]
    Snapshot(#[from] snapshot::SnapshotError),
    /// Its end is not there.
    #[error("the snapshot has no checksum at its end: it is not whole, or is no snapshot")]
    NoTrailer,
    /// Its bytes are not those that were saved.
    #[error("the snapshot is damaged: its checksum is {found:016x}, and {expected:016x} was saved")]
    Checksum {
        /// Of the bytes there are.
        found: u64,
        /// Of those that were saved.
        expected: u64,
    },
}

/// What a saved snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotSummary {
    /// The cluster it was saved from, as 16 hexadecimal digits.
    pub cluster_id: String,
    /// Index of the last log entry in it.
    pub index: u64,
    /// When that was applied.
    pub at: Time,
    /// Jobs in it.
    pub jobs: u64,
    /// Nodes in it.
    pub nodes: u64,
    /// Allocations in it.
    pub allocations: u64,
    /// Variables in it.
    pub variables: u64,
    /// Index of the last event before it.
    pub last_event: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Of its bytes, as 16 hexadecimal digits.
    pub checksum: String,
}

/// Counts and sums what passes.
struct Summed<T> {
    inner: T,
    sum: Xxh3,
    bytes: u64,
}

impl<T> Summed<T> {
    fn new(inner: T) -> Self {
        Self { inner, sum: Xxh3::new(), bytes: 0 }
    }

    fn count(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.count(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.count(&bytes[..read]);
        Ok(read)
    }
}

/// The bytes that follow a state with this checksum.
pub(super) fn trailer(checksum: u64) -> [u8; TRAILER_BYTES] {
    let mut bytes = [0; TRAILER_BYTES];
    bytes[..8].copy_from_slice(TRAILER);
    bytes[8..].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// Whether bytes with the checksum `found` may end with `trailer`.
pub(super) fn check(trailer: &[u8], found: u64) -> Result<(), SnapshotFileError> {
    let (word, sum) = trailer.split_first_chunk::<8>().ok_or(SnapshotFileError::NoTrailer)?;
    let sum: [u8; 8] = sum.try_into().map_err(|_| SnapshotFileError::NoTrailer)?;
    if word != TRAILER {
        return Err(SnapshotFileError::NoTrailer);
    }
    match u64::from_be_bytes(sum) {
        expected if expected != found => Err(SnapshotFileError::Checksum { found, expected }),
        _ => Ok(()),
    }
}

/// Saves `state`.
///
/// # Errors
/// When `out` fails.
pub fn write(state: &State, out: impl Write) -> Result<(), SnapshotFileError> {
    let mut out = Summed::new(out);
    snapshot::write(state, &mut out)?;
    let checksum = out.sum.digest();
    out.inner.write_all(&trailer(checksum))?;
    out.inner.flush()?;
    Ok(())
}

/// What a saved snapshot holds; reads and checks all of it.
///
/// # Errors
/// See [`SnapshotFileError`].
pub fn inspect(input: impl Read) -> Result<SnapshotSummary, SnapshotFileError> {
    let mut input = Summed::new(input);
    let state = snapshot::read(&mut input)?;
    let (found, bytes) = (input.sum.digest(), input.bytes);
    // One byte more than there should be tells whether something follows.
    let mut rest = Vec::new();
    input.inner.take(TRAILER_BYTES as u64 + 1).read_to_end(&mut rest)?;
    check(&rest, found)?;
    Ok(SnapshotSummary {
        cluster_id: format!("{:016x}", state.cluster_id()),
        index: state.stamp().index,
        at: state.stamp().at.into(),
        jobs: state.jobs().count() as u64,
        nodes: state.nodes().count() as u64,
        allocations: state.allocs().count() as u64,
        variables: state.variables().count() as u64,
        last_event: state.last_event(),
        bytes: bytes + TRAILER_BYTES as u64,
        checksum: format!("{found:016x}"),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::node::Node;
    use crate::state::{Command, Stamp};

    fn saved() -> Vec<u8> {
        let mut state = State::default();
        let stamp = Stamp { index: 7, at: crate::model::time::Timestamp(1000) };
        state.apply(stamp, &Command::RegisterNode { spec: Node::example("n1").spec }.into());
        let mut file = Vec::new();
        write(&state, &mut file).unwrap();
        file
    }

    #[test]
    fn a_summary_tells_what_was_saved() {
        let file = saved();
        let summary = inspect(file.as_slice()).unwrap();
        assert_eq!((summary.index, summary.nodes, summary.jobs), (7, 1, 0));
        assert_eq!(summary.bytes, file.len() as u64);
    }

    #[test]
    fn a_file_that_is_not_whole_or_goes_on_is_refused() {
        let file = saved();
        for length in 0..file.len() {
            assert!(inspect(&file[..length]).is_err(), "{length} bytes");
        }
        assert!(inspect([file.as_slice(), b"x"].concat().as_slice()).is_err());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(place in any::<prop::sample::Index>(), bit in 0..8) {
            let mut file = saved();
            let place = place.index(file.len());
            file[place] ^= 1u8 << bit;
            prop_assert!(inspect(file.as_slice()).is_err());
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(inspect(bytes.as_slice()).is_err());
        }
    }
}
