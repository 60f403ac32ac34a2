//! Marathon's tar backup: the same values as in its tree, under other names.

use std::io::Read;

use bytes::Bytes;

use super::error::SourceError;
use super::nodes::Memory;
use crate::limits::{MARATHON_VALUE_BYTES_MAX, MARATHON_VALUES_MAX};

/// The node under which a backup's tree hangs.
pub(super) const ROOT: &str = "/backup";

/// The values of a backup, as the tree that Marathon keeps in ZooKeeper.
///
/// # Errors
/// If it is no tar file, or larger than anything that Marathon keeps.
pub(super) fn tree(bytes: &[u8], place: &str) -> Result<Memory, SourceError> {
    let mut tree = Memory::default();
    let mut archive = tar::Archive::new(bytes);
    let malformed = |error: std::io::Error| SourceError::malformed(place, error);
    for (count, entry) in archive.entries().map_err(malformed)?.enumerate() {
        let mut entry = entry.map_err(malformed)?;
        if count >= MARATHON_VALUES_MAX {
            let most = MARATHON_VALUES_MAX as u64;
            return Err(SourceError::TooLarge { place: place.to_owned(), most, unit: "entries" });
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some(path) = path_of(&name) else { continue };
        let most = MARATHON_VALUE_BYTES_MAX as u64;
        if entry.size() > most {
            return Err(SourceError::TooLarge {
                place: format!("{place}: {name}"),
                most,
                unit: "bytes",
            });
        }
        let mut data = Vec::new();
        entry.by_ref().take(most).read_to_end(&mut data).map_err(malformed)?;
        tree.put(&path, Bytes::from(data));
    }
    Ok(tree)
}

/// `apps/items/a_b` and `apps/versions/a_b/2018-…` as paths of the tree; none for anything else.
fn path_of(name: &str) -> Option<String> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let mut parts = name.splitn(3, '/');
    let (category, kind, rest) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !plain(category) || !rest.split('/').all(plain) {
        return None;
    }
    match kind {
        // It is no value of a category in the tree.
        "items" if category == rest => Some(format!("{ROOT}/state/{category}")),
        // Which bucket does not matter to whoever looks into all of them.
        "items" | "versions" => Some(format!("{ROOT}/state/{category}/0/{rest}")),
        _ => None,
    }
}
