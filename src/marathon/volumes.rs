//! Volumes of an app.

use serde_json::{Value, json};

use super::fields::{Fields, said, says_nothing};
use super::finding::Notes;
use super::names::name;

/// Where Mesos put a container's own directory.
pub(super) const SANDBOX: &str = "/mnt/mesos/sandbox";

/// What the volumes of a task came to.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    /// As the job file has them.
    pub(super) entries: Vec<Value>,
    /// Paths of the host that agents have to allow.
    pub(super) roots: Vec<String>,
    /// Data stays on the node.
    pub(super) local: bool,
}

/// Volumes of a container; `job` names those that orch makes.
pub(super) fn of_app(list: Vec<Fields>, job: &str, process: bool, notes: &mut Notes) -> Volumes {
    let mut volumes = Volumes::default();
    for mut fields in list {
        let path = fields.at("");
        let path = path.trim_end_matches('.').to_owned();
        let inside = fields.text("containerPath", notes).unwrap_or_default();
        let host = fields.text("hostPath", notes).filter(|host| !host.is_empty());
        let read_only = fields.text("mode", notes).is_some_and(|mode| mode == "RO");
        let persistent = fields.object("persistent", notes);
        for (key, why, remedy) in [
            ("external", "orch mounts no volumes of other systems", REMOTE),
            ("csi", "orch mounts no volumes of other systems", REMOTE),
            ("secret", "the value is in a store of secrets that orch does not reach", FILE),
            ("image", "an image can't be mounted", "put its files into the task's image"),
        ] {
            if let Some(value) = fields.take(key).filter(|value| !says_nothing(value)) {
                let shown = format!("{inside}: {}", said(&value));
                notes.essential(&fields.at(key), shown, why, remedy);
            }
        }
        let target =
            if inside.starts_with('/') { inside.clone() } else { format!("{SANDBOX}/{inside}") };
        if let Some(persistent) = persistent {
            persist(
                persistent,
                &path,
                &inside,
                &target,
                job,
                read_only,
                process,
                &mut volumes,
                notes,
            );
        } else if let Some(host) = host {
            bind(&path, host, target, read_only, process, &mut volumes, notes);
        }
        fields.finish(notes);
    }
    volumes
}

const FILE: &str = "put the file on the node, or have the task fetch it";
const REMOTE: &str = "mount it on the nodes, and name the path under volumes";

/// A path of the host.
fn bind(
    path: &str,
    host: String,
    target: String,
    read_only: bool,
    process: bool,
    volumes: &mut Volumes,
    notes: &mut Notes,
) {
    if process {
        if host == target {
            let why = "a process sees the host's own files";
            return notes.adapted(path, host, why, "nothing");
        }
        let why = "a process sees the host's own files, under their own paths";
        let remedy = format!("have it use {host}, or name an image");
        return notes.essential(path, format!("{host} as {target}"), why, &remedy);
    }
    if !host.starts_with('/') {
        let why = "the path began in the task's own directory, which orch has not";
        let remedy = "name an absolute path of the node, or a volume's name, under volumes";
        return notes.essential(path, host, why, remedy);
    }
    volumes.roots.push(host.clone());
    let mut entry = json!({ "type": "bind", "source": host, "target": target });
    if read_only {
        entry["read_only"] = json!(true);
    }
    volumes.entries.push(entry);
}

#[allow(clippy::too_many_arguments, reason = "what a volume consists of")]
fn persist(
    mut persistent: Fields,
    path: &str,
    inside: &str,
    target: &str,
    job: &str,
    read_only: bool,
    process: bool,
    volumes: &mut Volumes,
    notes: &mut Notes,
) {
    let size = persistent.take("size").map(|size| said(&size)).unwrap_or_default();
    for key in ["type", "constraints", "maxSize", "profileName"] {
        let why = "a volume of the node is a directory of its engine";
        persistent.lose(key, notes, why, "put the engine's directory on the right disk");
    }
    persistent.finish(notes);
    if process {
        let why = "a process of the host has no volumes";
        notes.essential(
            path,
            inside,
            why,
            "name an image, or keep the data under a path of the host",
        );
        return;
    }
    let volume = name(&format!("{job}-{inside}")).unwrap_or_else(|| format!("{job}-data"));
    let mut entry = json!({ "type": "volume", "source": volume, "target": target });
    if read_only {
        entry["read_only"] = json!(true);
    }
    volumes.entries.push(entry);
    volumes.local = true;
    notes.essential(
        path,
        format!("{inside} ({size} MiB)"),
        "the job gets an empty volume; the data is in a directory of the Mesos agent, and no size \
         is held",
        &format!(
            "copy it from volumes/roles/ below the agent's work directory to the volume {volume}"
        ),
    );
}
