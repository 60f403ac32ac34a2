//! What runs: the image, the command, and what was passed on to Docker.

use serde_json::{Map, Value, json};

use super::fields::{Fields, said};
use super::finding::Notes;

/// The runtime that an app asks for.
#[derive(Debug, Default)]
pub(super) struct Container {
    /// None: a process of the host.
    pub(super) image: Option<String>,
    /// Under Mesos' own container runtime, which took the app's user over.
    pub(super) mesos: bool,
}

const PULL: &str = "log the nodes' engines in to the registry, or write registry: { username, \
                    password } in the job";
const SECCOMP: &str = "set it in the configuration of the nodes' engines";

/// Takes `type` and `docker` of a container apart, into the keys of a task.
pub(super) fn read(
    fields: &mut Fields,
    task: &mut Map<String, Value>,
    notes: &mut Notes,
) -> Container {
    let mut container = Container {
        mesos: fields.text("type", notes).is_some_and(|kind| kind == "MESOS"),
        image: None,
    };
    fields.lose("linuxInfo", notes, "seccomp, IPC and shared memory are the engine's", SECCOMP);
    let Some(mut docker) = fields.object("docker", notes) else { return container };
    container.image = docker.text("image", notes).filter(|image| !image.is_empty());
    if let Some(image) = &container.image {
        task.insert("image".into(), json!(image));
    }
    if docker.truth("forcePullImage", notes) == Some(true) {
        task.insert("pull_policy".into(), json!("always"));
    }
    docker.miss(
        "privileged",
        notes,
        "orch gives no container all rights of the host",
        "name what it needs under cap_add, or run it as a process",
    );
    docker.miss("credential", notes, "the registry's password is in a file of Mesos", PULL);
    docker.miss("pullConfig", notes, "the registry's password is in a store of secrets", PULL);
    for fields in docker.objects("parameters", notes) {
        parameter(fields, task, notes);
    }
    docker.finish(notes);
    container
}

/// A flag of `docker run`.
fn parameter(mut fields: Fields, task: &mut Map<String, Value>, notes: &mut Notes) {
    let path = fields.at("");
    let path = path.trim_end_matches('.').to_owned();
    let key = fields.text("key", notes).unwrap_or_default();
    let value = fields.take("value").map(|value| said(&value)).unwrap_or_default();
    fields.finish(notes);
    let shown = format!("--{key}={value}");
    let one = |task: &mut Map<String, Value>, name: &str, value: Value| {
        task.entry(name).or_insert(value);
    };
    match key.as_str() {
        "user" | "u" => one(task, "user", json!(value)),
        "workdir" | "w" => one(task, "working_dir", json!(value)),
        "stop-signal" => one(task, "stop_signal", json!(value)),
        "read-only" if value != "false" => one(task, "read_only", json!(true)),
        "entrypoint" => one(task, "entrypoint", json!([value])),
        "cap-add" | "cap-drop" | "tmpfs" => {
            let name = key.replace('-', "_");
            let (value, options) = match (key.as_str(), value.split_once(':')) {
                ("tmpfs", Some((path, options))) => (path.to_owned(), Some(options.to_owned())),
                _ => (value, None),
            };
            if let Some(options) = options {
                let why = "memory file systems have no options";
                notes.lost(&path, options, why, "nothing, if the size need not be held");
            }
            push(task, &name, json!(value));
        }
        "env" | "e" | "label" | "l" => {
            let name = if key.starts_with('e') { "environment" } else { "container_labels" };
            let (key, value) = value.split_once('=').unwrap_or((&value, ""));
            let map = task.entry(name).or_insert_with(|| json!({}));
            if let Value::Object(map) = map {
                map.insert(key.to_owned(), json!(value));
            }
        }
        "volume" | "v" => volume(&path, &value, task, notes),
        "memory" | "m" | "cpus" | "cpu-shares" => {
            let why = "what the app asks for counts: mem and cpus";
            notes.lost(&path, shown, why, "set resources in the job");
        }
        "privileged" | "device" | "volume-driver" | "volumes-from" | "pid" | "ipc" | "userns"
        | "uts" | "runtime" | "security-opt" | "gpus" | "cgroup-parent" => {
            let why = "orch has no such setting of a container";
            let remedy = "check whether it runs without; a process of the host has all of it";
            notes.essential(&path, shown, why, remedy);
        }
        _ => {
            let why = "orch has no such setting of a container";
            notes.lost(&path, shown, why, "set it in the image or in the engine's configuration");
        }
    }
}

fn push(task: &mut Map<String, Value>, name: &str, value: Value) {
    if let Value::Array(list) = task.entry(name).or_insert_with(|| json!([]))
        && !list.contains(&value)
    {
        list.push(value);
    }
}

/// `--volume HOST:IN:ro`.
fn volume(path: &str, value: &str, task: &mut Map<String, Value>, notes: &mut Notes) {
    let parts: Vec<&str> = value.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [source, target] => (*source, *target, ""),
        [source, target, options] => (*source, *target, *options),
        _ => {
            let why = "a volume without a source is thrown away with the container";
            return notes.lost(path, value, why, "name a source under volumes");
        }
    };
    let read_only = options.split(',').any(|option| option == "ro");
    if options.split(',').any(|option| !matches!(option, "" | "ro" | "rw")) {
        let why = "mounts have no option but ro";
        notes.lost(path, value, why, "check that it works without");
    }
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let mut entry = json!({ "type": kind, "source": source, "target": target });
    if read_only {
        entry["read_only"] = json!(true);
    }
    push(task, "volumes", entry);
}

/// `cmd` and `args` as the keys of a task.
pub(super) fn command(
    cmd: Option<String>,
    args: Vec<String>,
    container: &Container,
    task: &mut Map<String, Value>,
    notes: &mut Notes,
) {
    let process = container.image.is_none();
    match cmd {
        Some(cmd) => {
            if !args.is_empty() {
                let why = "cmd counts, and args were never used beside it";
                notes.lost("args", args.join(" "), why, "nothing");
            }
            if process {
                task.insert("command".into(), json!(["/bin/sh", "-c", cmd]));
            } else {
                // The shell took the place of the image's entry point.
                task.insert("entrypoint".into(), json!(["/bin/sh"]));
                task.insert("command".into(), json!(["-c", cmd]));
            }
        }
        None if !args.is_empty() => {
            task.insert("command".into(), json!(args));
        }
        None if process => {
            let why = "it has neither an image nor a command";
            notes.blocked("cmd", "", why, "write one of them at the source");
        }
        None => {}
    }
}

/// `fetch`: what Mesos brought into the task's directory before it started.
pub(super) fn fetch(list: Vec<Fields>, notes: &mut Notes) {
    for fields in list {
        let path = fields.at("uri");
        // All of it has no equal, so all of it is shown.
        let all: Map<String, Value> =
            fields.entries().map(|(_, key, value)| (key, value)).collect();
        let uri = all.get("uri").map(said).unwrap_or_default();
        let shown = if all.len() > 1 { said(&Value::Object(all)) } else { uri.clone() };
        let login = [".dockercfg", "docker.tar.gz", "config.json"];
        if login.iter().any(|name| uri.ends_with(name)) {
            let why = "it logged in to a registry, which is now the engine's business";
            notes.essential(&path, shown, why, PULL);
        } else {
            let why = "nothing is fetched before a task starts";
            let remedy = "put it into the image or on a volume, or fetch it in the command";
            notes.essential(&path, shown, why, remedy);
        }
    }
}

/// Names that a task may know its directory by.
pub(super) fn mentions_sandbox(task: &Map<String, Value>) -> bool {
    let keys = ["command", "environment", "entrypoint", "working_dir"];
    let texts = keys.iter().filter_map(|key| task.get(*key)).map(Value::to_string);
    texts
        .into_iter()
        .any(|text| text.contains("MESOS_SANDBOX") || text.contains("/mnt/mesos/sandbox"))
}
