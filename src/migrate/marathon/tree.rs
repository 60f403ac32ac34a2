//! Marathon's own tree: the layout of 1.3 and before (`LEGACY`), and that of 1.4 to 1.11
//! (`PERSISTENCE_STORE`).

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use serde_json::{Map, Value};

use super::error::SourceError;
use super::instances;
use super::nodes::NodeSource;
use super::storage::{Instance, Storage};
use super::unpack::{is_packed, unpacked};
use crate::limits::{MARATHON_GROUP_DEPTH_MAX, MARATHON_VALUE_BYTES_MAX, MARATHON_VALUES_MAX};
use crate::marathon::messages::{
    GroupDefinition, MarathonTask, StorageVersion, ZkStoreEntry, storage_version::StorageFormat,
};
use crate::marathon::{
    Definitions, Finding, Weight, app_json, definitions, group_json, path_of, pod_json,
};

/// The newest layout that is known: that of 1.10 and 1.11.
const NEWEST: (u32, u32, u32) = (110, 100, 0);
/// Where the layout's version stands.
const VERSION: &str = "internal:storage:version";

/// What a Marathon with the ZooKeeper path `root`, as `/marathon`, keeps in its tree.
///
/// # Errors
/// If there is nothing of Marathon's, a change of its layout is going on, or something in it is
/// not what it should be.
pub async fn from_nodes(nodes: &dyn NodeSource, root: &str) -> Result<Storage, SourceError> {
    let reader = Reader { nodes, state: format!("{}/state", root.trim_end_matches('/')) };
    reader.read().await
}

struct Reader<'n> {
    nodes: &'n dyn NodeSource,
    state: String,
}

/// Reads a stored app or pod; the text is its place.
type Decode = fn(&Bytes, &str) -> Result<Map<String, Value>, SourceError>;

/// Which definition of an app or pod: id as stored, and version.
type Reference = (String, String);

impl Reader<'_> {
    async fn read(&self) -> Result<Storage, SourceError> {
        let Some(names) = self.nodes.children(&self.state).await? else {
            let what = format!("{} is not there: no Marathon keeps its state here", self.state);
            return Err(SourceError::NotMarathon(what));
        };
        if names.iter().any(|name| name == "migration-in-progress") {
            let path = format!("{}/migration-in-progress", self.state);
            return Err(SourceError::MigrationInProgress { path });
        }
        let version = self.version(&names).await?;
        let (major, minor, patch) = (version.major, version.minor, version.patch);
        let mut storage = match version.format() {
            StorageFormat::Legacy => self.legacy(&names).await?,
            StorageFormat::PersistenceStore => self.persistence_store().await?,
        };
        let layout = version.format().as_str_name();
        storage.origin = format!("storage {major}.{minor}.{patch}, {layout}");
        if (major, minor, patch) > NEWEST {
            storage.definitions.findings.push(Finding {
                id: "/".into(),
                field: VERSION.into(),
                said: format!("{major}.{minor}.{patch}"),
                why: "it was written by a Marathon that is newer than all that are known".into(),
                remedy: "compare the jobs with the definitions".into(),
                weight: Weight::Essential,
            });
        }
        storage.knows_instances = true;
        storage.instances.sort();
        storage.instances.dedup();
        Ok(storage)
    }

    /// A node's data; none if it is absent or empty, which is how a current value is deleted.
    async fn value(&self, path: &str) -> Result<Option<Bytes>, SourceError> {
        let Some(bytes) = self.nodes.data(path).await? else { return Ok(None) };
        if bytes.len() > MARATHON_VALUE_BYTES_MAX {
            return Err(too_large(path));
        }
        let bytes = if is_packed(&bytes) {
            unpacked(&bytes, MARATHON_VALUE_BYTES_MAX as u64, path)?
        } else {
            bytes
        };
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    async fn children(&self, path: &str) -> Result<Vec<String>, SourceError> {
        let mut names = self.nodes.children(path).await?.unwrap_or_default();
        if names.len() > MARATHON_VALUES_MAX {
            let most = MARATHON_VALUES_MAX as u64;
            return Err(SourceError::TooLarge { place: path.to_owned(), most, unit: "nodes" });
        }
        names.sort();
        Ok(names)
    }

    async fn version(&self, names: &[String]) -> Result<StorageVersion, SourceError> {
        let path = format!("{}/{VERSION}", self.state);
        let Some(bytes) = self.value(&path).await? else {
            // The oldest wrote none.
            let legacy = names.iter().any(|name| name.starts_with("group:"));
            if legacy {
                return Ok(StorageVersion::default());
            }
            let what = format!(
                "{} has no {VERSION}: no Marathon keeps its state here, or it never started fully",
                self.state
            );
            return Err(SourceError::NotMarathon(what));
        };
        // A backup has it bare, ZooKeeper in an entry.
        let inner = match ZkStoreEntry::decode(&bytes[..]) {
            Ok(entry) if entry.name == VERSION => entry_value(entry, &path)?,
            _ => bytes,
        };
        StorageVersion::decode(&inner[..]).map_err(|error| SourceError::malformed(path, error))
    }

    // --- 1.4 to 1.11 ---

    async fn persistence_store(&self) -> Result<Storage, SourceError> {
        let groups = self.category("group").await?;
        let missing = || {
            let what =
                format!("{}/group has no root: this Marathon never started fully", self.state);
            SourceError::NotMarathon(what)
        };
        let path = groups.get("root").ok_or_else(missing)?;
        let bytes = self.value(path).await?.ok_or_else(missing)?;
        let root = GroupDefinition::decode(&bytes[..])
            .map_err(|error| SourceError::malformed(path.as_str(), error))?;
        let (mut apps, mut pods) = (Vec::new(), Vec::new());
        references(&root, 0, &mut apps, &mut pods);
        let mut findings = Vec::new();
        let apps = self.load("apps", apps, app_of, &mut findings).await?;
        let pods = self.load("pods", pods, pod_of, &mut findings).await?;
        let json = group_json(
            &root,
            &mut |id, version| apps.get(&(id.to_owned(), version.to_owned())).cloned(),
            &mut |id, version| pods.get(&(id.to_owned(), version.to_owned())).cloned(),
        )
        .map_err(|error| SourceError::stored(path.as_str(), error))?;
        let mut storage = Storage { definitions: read(json), ..Storage::default() };
        storage.definitions.findings.extend(findings);
        for path in self.category("instance").await?.values() {
            let Some(bytes) = self.value(path).await? else { continue };
            let json: Value = serde_json::from_slice(&bytes)
                .map_err(|error| SourceError::malformed(path.as_str(), error))?;
            storage.instances.extend(instances::of_instance(&json));
        }
        for path in self.category("task").await?.values() {
            let Some(bytes) = self.value(path).await? else { continue };
            storage.instances.extend(task_of(&bytes, path)?);
        }
        Ok(storage)
    }

    /// The values of a category: each id with the path of its current value. Which bucket holds
    /// an id follows from a hash, and all of them are looked into instead.
    async fn category(&self, name: &str) -> Result<BTreeMap<String, String>, SourceError> {
        let category = format!("{}/{name}", self.state);
        let mut found = BTreeMap::new();
        for bucket in self.children(&category).await? {
            let bucket = format!("{category}/{bucket}");
            for id in self.children(&bucket).await? {
                let path = format!("{bucket}/{id}");
                found.insert(id, path);
            }
            if found.len() > MARATHON_VALUES_MAX {
                let most = MARATHON_VALUES_MAX as u64;
                return Err(SourceError::TooLarge { place: category, most, unit: "values" });
            }
        }
        Ok(found)
    }

    /// Exactly the versions that are referred to: a deployment under way writes newer ones first.
    async fn load(
        &self,
        category: &str,
        wanted: Vec<Reference>,
        decode: Decode,
        findings: &mut Vec<Finding>,
    ) -> Result<BTreeMap<Reference, Map<String, Value>>, SourceError> {
        let known = self.category(category).await?;
        let mut loaded = BTreeMap::new();
        for (id, version) in wanted {
            let mut json = None;
            if let Some(path) = known.get(&id) {
                json = self.version_of(path, &version, decode).await?;
            }
            match json {
                Some(json) => {
                    loaded.insert((id, version), json);
                }
                None => findings.push(Finding {
                    id: path_of(&id),
                    field: "version".into(),
                    said: version,
                    why: "the groups name it, and the storage has no such version".into(),
                    remedy: "let Marathon start up fully, and look whether it has it".into(),
                    weight: Weight::Blocked,
                }),
            }
        }
        Ok(loaded)
    }

    async fn version_of(
        &self,
        path: &str,
        version: &str,
        decode: Decode,
    ) -> Result<Option<Map<String, Value>>, SourceError> {
        let exact = format!("{path}/{version}");
        if let Some(bytes) = self.value(&exact).await? {
            return decode(&bytes, &exact).map(Some);
        }
        // The same moment may be written with more or fewer digits.
        for name in self.children(path).await? {
            if same_moment(&name, version) {
                let path = format!("{path}/{name}");
                if let Some(bytes) = self.value(&path).await? {
                    return decode(&bytes, &path).map(Some);
                }
            }
        }
        // The current value is not always among the versions.
        let Some(bytes) = self.value(path).await? else { return Ok(None) };
        let json = decode(&bytes, path)?;
        let current = json.get("version").and_then(Value::as_str);
        let same = current.is_some_and(|current| same_moment(current, version));
        Ok(same.then_some(json))
    }

    // --- 1.3 and before ---

    async fn legacy(&self, names: &[String]) -> Result<Storage, SourceError> {
        let mut storage = Storage::default();
        let path = format!("{}/group:root", self.state);
        if names.iter().any(|name| name == "group:root") {
            let Some(bytes) = self.entry(&path).await? else {
                return Err(SourceError::malformed(path, "the root group is empty"));
            };
            let root = GroupDefinition::decode(&bytes[..])
                .map_err(|error| SourceError::malformed(path.as_str(), error))?;
            let json = group_json(&root, &mut |_, _| None, &mut |_, _| None)
                .map_err(|error| SourceError::stored(path.as_str(), error))?;
            storage.definitions = read(json);
        } else {
            // Before there were groups.
            let mut apps = Vec::new();
            for name in names {
                let id = name.strip_prefix("app:").filter(|id| !id.contains(':'));
                let path = format!("{}/{name}", self.state);
                if id.is_some()
                    && let Some(bytes) = self.entry(&path).await?
                {
                    apps.push(Value::Object(app_of(&bytes, &path)?));
                }
            }
            storage.definitions = definitions(Value::Array(apps));
        }
        for name in names.iter().filter(|name| name.starts_with("task:")) {
            let path = format!("{}/{name}", self.state);
            if let Some(bytes) = self.entry(&path).await? {
                storage.instances.extend(task_of(&bytes, &path)?);
            }
        }
        Ok(storage)
    }

    /// What an entry holds, unpacked.
    async fn entry(&self, path: &str) -> Result<Option<Bytes>, SourceError> {
        let Some(bytes) = self.value(path).await? else { return Ok(None) };
        let entry = ZkStoreEntry::decode(&bytes[..])
            .map_err(|error| SourceError::malformed(path, error))?;
        entry_value(entry, path).map(|bytes| (!bytes.is_empty()).then_some(bytes))
    }
}

fn too_large(path: &str) -> SourceError {
    let most = MARATHON_VALUE_BYTES_MAX as u64;
    SourceError::TooLarge { place: path.to_owned(), most, unit: "bytes" }
}

fn entry_value(entry: ZkStoreEntry, path: &str) -> Result<Bytes, SourceError> {
    if entry.compressed() || is_packed(&entry.value) {
        return unpacked(&entry.value, MARATHON_VALUE_BYTES_MAX as u64, path);
    }
    Ok(entry.value)
}

fn app_of(bytes: &Bytes, path: &str) -> Result<Map<String, Value>, SourceError> {
    app_json(bytes).map_err(|error| SourceError::stored(path, error))
}

fn pod_of(bytes: &Bytes, path: &str) -> Result<Map<String, Value>, SourceError> {
    pod_json(bytes).map_err(|error| SourceError::stored(path, error))
}

fn task_of(bytes: &Bytes, path: &str) -> Result<Option<Instance>, SourceError> {
    let task =
        MarathonTask::decode(&bytes[..]).map_err(|error| SourceError::malformed(path, error))?;
    Ok(instances::of_task(&task))
}

fn read(json: Map<String, Value>) -> Definitions {
    definitions(Value::Object(json))
}

/// All that a group and those in it refer to. What is nested too deeply is told where the groups
/// are put together.
fn references(
    group: &GroupDefinition,
    depth: usize,
    apps: &mut Vec<Reference>,
    pods: &mut Vec<Reference>,
) {
    if depth > MARATHON_GROUP_DEPTH_MAX {
        return;
    }
    apps.extend(group.apps.iter().map(|to| (to.id.clone(), to.version.clone())));
    pods.extend(group.pods.iter().map(|to| (to.id.clone(), to.version.clone())));
    for inner in &group.groups {
        references(inner, depth + 1, apps, pods);
    }
}

/// Whether two versions are the same to the millisecond.
fn same_moment(one: &str, other: &str) -> bool {
    let moment = |text: &str| text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond());
    one == other || (moment(one).is_some() && moment(one) == moment(other))
}
