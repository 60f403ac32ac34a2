//! Transaction log files (`log.<zxid of the first in hex>`): a head, then entries, each with a
//! checksum before and an end byte behind it; zeros to the end of the room that was taken ahead.

use std::io::{self, Read, Seek, Write};

use super::window::Window;
use crate::jute::Field;
use crate::jute::file::{FORMAT_VERSION, FileHeader, LOG_MAGIC};
use crate::limits::ZK_TRANSACTION_BYTES_MAX;

/// Why a file is no log, or not a sound one.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It can't be read.
    #[error("reading at byte {offset}: {source}")]
    Read {
        /// How far it was read.
        offset: u64,
        /// Why not further.
        source: io::Error,
    },
    /// It is something else.
    #[error("no transaction log of ZooKeeper: it begins with {0:#010x} instead of {LOG_MAGIC:#x}")]
    Magic(i32),
    /// It is of a version that nobody knows.
    #[error("a transaction log of version {0}; {FORMAT_VERSION} can be read")]
    Version(i32),
    /// A length that can't be.
    #[error(
        "the entry at byte {offset} claims {length} bytes; it can have {ZK_TRANSACTION_BYTES_MAX}"
    )]
    Length {
        /// Where the entry begins.
        offset: u64,
        /// What it claims.
        length: i32,
    },
    /// The bytes are not those that were written.
    #[error("the checksum of the entry at byte {offset} does not fit: the file is damaged")]
    Checksum {
        /// Where the entry begins.
        offset: u64,
    },
    /// It has become shorter than what was read of it.
    #[error(
        "the file was cut to {length} bytes after {offset} had been read: \
         its server has taken transactions back"
    )]
    Cut {
        /// How far it was read.
        offset: u64,
        /// How long it is.
        length: u64,
    },
}

/// How the entries ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogEnd {
    /// With the file, or with zeros.
    Whole,
    /// Within an entry, which its server had not written to its end when it stopped.
    Torn {
        /// Where that entry begins.
        offset: u64,
    },
}

/// Bytes of the head.
const HEAD: usize = 16;
/// Bytes before an entry: checksum and length.
const ENTRY_HEAD: usize = 8 + 4;
/// The byte behind each entry.
const ENTRY_END: u8 = b'B';

/// What comes next in a file.
enum Look {
    /// An entry of so many bytes.
    Entry(usize),
    /// Nothing more.
    End(LogEnd),
}

/// Reads a file entry by entry; entries borrow from its buffer.
pub struct LogReader<R> {
    window: Window<R>,
    head_read: bool,
    end: Option<LogEnd>,
}

impl<R: Read> LogReader<R> {
    /// At the first entry of `input`, which needs no buffer of its own.
    pub fn new(input: R) -> Self {
        Self { window: Window::new(input), head_read: false, end: None }
    }

    /// Where the next entry begins, in bytes.
    pub fn offset(&self) -> u64 {
        self.window.offset()
    }

    /// How the entries ended, once they have.
    pub fn end(&self) -> Option<LogEnd> {
        self.end
    }

    /// The bytes of the next transaction; none at the end.
    ///
    /// # Errors
    /// See [`LogError`]; there is no way on after one.
    pub fn next_entry(&mut self) -> Result<Option<&[u8]>, LogError> {
        if self.end.is_some() {
            return Ok(None);
        }
        match self.look()? {
            Look::Entry(length) => Ok(Some(self.take(length))),
            Look::End(end) => {
                self.end = Some(end);
                Ok(None)
            }
        }
    }

    /// Looks at what comes next, and uses nothing of it.
    fn look(&mut self) -> Result<Look, LogError> {
        if !self.head_read
            && let Some(end) = self.read_head()?
        {
            return Ok(Look::End(end));
        }
        if !self.fill(ENTRY_HEAD)? {
            // Less than an entry's head: zeros, or the beginning of one.
            let zeros = self.window.unused().iter().all(|byte| *byte == 0);
            return Ok(Look::End(if zeros { LogEnd::Whole } else { self.torn() }));
        }
        let head = self.window.unused();
        let (sum, length) = head[..ENTRY_HEAD].split_at(8);
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | i64::from(*byte));
        let (sum, length) = (number(sum), number(length) as i32);
        if length == 0 {
            return Ok(Look::End(LogEnd::Whole));
        }
        let size = usize::try_from(length).ok().filter(|size| *size <= ZK_TRANSACTION_BYTES_MAX);
        let size = size.ok_or(LogError::Length { offset: self.offset(), length })?;
        if !self.fill(ENTRY_HEAD + size + 1)? {
            return Ok(Look::End(self.torn()));
        }
        let entry = &self.window.unused()[ENTRY_HEAD..];
        if entry[size] != ENTRY_END {
            return Ok(Look::End(self.torn()));
        }
        if i64::from(simd_adler32::adler32(&&entry[..size])) != sum {
            return Err(LogError::Checksum { offset: self.offset() });
        }
        Ok(Look::Entry(size))
    }

    /// Reads the head, or says how the file ends without one.
    fn read_head(&mut self) -> Result<Option<LogEnd>, LogError> {
        self.fill(HEAD)?;
        let head = &self.window.unused()[..HEAD.min(self.window.unused().len())];
        if head.iter().all(|byte| *byte == 0) {
            // Nothing, or room that was taken and not used.
            return Ok(Some(LogEnd::Whole));
        }
        let Ok(header) = FileHeader::from_bytes(head) else { return Ok(Some(self.torn())) };
        if header.magic != LOG_MAGIC {
            return Err(LogError::Magic(header.magic));
        }
        if header.version != FORMAT_VERSION {
            return Err(LogError::Version(header.version));
        }
        self.window.take(HEAD);
        self.head_read = true;
        Ok(None)
    }

    fn take(&mut self, length: usize) -> &[u8] {
        let entry = self.window.take(ENTRY_HEAD + length + 1);
        &entry[ENTRY_HEAD..ENTRY_HEAD + length]
    }

    fn torn(&self) -> LogEnd {
        let nothing = self.window.unused().is_empty();
        if nothing { LogEnd::Whole } else { LogEnd::Torn { offset: self.window.offset() } }
    }

    fn fill(&mut self, need: usize) -> Result<bool, LogError> {
        let offset = self.window.offset();
        self.window.fill(need).map_err(|source| LogError::Read { offset, source })
    }
}

impl<R: Read + Seek> LogReader<R> {
    /// The bytes of the next transaction of a file that its server still writes; none as long as
    /// there is no further one. Half an entry is waited for, whatever of it is there already.
    ///
    /// # Errors
    /// See [`LogError`]. That a checksum does not fit is told only by [`Self::next_entry`], which
    /// goes on from here when the file is known to be finished.
    pub fn poll_entry(&mut self) -> Result<Option<&[u8]>, LogError> {
        let length = match self.look() {
            Ok(Look::Entry(length)) => length,
            Ok(Look::End(_)) | Err(LogError::Checksum { .. } | LogError::Length { .. }) => {
                // What is there may be half of what is being written: it is read again.
                let offset = self.offset();
                let refreshed = self.window.refresh();
                let length = refreshed.map_err(|source| LogError::Read { offset, source })?;
                if length < offset {
                    return Err(LogError::Cut { offset, length });
                }
                match self.look() {
                    Ok(Look::Entry(length)) => length,
                    Ok(Look::End(_)) | Err(LogError::Checksum { .. } | LogError::Length { .. }) => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        Ok(Some(self.take(length)))
    }
}

/// Writes a file, byte for byte as ZooKeeper does, but for the zeros behind the entries.
#[derive(Debug)]
pub struct LogWriter<W: Write> {
    out: W,
    bytes: Vec<u8>,
}

impl<W: Write> LogWriter<W> {
    /// Writes the head. Each entry is one write, so `out` may have a buffer.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn new(mut out: W) -> io::Result<Self> {
        let header = FileHeader { magic: LOG_MAGIC, version: FORMAT_VERSION, dbid: 0 };
        out.write_all(&header.to_bytes())?;
        Ok(Self { out, bytes: Vec::new() })
    }

    /// Writes a transaction, as [`crate::jute::txn::Transaction`] writes itself.
    ///
    /// # Errors
    /// If it can't be written, or is beyond what a reader takes.
    pub fn append(&mut self, transaction: &[u8]) -> io::Result<()> {
        let length = transaction.len();
        if length == 0 || length > ZK_TRANSACTION_BYTES_MAX {
            let message = format!(
                "a transaction of {length} bytes: it can have 1 to {ZK_TRANSACTION_BYTES_MAX}"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.bytes.clear();
        i64::from(simd_adler32::adler32(&transaction)).write(&mut self.bytes);
        Some(transaction).write(&mut self.bytes);
        self.bytes.push(ENTRY_END);
        self.out.write_all(&self.bytes)
    }

    /// The output, with everything written to it.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, SeekFrom};

    use proptest::prelude::*;

    use super::*;

    fn write(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut writer = LogWriter::new(Vec::new()).unwrap();
        for entry in entries {
            writer.append(entry).unwrap();
        }
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Result<LogEnd, LogError>) {
        let mut reader = LogReader::new(bytes);
        let mut entries = Vec::new();
        loop {
            match reader.next_entry() {
                Ok(Some(entry)) => entries.push(entry.to_vec()),
                Ok(None) => return (entries, Ok(reader.end().unwrap())),
                Err(error) => return (entries, Err(error)),
            }
        }
    }

    fn some() -> Vec<Vec<u8>> {
        vec![b"first".to_vec(), vec![0], vec![7; 300], b"BBBB".to_vec()]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..400), 0..8),
            zeros in 0..100usize,
        ) {
            let mut bytes = write(&entries);
            bytes.resize(bytes.len() + zeros, 0);
            let (found, end) = read(&bytes);
            prop_assert_eq!(found, entries);
            prop_assert_eq!(end.unwrap(), LogEnd::Whole);
        }

        #[test]
        fn no_bytes_make_it_panic(
            head: bool,
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(b'B'), any::<u8>()], 0..200),
        ) {
            let head = if head { write(&[]) } else { Vec::new() };
            let (found, _) = read(&[head, bytes].concat());
            prop_assert!(found.is_empty(), "a checksum by chance");
        }

        /// A file that grows by any steps, into room that was or was not taken ahead.
        #[test]
        fn a_growing_file_is_followed(
            entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 0..6),
            at_once in 1..50usize,
            zeros in prop_oneof![Just(0usize), Just(1000)],
        ) {
            let bytes = write(&entries);
            let file = tempfile::NamedTempFile::new().unwrap();
            let mut out = file.reopen().unwrap();
            let mut reader = LogReader::new(file.reopen().unwrap());
            let mut found = Vec::new();
            prop_assert!(reader.poll_entry().unwrap().is_none());
            // The head goes first, and then room is taken.
            out.write_all(&[&bytes[..HEAD], &vec![0; zeros]].concat()).unwrap();
            out.seek(SeekFrom::Start(HEAD as u64)).unwrap();
            prop_assert!(reader.poll_entry().unwrap().is_none());
            for piece in bytes[HEAD..].chunks(at_once) {
                out.write_all(piece).unwrap();
                while let Some(entry) = reader.poll_entry().unwrap() {
                    found.push(entry.to_vec());
                }
            }
            prop_assert_eq!(&found, &entries);
            prop_assert_eq!(reader.next_entry().unwrap(), None);
            prop_assert_eq!(reader.end(), Some(LogEnd::Whole));
        }
    }

    #[test]
    fn a_torn_tail_is_the_end_and_said() {
        let (entries, bytes) = (some(), write(&some()));
        let mut starts = vec![HEAD];
        for entry in &entries {
            starts.push(starts[starts.len() - 1] + ENTRY_HEAD + entry.len() + 1);
        }
        for end in 0..bytes.len() {
            let whole = starts.iter().filter(|start| **start <= end).count().saturating_sub(1);
            let (found, how) = read(&bytes[..end]);
            assert_eq!(found, entries[..whole], "cut at {end}");
            let rest = &bytes[starts.get(whole).filter(|_| end >= HEAD).copied().unwrap_or(0)..end];
            let torn = rest.len() >= ENTRY_HEAD || rest.iter().any(|byte| *byte != 0);
            assert_eq!(matches!(how.unwrap(), LogEnd::Torn { .. }), torn, "cut at {end}");
            // The rest of the room is zeros.
            let mut padded = bytes[..end].to_vec();
            padded.resize(end + 500, 0);
            assert_eq!(read(&padded).0, entries[..whole], "cut at {end}, zeros behind it");
        }
    }

    #[test]
    fn a_damaged_entry_is_never_handed_on() {
        let (entries, bytes) = (some(), write(&some()));
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            let (found, end) = read(&damaged);
            assert!(found.len() < entries.len() || at / 8 < HEAD, "bit {at}");
            assert!(entries.starts_with(&found), "bit {at}: {end:?}");
        }
    }

    #[test]
    fn hostile_lengths_are_refused_at_once() {
        let mut bytes = write(&[]);
        bytes.extend([0; 8]);
        for length in [i32::MAX, -1, i32::MIN, ZK_TRANSACTION_BYTES_MAX as i32 + 1] {
            let claims = [bytes.as_slice(), &length.to_be_bytes(), &[b'B'; 100]].concat();
            assert!(
                matches!(read(&claims).1, Err(LogError::Length { length: found, .. }) if found == length)
            );
        }
    }

    #[test]
    fn other_files_are_told() {
        assert_eq!(
            read(b"\x1f\x8b\x08\0 something packed").1.unwrap_err().to_string(),
            "no transaction log of ZooKeeper: it begins with 0x1f8b0800 instead of 0x5a4b4c47"
        );
        assert!(matches!(read(b"ZKLG\0\0\0\x03\0\0\0\0\0\0\0\0").1, Err(LogError::Version(3))));
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_followed_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        (&mut file.as_file()).write_all(&write(&some())).unwrap();
        let mut reader = LogReader::new(file.reopen().unwrap());
        while reader.poll_entry().unwrap().is_some() {}
        file.as_file().set_len(30).unwrap();
        assert!(matches!(reader.poll_entry(), Err(LogError::Cut { length: 30, .. })));
    }

    #[test]
    fn what_no_reader_takes_is_not_written() {
        let mut writer = LogWriter::new(Cursor::new(Vec::new())).unwrap();
        assert!(writer.append(b"").is_err());
        let mut out = writer.finish().unwrap();
        assert_eq!(out.seek(SeekFrom::End(0)).unwrap(), HEAD as u64);
    }
}
