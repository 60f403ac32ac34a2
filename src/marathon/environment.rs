//! Variables: the user's, and those that Marathon set.

use serde_json::{Map, Value, json};

use super::fields::{Fields, misread};
use super::finding::Notes;
use super::job::Amounts;
use super::names::variable;

/// Marathon leaves longer labels out of the environment, in characters.
const LABEL_CHARS: usize = 512;

/// What Marathon tells a task of its app that never changes while it runs.
#[derive(Debug, Default)]
pub(super) struct Told<'a> {
    pub(super) id: &'a str,
    pub(super) version: Option<String>,
    pub(super) image: Option<String>,
    /// Pods are not told.
    pub(super) amounts: Option<&'a Amounts>,
}

/// The variables that Marathon set and orch does not set by itself.
pub(super) fn told(told: &Told<'_>, labels: &Map<String, Value>) -> Map<String, Value> {
    let mut map = Map::new();
    let mut set = |key: &str, value: String| {
        map.insert(key.to_owned(), json!(value));
    };
    set("MARATHON_APP_ID", told.id.to_owned());
    if let Some(version) = &told.version {
        set("MARATHON_APP_VERSION", version.clone());
    }
    if let Some(image) = &told.image {
        set("MARATHON_APP_DOCKER_IMAGE", image.clone());
    }
    if let Some(amounts) = told.amounts {
        let words = [("CPUS", amounts.cpus), ("MEM", amounts.mem), ("DISK", amounts.disk)];
        for (word, amount) in words {
            // As a double is written: 128 is 128.0.
            set(&format!("MARATHON_APP_RESOURCE_{word}"), format!("{:?}", amount.unwrap_or(0.0)));
        }
        set("MARATHON_APP_RESOURCE_GPUS", amounts.gpus.unwrap_or(0).to_string());
    }
    let short = labels.iter().filter_map(|(key, value)| {
        let value = value.as_str().filter(|value| value.len() <= LABEL_CHARS)?;
        Some((variable(key), value)).filter(|(key, _)| key.len() <= LABEL_CHARS)
    });
    let short: Vec<(String, &str)> = short.collect();
    let names: Vec<&str> = short.iter().map(|(key, _)| key.as_str()).collect();
    set("MARATHON_APP_LABELS", names.join(" "));
    for (key, value) in &short {
        set(&format!("MARATHON_APP_LABEL_{key}"), (*value).to_owned());
    }
    map
}

/// The user's own.
pub(super) fn own(env: Option<Fields>, into: &mut Map<String, Value>, notes: &mut Notes) {
    let Some(env) = env else { return };
    for (path, key, value) in env.entries() {
        match value {
            Value::String(text) => {
                into.insert(key, json!(text));
            }
            Value::Null => {}
            Value::Number(number) => {
                into.insert(key, json!(number.to_string()));
            }
            Value::Bool(truth) => {
                into.insert(key, json!(truth.to_string()));
            }
            Value::Object(mut map) => match map.shift_remove("secret") {
                Some(Value::String(name)) => notes.essential(
                    &path,
                    format!("secret {name}"),
                    "the value is in a store of secrets that orch does not reach",
                    &format!("write {key} under environment, or have the task fetch it"),
                ),
                _ => misread(&path, &Value::Object(map), "a text or a secret", notes),
            },
            other => misread(&path, &other, "a text or a secret", notes),
        }
    }
}
