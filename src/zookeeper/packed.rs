//! Files that may be packed: gzip, snappy as Java's library frames it, or not at all, told by their
//! first bytes.

use std::io::{self, Chain, Cursor, ErrorKind, Read};

use flate2::read::MultiGzDecoder;

use crate::limits::ZK_SNAPPY_BLOCK_BYTES_MAX;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const SNAPPY_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Bytes of the snappy frame's head: magic, version, oldest version that can read it.
const SNAPPY_HEAD: usize = 16;

type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

/// What a file holds once it is unpacked.
#[derive(Debug)]
pub(super) enum Unpacked<R: Read> {
    /// It was not packed.
    Plain(Whole<R>),
    /// By gzip.
    Gzip(Box<MultiGzDecoder<Whole<R>>>),
    /// By snappy.
    Snappy(Box<Snappy<Whole<R>>>),
}

impl<R: Read> Unpacked<R> {
    /// Looks at the first bytes of `input`.
    pub(super) fn open(mut input: R) -> io::Result<Self> {
        let mut head = Vec::new();
        input.by_ref().take(SNAPPY_MAGIC.len() as u64).read_to_end(&mut head)?;
        let gzip = head.starts_with(GZIP_MAGIC);
        let snappy = head.starts_with(SNAPPY_MAGIC);
        let whole = Cursor::new(head).chain(input);
        Ok(match (gzip, snappy) {
            (true, _) => Self::Gzip(Box::new(MultiGzDecoder::new(whole))),
            (_, true) => Self::Snappy(Box::new(Snappy::new(whole))),
            _ => Self::Plain(whole),
        })
    }

    /// By what it was packed, for people.
    pub(super) fn packing(&self) -> Packing {
        match self {
            Self::Plain(_) => Packing::None,
            Self::Gzip(_) => Packing::Gzip,
            Self::Snappy(_) => Packing::Snappy,
        }
    }
}

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// By gzip.
    Gzip,
    /// By snappy, in the frames of Java's library.
    Snappy,
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(input) => input.read(out),
            Self::Gzip(input) => input.read(out),
            Self::Snappy(input) => input.read(out),
        }
    }
}

/// Blocks, each with its length before it; the head may come again where files were joined.
#[derive(Debug)]
pub(super) struct Snappy<R> {
    input: R,
    decoder: snap::raw::Decoder,
    packed: Vec<u8>,
    block: Vec<u8>,
    used: usize,
}

impl<R: Read> Snappy<R> {
    fn new(input: R) -> Self {
        let decoder = snap::raw::Decoder::new();
        Self { input, decoder, packed: Vec::new(), block: Vec::new(), used: 0 }
    }

    /// Unpacks the next block; whether there was one.
    fn next_block(&mut self) -> io::Result<bool> {
        let mut head = Vec::new();
        self.input.by_ref().take(4).read_to_end(&mut head)?;
        let Some(head) = head.first_chunk::<4>().filter(|_| head.len() == 4) else {
            return if head.is_empty() { Ok(false) } else { Err(ErrorKind::UnexpectedEof.into()) };
        };
        if SNAPPY_MAGIC.starts_with(head) {
            let mut rest = [0; SNAPPY_HEAD - 4];
            self.input.read_exact(&mut rest)?;
            return if rest.starts_with(&SNAPPY_MAGIC[4..]) {
                Ok(true)
            } else {
                Err(invalid("a head of snappy's frames that is none".to_owned()))
            };
        }
        let length = u32::from_be_bytes(*head) as usize;
        if length > ZK_SNAPPY_BLOCK_BYTES_MAX {
            return Err(too_long(length));
        }
        self.packed.clear();
        self.input.by_ref().take(length as u64).read_to_end(&mut self.packed)?;
        if self.packed.len() < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let unpacked = snap::raw::decompress_len(&self.packed).map_err(damaged)?;
        if unpacked > ZK_SNAPPY_BLOCK_BYTES_MAX {
            return Err(too_long(unpacked));
        }
        self.block.resize(unpacked, 0);
        self.decoder.decompress(&self.packed, &mut self.block).map_err(damaged)?;
        self.used = 0;
        Ok(true)
    }
}

impl<R: Read> Read for Snappy<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.used == self.block.len() && !out.is_empty() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let count = out.len().min(self.block.len() - self.used);
        out[..count].copy_from_slice(&self.block[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, message)
}

fn damaged(error: snap::Error) -> io::Error {
    invalid(format!("a block of snappy is damaged: {error}"))
}

fn too_long(length: usize) -> io::Error {
    invalid(format!(
        "a block of snappy with {length} bytes: it can have {ZK_SNAPPY_BLOCK_BYTES_MAX}"
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn snappy(bytes: &[u8]) -> Vec<u8> {
        let mut out = [SNAPPY_MAGIC.as_slice(), &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        for block in bytes.chunks(1000) {
            let block = snap::raw::Encoder::new().compress_vec(block).unwrap();
            out.extend((block.len() as u32).to_be_bytes());
            out.extend(block);
        }
        out
    }

    fn unpack(bytes: &[u8]) -> io::Result<(Packing, Vec<u8>)> {
        let mut unpacked = Unpacked::open(bytes)?;
        let mut out = Vec::new();
        unpacked.read_to_end(&mut out)?;
        Ok((unpacked.packing(), out))
    }

    #[test]
    fn each_packing_is_told_by_its_first_bytes() {
        let bytes: Vec<u8> = (0..10_000u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(unpack(&bytes).unwrap(), (Packing::None, bytes.clone()));
        assert_eq!(unpack(&gzip(&bytes)).unwrap(), (Packing::Gzip, bytes.clone()));
        assert_eq!(unpack(&snappy(&bytes)).unwrap(), (Packing::Snappy, bytes.clone()));
        // Joined files are one.
        let twice = [bytes.clone(), bytes.clone()].concat();
        let joined = [gzip(&bytes), gzip(&bytes)].concat();
        assert_eq!(unpack(&joined).unwrap(), (Packing::Gzip, twice.clone()));
        let joined = [snappy(&bytes), snappy(&bytes)].concat();
        assert_eq!(unpack(&joined).unwrap(), (Packing::Snappy, twice));
        for few in [&b""[..], b"Z", b"ZKSN"] {
            assert_eq!(unpack(few).unwrap(), (Packing::None, few.to_vec()));
        }
    }

    #[test]
    fn torn_and_hostile_packings_are_errors() {
        let bytes = vec![7; 50_000];
        for packed in [gzip(&bytes), snappy(&bytes)] {
            let torn = &packed[..packed.len() - 3];
            assert_eq!(unpack(torn).unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
        let head = [SNAPPY_MAGIC.as_slice(), &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        // A block that claims 2 GiB, one that claims to grow to 4 GiB, one that is noise.
        for block in [
            &[0x7f, 0xff, 0xff, 0xff, 1][..],
            &[0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0, 0, 0, 2, 9, 9],
        ] {
            let error = unpack(&[&head, block].concat()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        }
    }
}
