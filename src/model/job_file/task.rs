//! One task.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::keys;
use super::reader::{Elsewhere, Fields, Item, Report, word};
use super::tree::Value;
use super::words::{self, CAPABILITIES, image_problem, is_user, is_variable_name, path_problem};
use super::{health, ports, volumes};
use crate::limits::{
    COMMAND_WORDS_MAX, MAP_ENTRIES_MAX, MAP_KEY_BYTES_MAX, MAP_VALUE_BYTES_MAX, NODE_GPUS_MAX,
};
use crate::model::job::{LegacyEnvironment, PullPolicy, RegistryAuth, TaskRuntime, TaskSpec};
use crate::model::name::TaskName;
use crate::model::resources::ResourceRequest;
use crate::model::time::Millis;

/// Keys that only a container has.
const IMAGE_ONLY: [&str; 8] = [
    "entrypoint",
    "cap_add",
    "cap_drop",
    "read_only",
    "pull_policy",
    "registry",
    "volumes",
    "tmpfs",
];
/// Docker starts nothing with less memory, in bytes.
const MEMORY_LEAST: u64 = 6 << 20;
/// Thousandths of a core.
const CPU_MILLI_MOST: f64 = 1_024_000.0;
const GRACE_MOST: Millis = Millis::from_secs(24 * 60 * 60);

/// A task under `tasks:`, with its keys checked.
pub(super) fn read_named(name: TaskName, item: &Item<'_>, report: &mut Report) -> Option<TaskSpec> {
    let fields = item.fields(report, "a map, as { image: nginx:1.27 }")?;
    let remedy = "belongs to the whole job; move it beside job";
    fields.check_keys(report, keys::TASK, &[Elsewhere { keys: keys::JOB, remedy }]);
    let labels = fields.get("labels").map(|item| text_map(&item, Texts::Labels, report));
    let mut task = read(name, &fields, report)?;
    task.labels = labels.unwrap_or_default();
    Some(task)
}

/// A task from the keys of a task or of a job with one task; labels are the caller's. None only
/// if there is no telling what it would run.
pub(super) fn read(name: TaskName, fields: &Fields<'_>, report: &mut Report) -> Option<TaskSpec> {
    let image = fields.get("image");
    let process = image.is_none();
    let mut command: Vec<String> =
        fields.get("command").and_then(|item| words(&item, report)).unwrap_or_default();
    if let Some(item) = fields.get("args") {
        match &item.node.value {
            Value::List(_) => command.extend(words(&item, report).unwrap_or_default()),
            other => item.wrong(report, format!("is {}; write a list of words", other.kind())),
        }
    }
    if process {
        if fields.get("command").is_none() {
            let message = "there is neither image nor command; write image for a container, \
                           or command for a process of the host";
            report.add(fields.at, &fields.path_of("image"), message);
        } else {
            image_keys(fields, report);
            if command.is_empty()
                && let Some(item) = fields.get("command")
            {
                item.wrong(report, "is empty; write the program to run");
            }
        }
    }
    let runtime = match image {
        Some(item) => docker(&item, fields, report),
        None => Some(TaskRuntime::Process),
    };
    let ports = fields.get("ports").map(|item| ports::read(&item, process, report));
    let ports = ports.unwrap_or_default();
    let mut check =
        |key: &str| fields.get(key).and_then(|item| health::read(&item, &ports, report));
    let (healthcheck, readiness) = (check("healthcheck"), check("readiness"));
    let (cap_add, cap_drop) = capabilities(fields, report);
    let grace = fields.one_of(report, &["stop_grace_period", "stop_grace"]);
    Some(TaskSpec {
        name,
        runtime: runtime?,
        entrypoint: fields.get("entrypoint").and_then(|item| words(&item, report)),
        command,
        environment: fields
            .get("environment")
            .map(|item| text_map(&item, Texts::Environment, report))
            .unwrap_or_default(),
        healthcheck,
        readiness,
        ports,
        resources: resources(fields, report),
        volumes: volumes::read(
            fields.get("volumes").as_ref(),
            fields.get("tmpfs").as_ref(),
            report,
        ),
        user: fields.get("user").and_then(|item| {
            let user = item.text(report, "a user, as www-data or 1000:1000")?;
            if !is_user(&user) {
                item.wrong(report, format!("{user:?} is no user; write name, uid or uid:gid"));
            }
            Some(user)
        }),
        working_dir: fields.get("working_dir").and_then(|item| {
            let path = item.text(report, "an absolute path")?;
            if let Some(problem) = path_problem(&path) {
                item.wrong(report, problem);
            }
            Some(path)
        }),
        stop_signal: fields.get("stop_signal").and_then(|item| {
            let text = item.text(report, "a signal, as SIGTERM")?;
            let signal = words::signal(&text);
            if signal.is_none() {
                let names = words::signals();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                word(&item, report, &text, &names);
            }
            signal
        }),
        stop_grace: grace
            .and_then(|item| item.duration(report, Millis(0)..=GRACE_MOST))
            .unwrap_or(TaskSpec::stop_grace_default()),
        cap_add,
        cap_drop,
        read_only: fields.get("read_only").and_then(|item| item.truth(report)).unwrap_or(false),
        labels: BTreeMap::new(),
        legacy_environment: fields.get("legacy_environment").and_then(|item| {
            let text = item.text(report, "marathon")?;
            if text != "marathon" {
                word(&item, report, &text, &["marathon"]);
                return None;
            }
            Some(LegacyEnvironment::Marathon)
        }),
    })
}

fn image_keys(fields: &Fields<'_>, report: &mut Report) {
    for key in IMAGE_ONLY {
        if let Some(item) = fields.get(key) {
            let message = "is for containers, and without image this is a process; \
                           remove it, or name an image";
            item.wrong(report, message);
        }
    }
}

fn docker(item: &Item<'_>, fields: &Fields<'_>, report: &mut Report) -> Option<TaskRuntime> {
    let image = item.text(report, "an image, as nginx:1.27")?;
    if let Some(problem) = image_problem(&image) {
        item.wrong(report, problem);
    }
    let mut pull = PullPolicy::Missing;
    if let Some(item) = fields.get("pull_policy") {
        let text = item.text(report, "missing, always or never")?;
        match text.as_str() {
            "missing" | "if_not_present" => {}
            "always" => pull = PullPolicy::Always,
            "never" => pull = PullPolicy::Never,
            _ => word(&item, report, &text, &["missing", "always", "never"]),
        }
    }
    let registry = fields.get("registry").and_then(|item| registry(&item, report));
    Some(TaskRuntime::Docker { image, pull, registry })
}

fn registry(item: &Item<'_>, report: &mut Report) -> Option<RegistryAuth> {
    let fields = item.fields(report, "a map of username and password")?;
    fields.check_keys(report, keys::REGISTRY, &[]);
    let mut part = |key: &str| {
        let Some(item) = fields.get(key) else {
            fields.missing(report, key, "credentials are username and password");
            return None;
        };
        let text = item.text(report, "a text")?;
        if text.is_empty() || text.len() > MAP_VALUE_BYTES_MAX {
            item.wrong(report, format!("has 1 to {MAP_VALUE_BYTES_MAX} bytes"));
        }
        Some(text)
    };
    let (username, password) = (part("username"), part("password"));
    Some(RegistryAuth { username: username?, password: password? })
}

fn resources(fields: &Fields<'_>, report: &mut Report) -> ResourceRequest {
    let inner = fields
        .get("resources")
        .and_then(|item| item.fields(report, "a map, as { cpu: 0.5, memory: 256Mi }"));
    if let Some(inner) = &inner {
        inner.check_keys(report, keys::RESOURCES, &[]);
    }
    let mut either = |names: &[&str], compose: &str| {
        let here = inner.as_ref().and_then(|inner| inner.one_of(report, names));
        let there = fields.get(compose);
        if let (Some(here), Some(there)) = (&here, &there) {
            let message = format!("says the same as {}; keep one of them", here.path);
            there.wrong(report, message);
        }
        here.or(there)
    };
    let cpu = either(&["cpu", "cpus"], "cpus");
    let memory = either(&["memory"], "mem_limit");
    let inner = |key: &str| inner.as_ref().and_then(|inner| inner.get(key));
    ResourceRequest {
        cpu_milli: cpu.and_then(|item| cpu_milli(&item, report)),
        memory: memory.and_then(|item| item.bytes(report, MEMORY_LEAST)),
        disk: inner("disk").and_then(|item| item.bytes(report, 1)),
        gpu: inner("gpu").and_then(|item| item.number_u32(report, 0..=NODE_GPUS_MAX)).unwrap_or(0),
    }
}

fn cpu_milli(item: &Item<'_>, report: &mut Report) -> Option<u64> {
    let text = item.text(report, "cores, as 0.5 or 500m")?;
    let milli = match text.strip_suffix('m') {
        Some(milli) => milli.parse::<f64>().ok(),
        None => text.parse::<f64>().ok().map(|cores| cores * 1000.0),
    };
    let milli = milli.map(f64::round).filter(|milli| (1.0..=CPU_MILLI_MOST).contains(milli));
    if milli.is_none() {
        let message =
            format!("{text:?} does not do; write cores from 0.001 to 1024, as 0.5 or 500m");
        item.wrong(report, message);
    }
    milli.map(|milli| milli as u64)
}

fn capabilities(fields: &Fields<'_>, report: &mut Report) -> (Vec<String>, Vec<String>) {
    let mut read = |key: &str| {
        let mut found: Vec<(String, Item<'_>)> = Vec::new();
        let wanted = "a list of capabilities, as [ NET_ADMIN ]";
        let items =
            fields.get(key).and_then(|item| item.list_or_one(report, CAPABILITIES.len(), wanted));
        for item in items.unwrap_or_default() {
            let Some(text) = item.text(report, "a capability, as NET_ADMIN") else { continue };
            let upper = text.to_ascii_uppercase();
            let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if !CAPABILITIES.contains(&name) {
                word(&item, report, name, &CAPABILITIES);
            } else if !found.iter().any(|(known, _)| known == name) {
                found.push((name.to_owned(), item));
            }
        }
        found
    };
    let (add, drop) = (read("cap_add"), read("cap_drop"));
    for (name, item) in &drop {
        if add.iter().any(|(added, _)| added == name) {
            item.wrong(report, format!("{name} is in cap_add too; keep it in one of them"));
        }
    }
    let names = |found: Vec<(String, Item<'_>)>| found.into_iter().map(|(name, _)| name).collect();
    (names(add), names(drop))
}

/// A command: a list of words, or a text split as a shell splits it.
pub(super) fn words(item: &Item<'_>, report: &mut Report) -> Option<Vec<String>> {
    let wanted = "a list of words, or a text that is split as a shell does";
    if !matches!(item.node.value, Value::List(_)) {
        let text = item.text(report, wanted)?;
        let split = shlex::split(&text);
        match &split {
            None => item.wrong(report, "has a quote that is not closed, or ends with a backslash"),
            Some(words) if words.len() > COMMAND_WORDS_MAX => {
                let count = words.len();
                item.wrong(
                    report,
                    format!("{count} words are too many; the most is {COMMAND_WORDS_MAX}"),
                );
                return None;
            }
            Some(_) => {}
        }
        return split;
    }
    let items = item.list(report, COMMAND_WORDS_MAX, wanted)?;
    let count = items.len();
    let words: Vec<String> = items.iter().filter_map(|item| item.text(report, "a word")).collect();
    (words.len() == count).then_some(words)
}

/// Which texts a map holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Texts {
    Environment,
    Labels,
}

/// A map from text to text, or a list of `KEY=VALUE`.
pub(super) fn text_map(
    item: &Item<'_>,
    what: Texts,
    report: &mut Report,
) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    let no_value = "has no value; write \"\" for an empty one";
    match &item.node.value {
        Value::List(_) => {
            let wanted = "a list of KEY=VALUE";
            let items = item.list(report, MAP_ENTRIES_MAX, wanted).unwrap_or_default();
            let mut seen = BTreeSet::new();
            for item in items {
                let Some(text) = item.text(report, "KEY=VALUE") else { continue };
                let (key, value) = match (text.split_once('='), what) {
                    (Some((key, value)), _) => (key, value),
                    (None, Texts::Labels) => (text.as_str(), ""),
                    (None, Texts::Environment) => {
                        item.wrong(report, format!("{text:?} {no_value}, as {text}="));
                        continue;
                    }
                };
                if !seen.insert(key.to_owned()) {
                    item.wrong(report, format!("{key} is given twice; remove one"));
                } else if entry(&item, key, value, what, report) {
                    map.insert(key.to_owned(), value.to_owned());
                }
            }
        }
        _ => {
            let Some(fields) = item.fields(report, "a map, or a list of KEY=VALUE") else {
                return map;
            };
            if fields.len() > MAP_ENTRIES_MAX {
                let count = fields.len();
                item.wrong(report, format!("{count} are too many; the most is {MAP_ENTRIES_MAX}"));
                return map;
            }
            for (key, at, item) in fields.each() {
                let text = match (&item.node.value, what) {
                    (Value::Null, Texts::Labels) => Some(String::new()),
                    (Value::Null, Texts::Environment) => {
                        report.add(at, &item.path, no_value);
                        None
                    }
                    _ => item.text(report, "a text"),
                };
                let Some(text) = text else { continue };
                let place = Item { node: item.node, path: item.path.clone() };
                if entry(&place, key, &text, what, report) {
                    map.insert(key.to_owned(), text);
                }
            }
        }
    }
    map
}

fn entry(item: &Item<'_>, key: &str, value: &str, what: Texts, report: &mut Report) -> bool {
    let problem = if what == Texts::Environment && !is_variable_name(key) {
        Some(format!("{key:?} is no variable; use letters, digits and _"))
    } else if key.is_empty() || key.chars().any(char::is_control) {
        Some(format!("{key:?} is no key; use letters, digits, _, . and -"))
    } else if key.len() > MAP_KEY_BYTES_MAX {
        Some(format!("has a key of {} bytes; the most is {MAP_KEY_BYTES_MAX}", key.len()))
    } else if value.len() > MAP_VALUE_BYTES_MAX {
        Some(format!("has a value of {} bytes; the most is {MAP_VALUE_BYTES_MAX}", value.len()))
    } else if key.contains('\0') || value.contains('\0') {
        Some("has a zero byte in it; remove it".to_owned())
    } else {
        None
    };
    let good = problem.is_none();
    if let Some(problem) = problem {
        item.wrong(report, problem);
    }
    good
}
