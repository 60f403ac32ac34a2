//! One job: a document of the file.

use std::collections::BTreeMap;

use super::keys;
use super::policy;
use super::reader::{Elsewhere, Fields, Item, Report, word};
use super::task::{self, Texts, text_map};
use super::tree::{Node, Value};
use crate::limits::{PLACEMENT_RULES_MAX, REPLICAS_MAX, TASKS_MAX};
use crate::model::constraint::{Constraint, ConstraintError, Subject};
use crate::model::job::{JobKind, JobSpec, Placement, Preference, Protocol, TaskSpec};
use crate::model::name::{JobName, PortName, ProjectName, TaskName};
use crate::model::time::Millis;

/// Times that something is tried again.
pub(super) const ATTEMPTS_MOST: u32 = 10_000;
/// The longest time over which anything is counted or waited for.
pub(super) const LONG: Millis = Millis::from_secs(365 * 24 * 60 * 60);
/// The longest pause.
pub(super) const DAY: Millis = Millis::from_secs(24 * 60 * 60);

/// The job, as far as it could be read. What is wrong with it is in the report, and then the job
/// is not to be used.
pub(super) fn read(
    document: &Node,
    default_project: &ProjectName,
    report: &mut Report,
) -> Option<JobSpec> {
    let item = Item { node: document, path: String::new() };
    let fields = item.fields(report, "a map that begins with job: NAME")?;
    let tasks = fields.get("tasks");
    check_keys(&fields, tasks.is_some(), report);

    let name = fields.get("job").map(|item| item.parsed::<JobName>(report, "a name"));
    if name.is_none() {
        fields.missing(report, "job", "every job needs a name, as job: web");
    }
    let name = name.flatten();
    let project = fields
        .get("project")
        .map(|item| item.parsed::<ProjectName>(report, "a name"))
        .unwrap_or_else(|| Some(default_project.clone()));
    let kind = kind(&fields, report);
    let labels = fields.get("labels").map(|item| text_map(&item, Texts::Labels, report));
    let placement = fields.get("placement").map(|item| placement(&item, kind, report));
    let restart = fields.get("restart").map(|item| policy::restart(&item, kind, report));
    let reschedule = fields.get("reschedule").map(|item| policy::reschedule(&item, kind, report));
    let (update, says_min_healthy) =
        fields.get("update").map(|item| policy::update(&item, kind, report)).unwrap_or_default();
    let disconnect = fields.get("disconnect").map(|item| policy::disconnect(&item, report));
    let shutdown_delay = shutdown_delay(&fields, kind, report);
    let replicas_owner = replicas_owner(&fields, kind, report);
    let priority = fields.get("priority").and_then(|item| item.number_u32(report, 1..=100));
    let tasks = match tasks {
        Some(item) => named_tasks(&item, report),
        None => {
            // Without a good name of its own the rest is still worth checking.
            let task_name =
                name.as_ref().map_or("task", JobName::as_str).parse::<TaskName>().ok()?;
            let task = task::read(task_name, &fields, report);
            let tasks: Vec<TaskSpec> = task.into_iter().collect();
            check_ports(&tasks, &item, report);
            tasks
        }
    };
    let mut spec = JobSpec {
        project: project?,
        priority: priority
            .and_then(|priority| u8::try_from(priority).ok())
            .unwrap_or(JobSpec::priority_default()),
        labels: labels.unwrap_or_default(),
        placement: placement.unwrap_or_default(),
        restart: restart.unwrap_or_default(),
        reschedule: reschedule.unwrap_or_default(),
        update,
        disconnect: disconnect.unwrap_or_default(),
        shutdown_delay: shutdown_delay.unwrap_or(JobSpec::shutdown_delay_default()),
        replicas_owner,
        ..JobSpec::new(name?, kind?, tasks)
    };
    if !says_min_healthy {
        // Half of the deadline: a replica must be able to count before it.
        let most = Millis(spec.update.deadline.0 / 2);
        spec.update.min_healthy = spec.min_healthy_default().min(most);
    }
    Some(spec)
}

fn check_keys(fields: &Fields<'_>, several: bool, report: &mut Report) {
    if several {
        let remedy = "belongs to a task; move it to the task it is meant for under tasks";
        fields.check_keys(report, keys::JOB, &[Elsewhere { keys: keys::TASK, remedy }]);
    } else {
        let all: Vec<keys::Key> = keys::JOB.iter().chain(keys::TASK).copied().collect();
        fields.check_keys(report, &all, &[]);
    }
}

/// Keys that only a batch job has.
const BATCH_ONLY: [&str; 4] = ["timeout", "completions", "parallelism", "retries"];

fn kind(fields: &Fields<'_>, report: &mut Report) -> Option<JobKind> {
    let replicas = fields.get("replicas");
    let per = fields.get("per");
    if let (Some(_), Some(per)) = (&replicas, &per) {
        per.wrong(
            report,
            "contradicts replicas; keep per for one on every node, replicas for a number",
        );
    }
    if replicas.is_some() || per.is_some() {
        for item in BATCH_ONLY.iter().filter_map(|key| fields.get(key)) {
            let message = "is for batch jobs, and with replicas or per this runs on; remove it";
            item.wrong(report, message);
        }
    }
    if let Some(item) = per {
        let text = item.text(report, "node")?;
        if text != "node" {
            word(&item, report, &text, &["node"]);
            return None;
        }
        return Some(JobKind::System);
    }
    if let Some(item) = replicas {
        return Some(JobKind::Service { replicas: item.number_u32(report, 0..=REPLICAS_MAX)? });
    }
    batch(fields, report)
}

fn batch(fields: &Fields<'_>, report: &mut Report) -> Option<JobKind> {
    let mut good = true;
    let mut number = |key: &str, least: u32, most: u32| {
        let item = fields.get(key)?;
        let number = item.number_u32(report, least..=most);
        good &= number.is_some();
        number
    };
    let completions = number("completions", 1, REPLICAS_MAX);
    let parallelism = number("parallelism", 1, REPLICAS_MAX);
    let retries = number("retries", 0, ATTEMPTS_MOST).unwrap_or(0);
    let timeout = match fields.get("timeout") {
        Some(item) => Some(item.duration(report, Millis(1)..=LONG)?),
        None => None,
    };
    if !good {
        return None;
    }
    if let (Some(item), Some(parallelism)) = (fields.get("parallelism"), parallelism) {
        match completions {
            Some(completions) if parallelism > completions => item.wrong(
                report,
                format!("{parallelism} at the same time are more than completions: {completions}"),
            ),
            None if parallelism > 1 => {
                item.wrong(report, "one run is at most one at a time; write completions too");
            }
            _ => {}
        }
    }
    let completions = completions.unwrap_or(1);
    let parallelism = parallelism.unwrap_or(completions);
    Some(JobKind::Batch { timeout, completions, parallelism, retries })
}

fn shutdown_delay(
    fields: &Fields<'_>,
    kind: Option<JobKind>,
    report: &mut Report,
) -> Option<Millis> {
    let item = fields.get("shutdown_delay")?;
    if matches!(kind, Some(JobKind::Batch { .. })) {
        let message = "is for jobs that others call, and this is a batch job; remove it, or add \
                       replicas";
        item.wrong(report, message);
    }
    item.duration(report, Millis(0)..=DAY)
}

fn replicas_owner(
    fields: &Fields<'_>,
    kind: Option<JobKind>,
    report: &mut Report,
) -> Option<String> {
    let item = fields.get("replicas_owner")?;
    if matches!(kind, Some(JobKind::Batch { .. } | JobKind::System)) {
        let message = "goes with replicas, whose number it gives to another; write replicas too, \
                       or remove it";
        item.wrong(report, message);
    }
    item.parsed::<JobName>(report, "a name, as autoscaler").map(|name| name.to_string())
}

fn named_tasks(item: &Item<'_>, report: &mut Report) -> Vec<TaskSpec> {
    let wanted = "a map from name to task, as { app: { image: nginx:1.27 } }";
    let Some(fields) = item.fields(report, wanted) else { return Vec::new() };
    if fields.len() == 0 {
        item.wrong(report, "is empty; a job has at least one task");
    }
    if fields.len() > TASKS_MAX {
        item.wrong(report, format!("{} tasks are too many; the most is {TASKS_MAX}", fields.len()));
        return Vec::new();
    }
    let mut tasks = Vec::new();
    for (key, at, item) in fields.each() {
        let name = key.parse::<TaskName>().or_else(|error| {
            report.add(at, &item.path, error.to_string());
            // What it holds is still worth checking.
            "task".parse()
        });
        let Ok(name) = name else { continue };
        tasks.extend(task::read_named(name, &item, report));
    }
    check_ports(&tasks, item, report);
    tasks
}

/// Names and fixed host ports are the whole job's: its tasks share a node.
fn check_ports(tasks: &[TaskSpec], item: &Item<'_>, report: &mut Report) {
    let mut names: BTreeMap<&PortName, String> = BTreeMap::new();
    let mut hosts: BTreeMap<(u16, Protocol), String> = BTreeMap::new();
    for task in tasks {
        let in_tasks = item.path == "tasks";
        for port in &task.ports {
            let path = if in_tasks {
                format!("tasks.{}.ports.{}", task.name, port.name)
            } else {
                format!("ports.{}", port.name)
            };
            if let Some(other) = names.insert(&port.name, path.clone()) {
                let message = format!("the name is taken by {other}; name them differently");
                report.add(place_of(item, &path), &path, message);
            }
            if let Some(host) = port.host
                && let Some(other) = hosts.insert((host, port.protocol), path.clone())
            {
                let message = format!(
                    "{host}/{} on the host is taken by {other}; write another, or leave it to be chosen",
                    port.protocol
                );
                report.add(place_of(item, &path), &path, message);
            }
        }
    }
}

/// Where the entry of a port stands; in the list form, where the list does.
fn place_of(item: &Item<'_>, path: &str) -> super::tree::Place {
    let mut node = item.node;
    let mut at = item.at();
    let rest = path.strip_prefix("tasks.").unwrap_or(path);
    for part in rest.split('.') {
        let Value::Map(entries) = &node.value else { break };
        let Some(entry) = entries.iter().find(|entry| entry.key == part) else { break };
        node = &entry.value;
        at = node.at;
    }
    at
}

fn placement(item: &Item<'_>, kind: Option<JobKind>, report: &mut Report) -> Placement {
    let wanted = "a map of require, prefer, spread, max_per_node";
    let Some(fields) = item.fields(report, wanted) else { return Placement::default() };
    fields.check_keys(report, keys::PLACEMENT, &[]);
    if kind == Some(JobKind::System) {
        for key in ["spread", "max_per_node"] {
            if let Some(item) = fields.get(key) {
                item.wrong(
                    report,
                    "has no meaning with per: node, which puts one on every node; remove it",
                );
            }
        }
    }
    let rule = "a rule, as \"node.class == web\"";
    let mut list = |key: &str, wanted: &str| {
        let item = fields.get(key);
        let items = item.and_then(|item| item.list_or_one(report, PLACEMENT_RULES_MAX, wanted));
        items.unwrap_or_default()
    };
    let require = list("require", "a list of rules, as [ \"node.class == web\" ]");
    let prefer = list("prefer", "a list of { rule: weight }, as [ { \"attr.disk == ssd\": 50 } ]");
    let spread = list("spread", "a list, as [ attr.zone ]");
    Placement {
        require: require
            .iter()
            .filter_map(|item| {
                let text = item.text(report, rule)?;
                constraint(&text).map_err(|message| item.wrong(report, message)).ok()
            })
            .collect(),
        prefer: prefer.iter().filter_map(|item| preference(item, report)).collect(),
        spread: spread
            .iter()
            .filter_map(|item| item.parsed::<Subject>(report, "what to spread over, as attr.zone"))
            .collect(),
        max_per_node: fields
            .get("max_per_node")
            .and_then(|item| item.number_u32(report, 1..=REPLICAS_MAX)),
    }
}

/// The rule, or what is wrong with it, the rule itself named.
fn constraint(text: &str) -> Result<Constraint, String> {
    text.parse().map_err(|error: ConstraintError| match error {
        ConstraintError::Subject(_) => format!("in {text:?}, {error}"),
        _ => error.to_string(),
    })
}

fn preference(item: &Item<'_>, report: &mut Report) -> Option<Preference> {
    let wanted = "a rule with its weight, as { \"attr.disk == ssd\": 50 }";
    let fields = item.fields(report, wanted)?;
    let mut entries = fields.each();
    let (Some((key, at, weight)), None) = (entries.next(), entries.next()) else {
        item.wrong(report, format!("has {} rules; write {wanted}", fields.len()));
        return None;
    };
    let rule = constraint(key);
    if let Err(message) = &rule {
        report.add(at, &item.path, message);
    }
    let text = weight.text(report, "a weight from -100 to 100")?;
    let number = text.parse::<i8>().ok().filter(|number| (-100..=100).contains(number));
    if number.is_none() {
        weight
            .wrong(report, format!("{text:?} does not do; write a whole number from -100 to 100"));
    }
    Some(Preference { rule: rule.ok()?, weight: number? })
}
