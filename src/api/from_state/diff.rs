//! What differs between two job files, field by field.

use serde_json::{Map, Value};

use crate::api::view::job::FieldChange;
use crate::api::view::job_file::HIDDEN_FIELDS;

/// Shown in place of what must not be.
const HIDDEN: &str = "(hidden)";

/// The differing fields, in the order of their names.
pub(in crate::api) fn changes(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare("", Some(before), Some(after), &mut changes);
    changes
}

fn compare(
    field: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    changes: &mut Vec<FieldChange>,
) {
    if before == after {
        return;
    }
    let empty = Map::new();
    // An object that is there on one side only is told part by part.
    let objects = match (before, after) {
        (Some(Value::Object(before)), Some(Value::Object(after))) => Some((before, after)),
        (None, Some(Value::Object(after))) if !after.is_empty() => Some((&empty, after)),
        (Some(Value::Object(before)), None) if !before.is_empty() => Some((before, &empty)),
        _ => None,
    };
    let Some((before_parts, after_parts)) = objects else {
        let shown = |value: &Value| {
            let name = field.rsplit('.').next().unwrap_or_default();
            if HIDDEN_FIELDS.contains(&name) { Value::from(HIDDEN) } else { value.clone() }
        };
        changes.push(FieldChange {
            field: field.to_owned(),
            before: before.map(shown),
            after: after.map(shown),
        });
        return;
    };
    let mut keys: Vec<&String> = before_parts.keys().chain(after_parts.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let path = if field.is_empty() { key.clone() } else { format!("{field}.{key}") };
        compare(&path, before_parts.get(key), after_parts.get(key), changes);
    }
}
