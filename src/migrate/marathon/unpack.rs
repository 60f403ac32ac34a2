//! gzip within bounds.

use std::io::Read;

use bytes::Bytes;

use super::error::SourceError;

/// What gzip begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Whether the bytes are packed.
pub(super) fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(&GZIP)
}

/// The bytes as they were before they were packed, at most `most` of them.
///
/// # Errors
/// If they are damaged, or more.
pub(super) fn unpacked(bytes: &[u8], most: u64, place: &str) -> Result<Bytes, SourceError> {
    let mut plain = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(most.saturating_add(1));
    reader
        .read_to_end(&mut plain)
        .map_err(|error| SourceError::malformed(place, format!("damaged gzip: {error}")))?;
    if plain.len() as u64 > most {
        return Err(SourceError::TooLarge { place: place.to_owned(), most, unit: "bytes" });
    }
    Ok(plain.into())
}
