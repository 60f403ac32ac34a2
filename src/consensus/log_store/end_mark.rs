//! How far the log was synced, beside sled's own file.
//!
//! sled takes damage for the half of a last write and drops what lies behind it without a word, and
//! a journal has no more than its bytes say. So each sync has a number, kept with what was written
//! and, once the sync is done, here: if a lower one is found when the log is opened, something that
//! was acknowledged is missing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const FILE: &str = "synced";
const BYTES: usize = 12;

/// The file that holds the number of the last sync.
#[derive(Debug)]
pub(super) struct EndMark(File);

impl EndMark {
    /// Opens the mark in `dir`, and makes it if there is none; returns its number too. A mark that
    /// a loss of power left half written counts as none: it knows nothing.
    ///
    /// # Errors
    /// When the file system fails.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, u64)> {
        let path = dir.join(FILE);
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        let mut bytes = [0; BYTES];
        let number = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => parse(&bytes).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        Ok((Self(file), number))
    }

    /// Notes that the sync of that number is done. It is not synced itself: after a loss of power
    /// an older number stands here, never a newer one.
    ///
    /// # Errors
    /// When the file system fails.
    pub(super) fn note(&self, number: u64) -> io::Result<()> {
        let number = number.to_be_bytes();
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&number);
        bytes[8..].copy_from_slice(&crc32fast::hash(&number).to_be_bytes());
        self.0.write_all_at(&bytes, 0)
    }
}

fn parse(bytes: &[u8; BYTES]) -> Option<u64> {
    let (number, crc) = bytes.split_first_chunk::<8>()?;
    (crc32fast::hash(number).to_be_bytes() == crc).then(|| u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_there_after_opening_again_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (mark, number) = EndMark::open(dir.path()).unwrap();
        assert_eq!(number, 0);
        mark.note(7).unwrap();
        mark.note(300).unwrap();
        assert_eq!(EndMark::open(dir.path()).unwrap().1, 300);
        std::fs::write(dir.path().join(FILE), [9; BYTES]).unwrap();
        assert_eq!(EndMark::open(dir.path()).unwrap().1, 0);
    }
}
