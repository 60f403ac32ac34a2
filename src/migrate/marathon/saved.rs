//! Files: a backup, or a saved answer of Marathon's REST API.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::error::SourceError;
use super::instances;
use super::storage::Storage;
use super::unpack::{is_packed, unpacked};
use super::{backup, tree};
use crate::limits::MARATHON_SOURCE_BYTES_MAX;
use crate::marathon::definitions;

/// What a file has: Marathon's tar backup, or JSON as `/v2/groups` and `/v2/apps` answer, either
/// of them packed with gzip too.
///
/// # Errors
/// If it can't be read, or is none of these.
pub async fn from_file(path: &Path) -> Result<Storage, SourceError> {
    let place = path.display().to_string();
    let mut bytes = Vec::new();
    let most = MARATHON_SOURCE_BYTES_MAX;
    let read = std::fs::File::open(path)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut bytes));
    read.map_err(|error| SourceError::Unreachable(format!("can't read {place}: {error}")))?;
    if bytes.len() as u64 > most {
        return Err(SourceError::TooLarge { place, most, unit: "bytes" });
    }
    if is_packed(&bytes) {
        bytes = unpacked(&bytes, most, &place)?.into();
    }
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if matches!(first, Some(b'{' | b'[')) {
        let json = serde_json::from_slice(&bytes)
            .map_err(|error| SourceError::malformed(place.as_str(), error))?;
        return Ok(from_json(json));
    }
    let memory = backup::tree(&bytes, &place)?;
    if memory.is_empty() {
        let what = format!(
            "{place} is neither a backup of Marathon's (a tar file) nor an answer of its REST API \
             (JSON)"
        );
        return Err(SourceError::NotMarathon(what));
    }
    let mut storage = tree::from_nodes(&memory, backup::ROOT).await?;
    storage.origin = format!("backup, {}", storage.origin);
    Ok(storage)
}

/// What an answer of the REST API has, the tasks of its apps included.
pub(super) fn from_json(json: Value) -> Storage {
    let mut tasks = Vec::new();
    let knows_instances = shown_tasks(&json, &mut tasks, 0);
    let mut instances: Vec<_> = tasks.into_iter().filter_map(instances::of_shown).collect();
    instances.sort();
    instances.dedup();
    Storage {
        origin: "REST API".into(),
        definitions: definitions(json),
        instances,
        knows_instances,
    }
}

/// Every `tasks` of an app, wherever the app stands; says whether there is one.
fn shown_tasks<'j>(json: &'j Value, found: &mut Vec<&'j Value>, depth: usize) -> bool {
    // Apps stand in groups, groups in groups; JSON itself is not nested deeper when it is read.
    if depth > 128 {
        return false;
    }
    match json {
        Value::Array(items) => {
            items.iter().fold(false, |any, item| shown_tasks(item, found, depth + 1) | any)
        }
        Value::Object(map) => {
            let mut any = false;
            if let Some(Value::Array(tasks)) = map.get("tasks") {
                found.extend(tasks);
                any = true;
            }
            for key in ["apps", "groups", "app"] {
                if let Some(inner) = map.get(key) {
                    any |= shown_tasks(inner, found, depth + 1);
                }
            }
            any
        }
        _ => false,
    }
}
