//! The bytes of a log entry: a version byte, the proposer's time, and a batch of requests, each
//! MessagePack with field names behind its length. Readers of released versions stay for ever.

use super::command::Request;
use crate::limits::{BATCH_REQUESTS_MAX, ENTRY_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::model::time::Timestamp;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 1 + 8 + 4;
/// Deeper nesting than any type of ours has; stops an attack on the stack.
const DEPTH_MAX: usize = 64;

/// Bytes that are no log entry, or a request that is too large for one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Written by a newer release.
    #[error("entry format {0} is newer than this release knows; upgrade this server")]
    Version(u8),
    /// Ends too early, goes on too long, or makes no sense.
    #[error("malformed entry: {0}")]
    Malformed(String),
    /// Over a bound.
    #[error("{got} bytes are too many for a {what}; the most is {max}")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Bytes found.
        got: usize,
        /// Bytes allowed.
        max: usize,
    },
}

/// The bytes of one request.
///
/// # Errors
/// [`CodecError::TooLarge`] over [`REQUEST_BYTES_MAX`].
pub fn encode_request(request: &Request) -> Result<Vec<u8>, CodecError> {
    let bytes = to_bytes(request)?;
    if bytes.len() > REQUEST_BYTES_MAX {
        let (what, got, max) = ("request", bytes.len(), REQUEST_BYTES_MAX);
        return Err(CodecError::TooLarge { what, got, max });
    }
    Ok(bytes)
}

/// The request in `bytes`.
///
/// # Errors
/// If they are no request.
pub fn decode_request(bytes: &[u8]) -> Result<Request, CodecError> {
    from_bytes(bytes)
}

/// Collects encoded requests into the bytes of one entry.
#[derive(Debug)]
pub struct BatchWriter {
    bytes: Vec<u8>,
    count: u32,
}

impl BatchWriter {
    /// An empty batch, proposed at `at`.
    pub fn new(at: Timestamp) -> Self {
        let mut bytes = Vec::with_capacity(1024);
        bytes.push(VERSION);
        bytes.extend_from_slice(&at.0.to_be_bytes());
        bytes.extend_from_slice(&0u32.to_be_bytes());
        Self { bytes, count: 0 }
    }

    /// Whether a request of that many bytes still goes in.
    pub fn has_room(&self, request_bytes: usize) -> bool {
        self.count == 0
            || ((self.count as usize) < BATCH_REQUESTS_MAX
                && self.bytes.len() + 4 + request_bytes <= ENTRY_BYTES_MAX)
    }

    /// Adds an encoded request.
    pub fn push(&mut self, request: &[u8]) {
        self.bytes.extend_from_slice(&(request.len() as u32).to_be_bytes());
        self.bytes.extend_from_slice(request);
        self.count += 1;
    }

    /// How many requests it holds.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The entry's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes[9..HEAD_BYTES].copy_from_slice(&self.count.to_be_bytes());
        // The log keeps them in memory until it is purged.
        self.bytes.shrink_to_fit();
        self.bytes
    }
}

/// The batch in an entry's bytes.
///
/// # Errors
/// If they are no entry. An entry that was committed is always readable, so on a server this
/// means a newer format or a defect.
pub fn decode_batch(bytes: &[u8]) -> Result<(Timestamp, Vec<Request>), CodecError> {
    let malformed = |what: &str| CodecError::Malformed(what.to_owned());
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&other) => return Err(CodecError::Version(other)),
        None => return Err(malformed("no bytes")),
    }
    let head: &[u8; HEAD_BYTES] = bytes.first_chunk().ok_or_else(|| malformed("short head"))?;
    let mut at = [0; 8];
    at.copy_from_slice(&head[1..9]);
    let mut count = [0; 4];
    count.copy_from_slice(&head[9..HEAD_BYTES]);
    let count = u32::from_be_bytes(count) as usize;
    if count > BATCH_REQUESTS_MAX {
        return Err(CodecError::TooLarge { what: "batch", got: count, max: BATCH_REQUESTS_MAX });
    }
    let mut rest = &bytes[HEAD_BYTES..];
    let mut requests = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk().ok_or_else(|| malformed("short length"))?;
        let length = u32::from_be_bytes(*length) as usize;
        let request = tail.get(..length).ok_or_else(|| malformed("short request"))?;
        requests.push(from_bytes(request)?);
        rest = &tail[length..];
    }
    if !rest.is_empty() {
        return Err(malformed("bytes behind the last request"));
    }
    Ok((Timestamp(u64::from_be_bytes(at)), requests))
}

/// MessagePack with field names.
///
/// # Errors
/// Never for the types of this crate; they have no maps with strange keys.
pub fn to_bytes<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    rmp_serde::to_vec_named(value).map_err(|error| CodecError::Malformed(error.to_string()))
}

/// The value in `bytes`, which must hold nothing else.
///
/// # Errors
/// If they hold something else.
pub fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut rest = bytes;
    let mut reader = rmp_serde::Deserializer::new(&mut rest);
    reader.set_max_depth(DEPTH_MAX);
    let value = serde::Deserialize::deserialize(&mut reader)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(CodecError::Malformed("bytes behind the value".to_owned()));
    }
    Ok(value)
}
