//! A window on a stream of bytes: what was read and not yet used. It grows with what comes in,
//! never by what a length in the stream claims.

use std::io::{ErrorKind, Read, Seek, SeekFrom};

use simd_adler32::Adler32;

use crate::limits::ZK_READ_BYTES;

/// Bytes that are read first.
const FIRST_BYTES: usize = 4 << 10;

/// The window and what it looks at.
pub(super) struct Window<R> {
    input: R,
    bytes: Vec<u8>,
    /// Unused bytes are from here …
    start: usize,
    /// … to here.
    end: usize,
    /// Of the byte at `start`, in the stream.
    offset: u64,
    /// Of all bytes used up to `summed`.
    sum: Adler32,
    summed: usize,
}

impl<R: Read> Window<R> {
    /// At the beginning of `input`.
    pub(super) fn new(input: R) -> Self {
        let sum = Adler32::new();
        Self { input, bytes: Vec::new(), start: 0, end: 0, offset: 0, sum, summed: 0 }
    }

    /// Reads until `need` unused bytes are there; whether they are.
    pub(super) fn fill(&mut self, need: usize) -> std::io::Result<bool> {
        while self.unused().len() < need {
            self.make_room(need);
            match self.input.read(&mut self.bytes[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(count) => self.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn make_room(&mut self, need: usize) {
        if self.start > 0 {
            self.add_to_sum();
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            (self.start, self.summed) = (0, 0);
        }
        if self.end == self.bytes.len() {
            // Twice what has come so far.
            let size = (self.bytes.len() * 2).clamp(FIRST_BYTES, need.max(ZK_READ_BYTES));
            self.bytes.resize(size, 0);
        }
    }

    fn add_to_sum(&mut self) {
        self.sum.write(&self.bytes[self.summed..self.start]);
        self.summed = self.start;
    }

    /// What is there and not used.
    pub(super) fn unused(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Uses `count` bytes, which are there.
    pub(super) fn take(&mut self, count: usize) -> &[u8] {
        let from = self.start;
        self.start = self.end.min(from + count);
        self.offset += (self.start - from) as u64;
        &self.bytes[from..self.start]
    }

    /// How many bytes were used.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Adler-32 of the bytes used.
    pub(super) fn sum(&mut self) -> u32 {
        self.add_to_sum();
        self.sum.finish()
    }
}

impl<R: Read + Seek> Window<R> {
    /// Forgets what is there and not used, since it may have changed: it is read again. The sum
    /// goes on from nothing. Says how long the stream is now.
    pub(super) fn refresh(&mut self) -> std::io::Result<u64> {
        (self.start, self.end, self.summed) = (0, 0, 0);
        self.sum = Adler32::new();
        let length = self.input.seek(SeekFrom::End(0))?;
        self.input.seek(SeekFrom::Start(self.offset))?;
        Ok(length)
    }
}
