//! Trees of groups as a list of what is in them.

use serde_json::{Map, Value};

use super::fields::{Fields, misread};
use super::finding::{Finding, Notes};
use crate::limits::{MARATHON_DEFINITIONS_MAX, MARATHON_GROUP_DEPTH_MAX};

/// What a definition describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One task.
    App,
    /// Several tasks that run together.
    Pod,
}

impl Kind {
    /// The word users know it by.
    pub fn word(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Pod => "pod",
        }
    }
}

/// An app or a pod, in the JSON of Marathon's REST API.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// Its absolute path, as `/shop/web`.
    pub id: String,
    /// What it describes.
    pub kind: Kind,
    /// All that is said of it.
    pub json: Map<String, Value>,
}

/// Everything that a source has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definitions {
    /// Apps and pods, each once, sorted by id.
    pub list: Vec<Definition>,
    /// What groups say that has no equal.
    pub findings: Vec<Finding>,
}

/// Takes apart what `/v2/groups`, `/v2/apps` or `/v2/pods` answers: a group, a list, one app or
/// one pod.
pub fn definitions(json: Value) -> Definitions {
    let mut found = Definitions::default();
    let mut notes = Notes::of("/");
    match json {
        Value::Array(items) => {
            for (i, item) in items.into_iter().enumerate() {
                one(&format!("[{i}]"), item, "/", &mut found, &mut notes);
            }
        }
        Value::Object(map) => object(map, &mut found, &mut notes),
        other => misread("", &other, "a group, or a list of apps", &mut notes),
    }
    found.findings.extend(notes.findings);
    found.list.sort_by(|a, b| a.id.cmp(&b.id));
    for twins in found.list.windows(2).filter(|pair| pair[0].id == pair[1].id) {
        let mut notes = Notes::of(&twins[0].id);
        let why = "the source defines it more than once, and the first one counts";
        notes.essential("id", twins[0].id.clone(), why, "remove the others at the source");
        found.findings.extend(notes.findings);
    }
    found.list.dedup_by(|a, b| a.id == b.id);
    found
}

fn object(mut map: Map<String, Value>, found: &mut Definitions, notes: &mut Notes) {
    if let Some(Value::Object(app)) = map.get_mut("app").map(Value::take) {
        return one("app", Value::Object(app), "/", found, notes);
    }
    let is_one = map.contains_key("id")
        && ["cmd", "args", "container", "containers", "instances", "cpus"]
            .iter()
            .any(|key| map.contains_key(*key));
    if is_one {
        one("", Value::Object(map), "/", found, notes);
    } else {
        group(map, "/", 0, found, notes);
    }
}

fn one(path: &str, value: Value, parent: &str, found: &mut Definitions, notes: &mut Notes) {
    let Value::Object(map) = value else {
        return misread(path, &value, "an app", notes);
    };
    let id = map.get("id").and_then(Value::as_str).unwrap_or_default();
    if id.trim_matches('/').is_empty() {
        let value = Value::Object(map);
        return misread(&format!("{path}.id"), &value, "an app with an id", notes);
    }
    let id = absolute(id, parent);
    if found.list.len() >= MARATHON_DEFINITIONS_MAX {
        let why = format!("more than {MARATHON_DEFINITIONS_MAX} apps are not read");
        return notes.blocked("id", id, &why, "bring them over group by group: --only /group");
    }
    let kind = if map.contains_key("containers") { Kind::Pod } else { Kind::App };
    found.list.push(Definition { id, kind, json: map });
}

/// An id that does not begin with a slash is meant from its group on.
fn absolute(id: &str, parent: &str) -> String {
    let id = id.trim_end_matches('/');
    if id.starts_with('/') {
        id.to_owned()
    } else {
        format!("{}/{id}", parent.trim_end_matches('/'))
    }
}

fn group(
    map: Map<String, Value>,
    parent: &str,
    depth: usize,
    found: &mut Definitions,
    outer: &mut Notes,
) {
    let id = map.get("id").and_then(Value::as_str).unwrap_or("/");
    let id = if id == "/" { id.to_owned() } else { absolute(id, parent) };
    let mut notes = Notes::of(&id);
    let mut fields = Fields::new("", map);
    for report in ["id", "version", "versionInfo"] {
        fields.take(report);
    }
    for key in ["apps", "pods"] {
        for (path, item) in fields.list(key, &mut notes) {
            one(&path, item, &id, found, &mut notes);
        }
    }
    let inner = fields.objects_of("groups", &mut notes);
    if depth >= MARATHON_GROUP_DEPTH_MAX && !inner.is_empty() {
        let why = format!("groups are nested deeper than {MARATHON_GROUP_DEPTH_MAX} levels");
        notes.blocked("groups", "", &why, "nest them less deeply at the source");
    } else {
        for map in inner {
            group(map, &id, depth + 1, found, &mut notes);
        }
    }
    fields.lose(
        "dependencies",
        &mut notes,
        "jobs are started at the same time, and none waits for another",
        "have what is in the group try again until what it needs is there",
    );
    fields.lose(
        "enforceRole",
        &mut notes,
        "orch has no roles",
        "give the group a project of its own",
    );
    fields.finish(&mut notes);
    outer.findings.extend(notes.findings);
}

impl Fields {
    /// The objects of a list, as they are.
    fn objects_of(&mut self, key: &str, notes: &mut Notes) -> Vec<Map<String, Value>> {
        let items = self.list(key, notes);
        let object = |(path, item): (String, Value)| match item {
            Value::Object(map) => Some(map),
            other => {
                misread(&path, &other, "an object", notes);
                None
            }
        };
        items.into_iter().filter_map(object).collect()
    }
}
