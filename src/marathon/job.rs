//! A job that is being made: the parts of its file.

use serde_json::{Map, Value, json};

use super::container::mentions_sandbox;
use super::finding::Notes;
use super::volumes::SANDBOX;

/// The label that names the app a job was made from.
pub(super) const LABEL_ID: &str = "marathon.id";
/// The label with its service ports, in their order.
pub(super) const LABEL_SERVICE_PORTS: &str = "marathon.service-ports";

/// The parts of a job file.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) replicas: u64,
    pub(super) labels: Map<String, Value>,
    /// Each with its name; one alone has none.
    pub(super) tasks: Vec<(Option<String>, Map<String, Value>)>,
    /// `placement`, `reschedule` and the like.
    pub(super) rules: Map<String, Value>,
    /// For each port of the job, in its order, its place in Marathon's.
    pub(super) port_order: Vec<usize>,
    /// Paths of the host that agents have to allow.
    pub(super) roots: Vec<String>,
}

impl Draft {
    /// The job file as a tree.
    pub(super) fn file(&self, name: &str, project: &str) -> Map<String, Value> {
        let mut file = Map::new();
        file.insert("job".into(), json!(name));
        if project != "default" {
            file.insert("project".into(), json!(project));
        }
        file.insert("replicas".into(), json!(self.replicas));
        if !self.labels.is_empty() {
            file.insert("labels".into(), Value::Object(self.labels.clone()));
        }
        match self.tasks.as_slice() {
            [(None, task)] if !task.contains_key("labels") => file.extend(task.clone()),
            tasks => {
                let named = |(task_name, task): &(Option<String>, Map<String, Value>)| {
                    let task_name = task_name.clone().unwrap_or_else(|| name.to_owned());
                    (task_name, Value::Object(task.clone()))
                };
                file.insert("tasks".into(), Value::Object(tasks.iter().map(named).collect()));
            }
        }
        file.extend(self.rules.clone());
        file
    }

    /// The service ports as a label.
    pub(super) fn keep_service_ports(&mut self, ports: &[u64], field: &str, notes: &mut Notes) {
        if ports.iter().all(|port| *port == 0) {
            return;
        }
        let list = ports.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        notes.adapted(
            field,
            list.clone(),
            "orch has no service ports for load balancers; they are kept as a label of the job",
            "point the load balancer at what `orch endpoints -f` says",
        );
        self.labels.insert(LABEL_SERVICE_PORTS.into(), json!(list));
    }
}

/// A task that knows its directory gets one, or hears that it has another.
pub(super) fn give_sandbox(task: &mut Map<String, Value>, process: bool, notes: &mut Notes) {
    if !mentions_sandbox(task) {
        return;
    }
    let path = if process { "." } else { SANDBOX };
    let environment = task.entry("environment").or_insert_with(|| json!({}));
    if let Value::Object(environment) = environment {
        environment.entry("MESOS_SANDBOX").or_insert_with(|| json!(path));
    }
    if process {
        let why = "it is the directory that the process starts in, and empty then";
        return notes.adapted("cmd", "MESOS_SANDBOX", why, "nothing, if it needs no fetched files");
    }
    let mounted = |volumes: Option<&Value>| {
        let volumes = volumes.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        volumes.iter().any(|volume| volume["target"] == SANDBOX)
    };
    if !mounted(task.get("volumes"))
        && let Value::Array(list) = task.entry("tmpfs").or_insert_with(|| json!([]))
        && !list.contains(&json!(SANDBOX))
    {
        list.push(json!(SANDBOX));
    }
    let why = "it is held in memory, is empty at the start, and counts as the task's memory";
    notes.adapted("cmd", "MESOS_SANDBOX", why, "name another place if it writes much there");
}

/// A duration in the largest unit that loses nothing.
pub(super) fn duration(seconds: f64) -> Value {
    const UNITS: [(&str, u64); 4] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let millis = ((seconds * 1000.0).round() as u64).max(u64::from(seconds > 0.0));
    let unit = UNITS.iter().find(|(_, factor)| millis > 0 && millis.is_multiple_of(*factor));
    match unit {
        Some((unit, factor)) => json!(format!("{}{unit}", millis / factor)),
        None => json!(format!("{millis}ms")),
    }
}

/// MiB as a size, in the largest unit that loses nothing.
pub(super) fn size(mib: f64) -> Value {
    let bytes = (mib * f64::from(1 << 20)).round() as u64;
    for (unit, factor) in [("Gi", 1_u64 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return json!(format!("{}{unit}", bytes / factor));
        }
    }
    json!(bytes)
}

/// What a task reserves and may use.
#[derive(Debug, Default)]
pub(super) struct Amounts {
    pub(super) cpus: Option<f64>,
    pub(super) mem: Option<f64>,
    pub(super) disk: Option<f64>,
    pub(super) gpus: Option<u64>,
}

/// Docker starts nothing with less, in MiB.
const MEM_LEAST: f64 = 6.0;
/// The kernel takes no limit below that, in cores.
const CPUS_LEAST: f64 = 0.01;

impl Amounts {
    /// `resources` of a task.
    pub(super) fn entry(&self, at: impl Fn(&str) -> String, notes: &mut Notes) -> Value {
        let mut map = Map::new();
        let cpus = self.cpus.unwrap_or(1.0);
        if cpus < CPUS_LEAST {
            let why = "orch reserves at least a hundredth of a core";
            notes.adapted(&at("cpus"), cpus.to_string(), why, "nothing");
        }
        let milli = (cpus.max(CPUS_LEAST) * 1000.0).round() / 1000.0;
        let whole = milli.fract() == 0.0 && milli < 1e9;
        map.insert("cpu".into(), if whole { json!(milli as u64) } else { json!(milli) });
        let mem = self.mem.unwrap_or(128.0);
        if mem < MEM_LEAST {
            let why = "Docker starts nothing with less than 6 MiB";
            notes.adapted(&at("mem"), mem.to_string(), why, "nothing");
        }
        map.insert("memory".into(), size(mem.max(MEM_LEAST)));
        if let Some(disk) = self.disk.filter(|disk| *disk > 0.0) {
            let why = "Mesos held tasks to it only where the isolator was on; orch always does: \
                       the most that is written outside volumes";
            notes.adapted(&at("disk"), disk.to_string(), why, "raise it if the task writes more");
            map.insert("disk".into(), size(disk));
        }
        if let Some(gpus) = self.gpus.filter(|gpus| *gpus > 0) {
            map.insert("gpu".into(), json!(gpus));
        }
        Value::Object(map)
    }
}
